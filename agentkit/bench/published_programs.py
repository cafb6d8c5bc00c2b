"""Reads the published programs of Reflexion with their verdicts: JSONL of HumanEval's or MBPP's shape."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentkit.envs.code_tasks import CodeTask, human_eval_task, mbpp_task


@dataclass(frozen=True)
class Written:
    """One logged program and what its log says of it. ``task`` is None where it cannot be judged here, and ``unjudged``
    says why."""

    name: str
    task: CodeTask | None
    solution: str
    solved: bool
    unjudged: str = ""


@dataclass(frozen=True)
class ProgramLog:
    """A log of programs."""

    path: Path
    rows: tuple[Written, ...]
    problems: tuple[str, ...] = ()


def program_log(path: Path, rows: list[dict[str, Any]], problems: list[str]) -> ProgramLog:
    """A log of programs from its rows; rows without what is needed are problems."""
    found: dict[str, Written] = {}
    for number, row in enumerate(rows, start=1):
        name = str(next((row[k] for k in ("task_id", "name") if row.get(k) is not None), f"row {number}"))
        missing = [k for k in ("prompt", "entry_point", "solution", "is_solved") if k not in row]
        if missing:
            problems.append(f"{name} has no {', '.join(missing)}")
            continue
        if name in found:
            problems.append(f"{name} occurs twice; row {number} is the one that counts")
        solution, solved = str(row["solution"] or ""), row["is_solved"] in (True, "True", "true")
        written = "\n".join(map(str, row["solution"])) if isinstance(row["solution"], list) else ""
        if written:  # tests that the model wrote, held against the known solution
            solution = str(row.get("canonical_solution", ""))
        language = str(row.get("language") or ("rs" if re.search(r"\bfn\s+\w+\s*[(<]", str(row["prompt"])) else "py"))
        if language not in ("py", "python"):
            found[name] = Written(name, None, solution, solved, f"written in {language}, which is not run here")
        elif not row.get("test_list") and not str(row.get("test") or "").strip():
            found[name] = Written(name, None, solution, solved, "without tests to run")
        else:
            try:
                task = mbpp_task(row) if "test_list" in row else human_eval_task(row)
            except (KeyError, TypeError, ValueError, SyntaxError) as error:
                problems.append(f"{name} is no task: {type(error).__name__}: {error}")
                continue
            task = replace(task, name=name, visible=(), hidden=(written,) if written else task.hidden)
            found[name] = Written(name, task, solution, solved)
    return ProgramLog(path, tuple(found.values()), tuple(problems))
