"""Text spaces that hold what worlds really print.

`gymnasium.spaces.Text` takes letters and digits only unless it is told otherwise, and looks at one character at a time.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from agentkit.errors import ContractError

MAX_ACTION = 4096
MAX_OBSERVATION = 32768

# Letters, punctuation and signs of the European scripts, arrows, mathematics, box drawing, dingbats.
_RANGES = [
    (0x20, 0x7E),
    (0xA0, 0x17F),
    (0x370, 0x3FF),
    (0x400, 0x45F),
    (0x2010, 0x2027),
    (0x2030, 0x205E),
    (0x2070, 0x209C),
    (0x20A0, 0x20BF),
    (0x2100, 0x214F),
    (0x2190, 0x22FF),
    (0x2300, 0x23FF),
    (0x2500, 0x25FF),
    (0x2600, 0x27BF),
]
REPLACEMENT = "\ufffd"
CHARSET = frozenset("\t\n" + REPLACEMENT + "".join(chr(c) for low, high in _RANGES for c in range(low, high + 1)))
_ASCII = bytes(sorted(ord(c) for c in CHARSET if c.isascii()))


class _Text(gymnasium.spaces.Text):
    """`gymnasium.spaces.Text` whose membership test runs at the speed of a set."""

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length and self._char_set.issuperset(x)


def text_space(max_length: int = MAX_OBSERVATION, *, min_length: int = 0) -> gymnasium.spaces.Text:
    """A space of all texts up to ``max_length`` characters over `CHARSET`. Each call makes one of its own: a space
    carries a random generator."""
    return _Text(max_length, min_length=min_length, charset=CHARSET)


def clean(text: str, max_length: int = MAX_OBSERVATION) -> str:
    """``text`` as a member of ``text_space(max_length)``: unknown characters become U+FFFD, carriage returns go, and
    what is too long loses its middle."""
    if text.isascii():  # the common case, at the speed of C
        strange = bool(text.encode().translate(None, _ASCII))
    else:
        strange = not CHARSET.issuperset(text)
    if strange:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = "".join(c if c in CHARSET else REPLACEMENT for c in text)
    if len(text) > max_length:
        mark = f"\n[… {len(text) - max_length} characters left out …]\n"
        if len(mark) >= max_length:
            return text[:max_length]
        keep = max_length - len(mark)
        text = text[: keep - keep // 2] + mark + (text[-(keep // 2) :] if keep // 2 else "")
    return text


def check_action(action: object) -> None:
    """Raise `ContractError` for an action that is no text: every world's ``step`` begins with it."""
    if not isinstance(action, str):
        shown, kind = repr(action), type(action).__name__
        raise ContractError(
            f"the action is {shown if len(shown) <= 80 else shown[:80] + '…'} ({kind}); an action is a text (str). "
            "Give step what the agent wrote, decoded where it is bytes."
        )


def one_line(action: str, max_length: int = MAX_ACTION) -> str:
    """An action as one line of at most ``max_length`` characters of `CHARSET`, for worlds that read lines."""
    if action.isascii() and action.isprintable():
        return action[:max_length].strip()
    return " ".join(clean(action[: 2 * max_length]).split())[:max_length].strip()


def quoted(action: str) -> str:
    """An action for use inside a sentence of feedback: one line, at most 80 characters."""
    line = " ".join(clean(action[:400]).split())
    return f'"{line}"' if len(line) <= 80 else f'"{line[:80]}…"'
