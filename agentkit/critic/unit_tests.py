"""Unit tests as the critic: given with the task, or written by the model from the task alone."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentkit import parsing
from agentkit.dialogue import Prompted, derive
from agentkit.errors import ContractError
from agentkit.llm.base import LLM
from agentkit.syntax import parse_module
from agentkit.types import Episode, Judgement


class Tested(Protocol):
    """One test's result."""

    @property
    def passed(self) -> bool: ...
    @property
    def message(self) -> str: ...


class Verdict(Protocol):
    """What the tests say of a program."""

    @property
    def passed(self) -> bool: ...
    @property
    def tests(self) -> Sequence[Tested]: ...
    @property
    def note(self) -> str: ...


class Tester(Protocol):
    """Runs tests on a program apart from this process; `agentkit.envs.sandbox.Sandbox` is one."""

    def judge(self, program: str, tests: Sequence[str], *, entry_point: str = "", timeout_s: float = 5.0) -> Verdict:
        """Whether ``program`` passes ``tests``, each a script."""
        ...


@dataclass(frozen=True, repr=False)
class UnitTests(Prompted):
    """Runs tests on the last program of an episode, in ``tester``. The score is the share of tests that pass.

    ``tests`` are given for each task (a callable of the episode); where it is None or gives none, the model writes up
    to ``most`` assertions from the goal (Shinn et al. 2023, "Reflexion", section 4.3: the agent's own tests, which
    never are the hidden ones). Those that are not assertions, or not Python, are dropped. The critique shows what
    failed.
    """

    prompt: str = "write_tests"
    tester: Tester | None = field(default=None, repr=False)
    tests: Callable[[Episode], Sequence[str]] | None = field(default=None, repr=False)
    most: int = 6
    timeout_s: float = 5.0
    temperature: float = 0.2
    max_tokens: int = 512

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """What the tests say."""
        if self.tester is None:
            raise ContractError("UnitTests runs programs, and has nothing to run them in: pass tester=Sandbox().")
        if not episode.steps:
            return Judgement(False, 0.0, "No program was written.")
        tests = list(self.tests(episode)) if self.tests is not None else []
        if not tests:
            answer = self.ask(
                llm,
                self.write({"goal": episode.goal, "most": self.most}),
                assertions,
                "Write assert statements, one a line, in a code block.",
                seed=derive(episode.task.seed, "tests"),
            )
            tests = (answer.value or [])[: self.most]
        if not tests:
            return Judgement(False, 0.0, "There were no tests to run.")
        verdict = self.tester.judge(episode.steps[-1].action.text, tests, timeout_s=self.timeout_s)
        passed = sum(result.passed for result in verdict.tests)
        if verdict.passed:
            return Judgement(True, 1.0, f"All {len(tests)} tests passed.")
        failed = [
            f"{test.strip()}  # {result.message}"
            for test, result in zip(tests, verdict.tests, strict=False)
            if not result.passed
        ]
        why = "\n".join(["Tests that failed:", *failed]) if failed else f"The tests could not run: {verdict.note}"
        return Judgement(False, passed / len(tests), why)


def assertions(answer: str) -> list[str] | None:
    """The assert statements in an answer that are Python, each a test."""
    text = parsing.program(answer) or answer
    try:
        nodes = parse_module(text).body
    except (SyntaxError, ValueError):
        nodes = [node for line in text.splitlines() for node in _parsed(line.strip())]
    return list(dict.fromkeys(ast.unparse(node) for node in nodes if isinstance(node, ast.Assert))) or None


def _parsed(line: str) -> list[ast.stmt]:
    try:
        return parse_module(line).body
    except (SyntaxError, ValueError):
        return []
