"""What the host works out of tests once, for all programs that they judge: the calls that a program can make before its
judge asks for them, for each way across is a switch of processes; and the bytecode of tests that are trusted."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import marshal
from collections.abc import Iterator, Sequence
from typing import Any

from agentkit.envs.sandbox.inside.wire import WireError, to_json
from agentkit.syntax import parse_module

_BRANCHES = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Await)


@functools.lru_cache(maxsize=1024)
def calls_ahead(tests: tuple[str, ...], entry_point: str, prelude: str) -> list[Any]:
    """The calls to ``entry_point`` with literal arguments that begin a single test: those that it is sure to make, in
    its order, before it does anything else with the program, which may remember what it was asked. With several tests
    there are none, so that a call that never returns fails its own test alone."""
    if len(tests) != 1 or not entry_point:
        return []
    try:
        trees = [parse_module(prelude), parse_module(tests[0])]
        own = {name for tree in trees for node in ast.walk(tree) for name in _bound(node)}
        if entry_point in own:
            return []
        body = [statement for tree in trees for statement in tree.body]
        found = _calls(body, {entry_point}, own | set(dir(builtins)), {})
        return [{"call": entry_point, "args": values, "kwargs": {}} for values in found]
    except (SyntaxError, ValueError, RecursionError):
        return []


@functools.lru_cache(maxsize=1024)
def bytecode(tests: tuple[str, ...], prelude: str) -> dict[str, bytes]:
    """The marshalled bytecode of trusted tests and their prelude, by the name of their file. What cannot be compiled is
    left out: its judge will try, and say why."""
    made = {}
    for file, code in [("<prelude>", prelude), *((f"<test {i}>", test) for i, test in enumerate(tests))]:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            made[file] = marshal.dumps(compile(code, file, "exec", dont_inherit=True))
    return made


def _bound(node: ast.AST) -> list[str]:
    """The names that ``node`` gives a meaning."""
    match node:
        case ast.Name(name, ast.Store() | ast.Del()) | ast.FunctionDef(name) | ast.ClassDef(name):
            return [name]
        case ast.Import(names) | ast.ImportFrom(_, names):
            return [(alias.asname or alias.name).split(".")[0] for alias in names]
        case ast.arg(name):
            return [name]
    return []


def _calls(
    body: Sequence[ast.stmt], entry: set[str], known: set[str], functions: dict[str, ast.FunctionDef]
) -> Iterator[Any]:
    """The arguments of the calls that ``body`` makes by one of the names ``entry``, up to the first place where what
    comes next cannot be read. ``known`` names are none of the program's; ``functions`` are the test's own so far."""
    for statement in body:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.Pass():
                continue
            case ast.FunctionDef(name, decorator_list=[]):
                functions[name] = statement
                continue
            case ast.Expr(ast.Call(ast.Name(name), [ast.Name(given)], [])) if name in functions and given in entry:
                # As HumanEval has it: ``check(f)`` ends the test, and ``check`` calls f by the name of its parameter.
                parameters = functions[name].args.args
                if len(parameters) == 1:
                    both = entry | {parameters[0].arg}
                    yield from _calls(functions[name].body, both, known - both, {})
                return
            case ast.Assert(expression) | ast.Expr(expression) | ast.Assign([ast.Name()], expression):
                pass
            case _:
                return
        nodes = [n for n in ast.walk(expression) if isinstance(n, ast.expr)]
        nodes.sort(key=lambda n: (n.lineno, n.col_offset))
        callees = {id(n.func) for n in nodes if isinstance(n, ast.Call)}
        for node in nodes:
            match node:
                case ast.Call(ast.Name(name), arguments, []) if name in entry:
                    with contextlib.suppress(ValueError, TypeError, WireError):  # not made of literals
                        values = [to_json(ast.literal_eval(a)) for a in arguments]
                        yield values
                        continue
                    return
                case ast.Name(name) if name in entry and id(node) in callees:
                    pass
                case ast.Name(name) if name not in known or name in functions:
                    return
                case ast.Compare(_, [_, _, *_]):
                    return
                case _ if isinstance(node, _BRANCHES):
                    return
