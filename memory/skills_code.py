"""What can be learned of a program without running it: its signature, what it binds, what it uses."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agentkit.errors import AgentkitError
from agentkit.syntax import parse_module

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_RESERVED = frozenset(dir(builtins)) | frozenset(keyword.kwlist) | frozenset(keyword.softkwlist)


class InvalidSkill(AgentkitError, ValueError):
    """A skill that cannot be in the library: it says why."""


class SkillCycle(InvalidSkill):
    """Skills that depend on each other in a circle."""


@dataclass(frozen=True, slots=True)
class Outline:
    """``signature`` is the head of the function or class, ``summary`` the first paragraph of its docstring, ``defines``
    and ``imports`` the names that the program binds at its top level, ``uses`` those it reads from there."""

    signature: str
    summary: str
    defines: frozenset[str]
    imports: frozenset[str]
    uses: frozenset[str]


def check_name(name: str) -> None:
    """Raise `InvalidSkill` unless ``name`` is a plain identifier that hides nothing of Python's own."""
    if not _NAME.fullmatch(name):
        raise InvalidSkill(f"{name!r} is no name for a skill: it takes 1 to 64 letters, digits and underscores")
    if name in _RESERVED or (name.startswith("__") and name.endswith("__")):
        raise InvalidSkill(f"{name!r} is no name for a skill: Python has it already")


def outline(name: str, code: str) -> Outline:
    """The outline of a program that is to define the function or class ``name``. Raises `InvalidSkill`."""
    tree = parse(code, f"the code of {name!r}")
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    node = next((n for n in reversed(found) if n.name == name), None)
    if node is None:
        others = ", ".join(n.name for n in found) or "nothing"
        raise InvalidSkill(
            f"the code of {name!r} does not define a function or class of that name; it defines {others}"
        )
    top = symtable.symtable(code, "<skill>", "exec")
    imports = frozenset(s.get_name() for s in top.get_symbols() if s.is_imported())
    defines = frozenset(s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_namespace()) - imports
    summary = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return Outline(_signature(node), " ".join(summary.split()), defines, imports, frozenset(_read_from_top(top)))


def parse(code: str, what: str) -> ast.Module:
    """The syntax tree of a program that compiles. Nothing is run. Raises `InvalidSkill`."""
    try:
        tree = parse_module(code)
        compile(tree, "<skill>", "exec")
    except SyntaxError as error:
        raise InvalidSkill(f"{what} is not valid Python: {error.msg} (line {error.lineno})") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, half characters, nesting without end
        raise InvalidSkill(f"{what} is not valid Python: {type(error).__name__}: {error}") from error
    return tree


def join(parts: Iterable[str]) -> str:
    """One program of many, in their order, with their ``from __future__`` imports at the top, as Python wants them."""
    features: set[str] = set()
    bodies: list[str] = []
    for part in parts:
        lines = part.split("\n")
        for node in parse_module(part).body:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                features |= {alias.name for alias in node.names}
                first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
                after = lines[last].encode()[node.end_col_offset or 0 :].decode()
                lines[first : last + 1] = [""] * (last - first) + [after.lstrip("; \t")]
        if body := "\n".join(lines).strip("\n"):
            bodies.append(body)
    head = [f"from __future__ import {', '.join(sorted(features))}"] if features else []
    return "\n\n\n".join([*head, *bodies]) + "\n"


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        methods = [
            n
            for n in node.body
            if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
            and (n.name == "__init__" or not n.name.startswith("_"))
        ]
        return "\n    ".join([f"class {node.name}" + (f"({bases})" if bases else ""), *map(_signature, methods)])
    keyword_ = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{keyword_} {node.name}({ast.unparse(node.args)}){returns}"


def _read_from_top(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that are read in any scope and belong to the top level or to nothing in the program."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _read_from_top(child)
