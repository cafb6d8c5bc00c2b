"""Prompts are files: Jinja templates beside this module, or of the same name in a folder of the user's.

Undefined variables are errors. `digest` is what the run log stores, so that a changed prompt is a changed run.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import InvalidValue, UnknownName

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
_INCLUDED = re.compile(r"""\{%-?\s*include\s+["']([^"']+)\.jinja["']""")


def render(name: str, variables: Mapping[str, Any], *, folder: str | Path | None = None) -> str:
    """The prompt ``name`` filled with ``variables``, without trailing white space.

    A file ``<name>.jinja`` in ``folder`` takes the place of the shipped one. Raises `UnknownName` for a prompt in
    neither, `InvalidValue` for a variable that the template uses and ``variables`` lacks, or a mistake in the template.
    """
    from jinja2 import TemplateError, UndefinedError

    _source(name, folder)
    try:
        return _environment(str(folder or "")).get_template(f"{name}.jinja").render(**variables).rstrip()
    except UndefinedError as error:
        raise InvalidValue(
            f"prompt {name!r}: {error.message}. It was given: {', '.join(sorted(variables))}."
        ) from error
    except TemplateError as error:
        raise InvalidValue(f"prompt {name!r} ({_source(name, folder)}): {error}") from error


def digest(name: str, *, folder: str | Path | None = None) -> str:
    """The first 12 hex digits of the SHA-256 of the prompt's file and of those that it includes."""
    files: dict[str, bytes] = {}
    todo = [name]
    while todo:
        current = todo.pop(0)
        if current not in files:
            files[current] = _source(current, folder).read_bytes()
            todo += _INCLUDED.findall(files[current].decode())
    return hashlib.sha256(b"".join(files.values())).hexdigest()[:12]


def names() -> list[str]:
    """The shipped prompts."""
    return sorted(path.stem for path in HERE.glob("*.jinja"))


def _source(name: str, folder: str | Path | None) -> Path:
    for place in ([Path(folder)] if folder else []) + [HERE]:
        if (path := place / f"{name}.jinja").is_file():
            return path
    raise UnknownName.among("prompt", name, names())


@functools.cache
def _environment(folder: str) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = ([folder] if folder else []) + [str(HERE)]
    # The output is a prompt, not a page: nothing is escaped for HTML.
    return Environment(  # noqa: S701
        loader=FileSystemLoader(places), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
