"""A MiniWoB page in a browser: what is on it, in words, and what can be done with it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.envs.miniwob_browser import Browser, BrowserError
from agentkit.envs.spaces import MAX_ACTION, quoted

STEP_MS = 1000
FORMS = (
    "click REF",
    'type REF "text" (replaces what the field holds)',
    'select REF "option"',
    "hover REF",
    "drag REF to REF",
    "scroll REF down",
    "scroll REF up",
    "press KEY",
    "wait",
)
_KEY_CODES = {
    "Enter": 13,
    "Tab": 9,
    "Escape": 27,
    "Backspace": 8,
    "Delete": 46,
    "Space": 32,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
_TYPED = {"Enter": "\r", "Space": " "}
_FORM = re.compile(
    r"(?P<wait>wait)|press (?P<key>\w+)|(?P<verb>click|hover) (?P<ref>\d{1,6})"
    r"|drag (?P<what>\d{1,6}) to (?P<onto>\d{1,6})|scroll (?P<area>\d{1,6}) (?P<way>up|down)"
    r"|(?P<give>type|select) (?P<field>\d{1,6}) (?P<text>.*)",
    re.DOTALL | re.IGNORECASE,
)
_SCRIPT = Path(__file__).with_suffix(".js")


@dataclass(frozen=True, slots=True)
class Line:
    """A visible element, or with ``ref`` 0 a text that stands between elements. ``depth`` is how deep it is nested."""

    ref: int
    depth: int
    tag: str
    text: str
    id: str = ""
    classes: str = ""
    type: str = ""
    placeholder: str = ""
    fill: str = ""
    value: str | None = None
    checked: bool | None = None
    options: Sequence[str] = ()
    chosen: Sequence[str] = ()
    editable: bool = False
    scrolls: bool = False
    disabled: bool = False
    focused: bool = False

    def __str__(self) -> str:
        if not self.ref:
            return "  " * self.depth + self.text
        named = (("type", self.type), ("id", self.id), ("class", self.classes), ("color", self.fill))
        parts = [f"[{self.ref}] <{' '.join([self.tag, *(f'{k}={v}' for k, v in named if v)])}>", self.text]
        parts += [f"placeholder={_said(self.placeholder)}"] if self.placeholder else []
        parts += [f"value={_said(self.value)}"] if self.value is not None else []
        parts += ["checked" if self.checked else "not checked"] if self.checked is not None else []
        if self.tag == "select":
            parts += [f"selected: {', '.join(map(_said, self.chosen)) or 'nothing'}"]
            parts += [f"options: {', '.join(map(_said, self.options))}"]
        parts += [word for word in ("scrolls", "disabled", "focused") if getattr(self, word)]
        return "  " * self.depth + " ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class State:
    """A page between two actions. ``reward`` is the task's own, from -1 to 1, once the episode is ``done``; ``fields``
    are the parts of the utterance that some pages name themselves."""

    utterance: str
    fields: Sequence[str]
    lines: tuple[Line, ...]
    done: bool
    reward: float
    reason: str

    def line(self, ref: int) -> Line | None:
        """The element of that number, if it is on the page now."""
        return next((line for line in self.lines if ref and line.ref == ref), None)


class ActionRefused(Exception):
    """An action that cannot be done; the message says why."""


class MiniWobPage:
    """A browser with a task's page in it. It must be closed."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the one with the tasks' HTML files."""
        self._folder = folder
        self._browser = Browser()
        self._loaded = ""
        self.state = State("", (), (), True, 0.0, "")
        try:
            self._browser.call("Page.enable")
            self._browser.call("Page.addScriptToEvaluateOnNewDocument", source=_SCRIPT.read_text(encoding="utf-8"))
            self._browser.call("Network.enable")
            self._browser.call(
                "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
            )
            self._browser.call(
                "Emulation.setDeviceMetricsOverride", width=500, height=400, deviceScaleFactor=1, mobile=False
            )
            self._browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
        except BaseException:
            self.close()
            raise

    def begin(self, task: str, seed: int) -> State:
        """Load the task's page anew and start the episode that ``seed`` makes."""
        self._pointer(0, 0)
        self._browser.call("Page.navigate", url=(self._folder / f"{task}.html").as_uri())
        self._browser.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', () => done()))"
        )
        return self._read(f"agentkit.begin({int(seed)})")

    def act(self, action: str) -> State:
        """Do one action; a second passes on the page. Raises `ActionRefused`, and then nothing was done."""
        form = _FORM.fullmatch(action.strip()) if len(action) <= MAX_ACTION else None
        if form is None:
            raise ActionRefused(f"{quoted(action)} is no action. Actions: {'; '.join(FORMS)}.")
        if key := form["key"]:
            self._press(key)
        elif form["verb"]:
            self._pointer(*self._point(form["ref"]), click=form["verb"].lower() == "click")
        elif form["what"]:
            start = self._point(form["what"])
            self._drag(start, self._point(form["onto"]))
        elif form["area"]:
            line = self._line(form["area"])
            if not line.scrolls:
                raise ActionRefused(f"[{line.ref}] does not scroll.")
            self._browser.evaluate(f"agentkit.scroll({line.ref}, {0.8 if form['way'].lower() == 'down' else -0.8})")
        elif form["give"]:
            self._give(form["give"].lower(), self._line(form["field"]), _unquoted(form["text"]))
        return self._read(f"agentkit.go({STEP_MS})")

    def close(self) -> None:
        """End the browser. Again does nothing."""
        self._browser.close()

    def _read(self, expression: str) -> State:
        raw = self._browser.evaluate(expression)
        lines = tuple(Line(**line) for line in raw["lines"])
        self.state = State(
            raw["utterance"], tuple(raw["fields"]), lines, raw["done"], float(raw["reward"]), raw["reason"]
        )
        return self.state

    def _line(self, ref: str) -> Line:
        line = self.state.line(int(ref))
        if line is None:
            raise ActionRefused(f"There is no element [{int(ref)}] on the page.")
        return line

    def _point(self, ref: str) -> tuple[float, float]:
        line = self._line(ref)
        point = self._browser.evaluate(f"agentkit.point({line.ref})")
        if "problem" in point:
            raise ActionRefused(f"[{line.ref}] cannot be pointed at: {point['problem']}.")
        return point["x"], point["y"]

    def _give(self, verb: str, line: Line, text: str) -> None:
        if verb == "select":
            if line.tag != "select":
                raise ActionRefused(f"[{line.ref}] <{line.tag}> is no list to select from.")
            if not self._browser.evaluate(f"agentkit.choose({line.ref}, {json.dumps(text)})"):
                options = ", ".join(map(_said, line.options))
                raise ActionRefused(f"[{line.ref}] has no option {_said(text)}. Options: {options}.")
            return
        if not line.editable:
            raise ActionRefused(f"[{line.ref}] <{line.tag}> is no field to type into.")
        if problem := self._browser.evaluate(f"agentkit.focus({line.ref})"):
            raise ActionRefused(f"[{line.ref}]: {problem}.")
        if not text:
            self._press("Delete")
        for character in text:
            self._character(character, line.tag == "textarea")

    def _character(self, character: str, lines: bool) -> None:
        if character == "\n":
            if lines:
                self._press("Enter")
            return
        if not character.isprintable() or 0xD800 <= ord(character) <= 0xDFFF:
            return
        code = ord(character.upper()) if character.isascii() and character.isalnum() else 0
        self._key(character, code, character)

    def _press(self, key: str) -> None:
        name = next((name for name in _KEY_CODES if name.lower() == key.lower()), None)
        if name is None:
            raise ActionRefused(f"There is no key {quoted(key)}. Keys: {', '.join(_KEY_CODES)}.")
        self._key(" " if name == "Space" else name, _KEY_CODES[name], _TYPED.get(name, ""))

    def _key(self, key: str, code: int, text: str) -> None:
        down = {"type": "keyDown" if text else "rawKeyDown", "key": key, "windowsVirtualKeyCode": code}
        self._browser.call("Input.dispatchKeyEvent", **down, **({"text": text} if text else {}))
        self._browser.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def _pointer(self, x: float, y: float, *, click: bool = False) -> None:
        self._mouse("mouseMoved", x, y)
        if click:
            self._mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
            self._mouse("mouseReleased", x, y, button="left", clickCount=1)

    def _drag(self, start: tuple[float, float], end: tuple[float, float], moves: int = 8) -> None:
        self._mouse("mouseMoved", *start)
        self._mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        for i in range(1, moves + 1):
            x, y = (a + (b - a) * i / moves for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", x, y, button="left", buttons=1)
        self._mouse("mouseReleased", *end, button="left", clickCount=1)

    def _mouse(self, kind: str, x: float, y: float, **what: Any) -> None:
        self._browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **what)


def _said(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquoted(text: str) -> str:
    """What stands between the quotes, if it is in quotes."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


__all__ = ["FORMS", "STEP_MS", "ActionRefused", "BrowserError", "Line", "MiniWobPage", "State"]
