"""Tables, lines and JSON on a terminal, of text that is not trusted: markup in it is plain text, and control characters
in it do not reach the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, whole: bool = False
) -> None:
    """Print a table whose last column takes what width is left: wrapped when ``whole``, else one line a row."""
    from rich.box import SIMPLE
    from rich.table import Column, Table
    from rich.text import Text

    # Where a table is too wide, columns that may wrap give way first: the last one, whose lines are then cut.
    first = [Column(name, no_wrap=not whole) for name in columns[:-1]]
    last = Column(columns[-1], overflow="fold" if whole else "ellipsis")
    grid = Table(*first, last, box=SIMPLE, title=Text(safe(title)) if title else None, title_justify="left")
    for row in rows:
        cells = row if whole else [" ".join(cell.split()) for cell in row]
        grid.add_row(*(Text(safe(cell), no_wrap=not whole) for cell in cells))
    _console().print(grid)


def line(text: str, *, stderr: bool = False, style: str | None = None) -> None:
    """Print a line, which the terminal may wrap; ``style`` is one of rich's."""
    _console(stderr=stderr).print(safe(text), soft_wrap=True, style=style)


def print_json(value: object) -> None:
    """Print a value as indented JSON, in ASCII, which every terminal and pipe takes."""
    typer.echo(json.dumps(value, default=dict, indent=2))


def safe(text: str) -> str:
    """``text`` with its control characters, but for newline and tab, replaced."""
    return "".join(
        c if (c >= " " and not "\x7f" <= c <= "\x9f") or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)
