"""Recalled records as text for a prompt, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentkit.memory.records import Recalled


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, for when no tokenizer is at hand: four bytes each, rounded up."""
    return (len(text.encode()) + 3) // 4


def render(
    recalled: Iterable[Recalled],
    budget_tokens: int,
    count: Callable[[str], int] = estimate_tokens,
    *,
    line: Callable[[Recalled], str] = lambda item: "- " + item.record.text.replace("\n", "\n  "),
    separator: str = "\n",
) -> tuple[str, tuple[int, ...]]:
    """The text of the recalled records that fit ``budget_tokens``, and their ids, in the order given.

    A record is rendered whole or not at all; one that does not fit is passed over for shorter ones after it. ``count``
    is applied to the whole text, since the tokens of a text are not the sum of those of its parts.
    """
    text = ""
    ids: list[int] = []
    for item in recalled:
        longer = text + separator + line(item) if ids else line(item)
        if count(longer) <= budget_tokens:
            text = longer
            ids.append(item.record.id)
    return text, tuple(ids)
