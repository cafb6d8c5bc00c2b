"""How the scripts of `agentkit.envs.miniwob_gold` look at a page, and the words in which they act."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from agentkit.envs.miniwob_page import Line

Look = Callable[[], Sequence[Line]]
Solver = Callable[[str, Look], Iterator[str]]


def solves(table: dict[str, Solver], *tasks: str) -> Callable[[Solver], Solver]:
    """Enter a script into ``table`` for these tasks."""

    def add(solver: Solver) -> Solver:
        table.update(dict.fromkeys(tasks, solver))
        return solver

    return add


def every(look: Look, text: str | None = None, *, tag: str = "", id: str = "", cls: str = "") -> list[Line]:
    """The elements with this text, tag, id and class, in the order of the page."""
    return [
        line
        for line in look()
        if line.ref
        and (text is None or line.text == text)
        and tag in ("", line.tag)
        and id in ("", line.id)
        and (not cls or cls in line.classes.split())
    ]


def one(look: Look, text: str | None = None, *, nth: int = 0, tag: str = "", id: str = "", cls: str = "") -> Line:
    found = every(look, text, tag=tag, id=id, cls=cls)
    if not -len(found) <= nth < len(found):
        raise LookupError(f"no element {text!r} {tag} {id} {cls}")
    return found[nth]


def first(lines: Iterable[Line]) -> Line:
    for line in lines:
        return line
    raise LookupError("no such element")


def click(line: Line) -> str:
    return f"click {line.ref}"


def fill(line: Line, text: str) -> str:
    return f'type {line.ref} "{text}"'


def fields(look: Look) -> list[Line]:
    return [line for line in look() if line.editable]


def submit(look: Look) -> str:
    return click(every(look, tag="button")[-1])


def quoted(goal: str) -> list[str]:
    return re.findall(r'"([^"]*)"', goal)


def number(goal: str, pattern: str = r"(-?\d+)") -> int:
    found = re.search(pattern, goal)
    if found is None:
        raise LookupError(f"no number in {goal!r}")
    return int(found[1])


def boxes(look: Look) -> dict[str, Line]:
    """Checkboxes and radio buttons by the text that follows them."""
    lines = list(look())
    return {after.text: line for line, after in itertools.pairwise(lines) if line.checked is not None}
