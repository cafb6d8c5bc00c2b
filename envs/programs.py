"""Worlds that are acted in by programs: the setting of Voyager (Wang et al. 2023, arXiv:2305.16291).

The action is a Python program. It runs in the sandbox and calls the world's primitives as functions; each call is
carried to the world, and its result back. What the program prints and raises is the feedback.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import gymnasium
import numpy as np

from agentkit.envs.sandbox import Ended, Lease, Limits, ProgramInterrupted, SandboxUnavailable
from agentkit.envs.spaces import check_action, clean, text_space
from agentkit.envs.tasks import as_dict, check_names, checked
from agentkit.errors import InvalidValue

MAX_PROGRAM = 16384
_SHOWN = 4000
_SKILLS_PACKAGE = '''"""The skills in the library: ``from skills import name``."""
import importlib


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        found = getattr(importlib.import_module("skills." + name), name)
    except ModuleNotFoundError as error:
        if error.name != "skills." + name:
            raise
        raise AttributeError("no skill is called " + repr(name)) from None
    globals()[name] = found
    return found
'''


class Over(ProgramInterrupted):
    """The episode has ended; raised by a primitive, it ends the program too."""


@dataclass(frozen=True, slots=True)
class Status:
    """How an episode stands. ``score`` is the part of the task that is done, in [0, 1]. ``over``: nothing more can be
    done in it."""

    success: bool
    score: float
    over: bool


class ProgramWorld(Protocol):
    """A world that programs can act in.

    ``primitives`` are the functions that a program may call; their signatures and docstrings are what the agent is
    told of them, and their arguments and results are plain data. One that takes a step in the world calls
    ``take_step``, which it is handed at ``begin``: that counts the step, and ends the program when there are none left.
    A wrong call raises ValueError, in words that help.
    """

    @property
    def primitives(self) -> Mapping[str, Callable[..., object]]: ...

    def begin(self, random: np.random.Generator, options: Mapping[str, Any], take_step: Callable[[], None]) -> str:
        """Start an episode; returns the goal in words. ``options`` are those of reset."""
        ...

    def describe(self) -> str:
        """What can be seen now."""
        ...

    def status(self) -> Status: ...

    def gold(self) -> str:
        """A program that reaches the goal, as far as one is known; empty otherwise."""
        ...

    def close(self) -> None: ...


class ProgramEnv(gymnasium.Env[str, str]):
    """A `ProgramWorld` whose actions are programs.

    A program may take ``program_steps`` steps in the world and ``timeout_s`` seconds; then it is ended, and what it did
    stays done. An episode has ``episode_steps`` steps and ``programs`` programs. It ends earlier with success, or when
    the world says that nothing more can be done. Reward is the gain in the world's score.

    ``reset(options=...)``: ``skills`` (name -> code that defines it) can be imported in programs, ``from skills import
    name``, and in each other; they find the primitives in the module ``world``. ``gold`` asks for a program that
    reaches the goal. Other options are the world's own.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self,
        world: ProgramWorld,
        *,
        programs: int = 10,
        program_steps: int = 500,
        episode_steps: int = 5000,
        timeout_s: float = 20.0,
        limits: Limits | None = None,
        allow_unisolated: bool = False,
    ) -> None:
        self.observation_space = text_space()
        self.action_space = text_space(MAX_PROGRAM)
        self.world = world
        self._programs = checked("programs", programs, int, low=1)
        self._program_steps = checked("program_steps", program_steps, int, low=1)
        self._episode_steps = checked("episode_steps", episode_steps, int, low=1)
        self._timeout_s = checked("timeout_s", timeout_s, float, low=0.01)
        checked("limits", Limits() if limits is None else limits, Limits)
        checked("allow_unisolated", allow_unisolated, bool)
        self._lease = Lease(limits=limits, allow_unisolated=allow_unisolated)
        self._files: dict[str, str] = {}
        self._ready = False
        self._tried = self._steps = self._left = 0
        self._score = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        options = as_dict("options", options)
        gold = checked("gold", options.get("gold", False), bool)
        _ = self._lease.sandbox.level
        self._files = skill_files(as_dict("skills", options.get("skills")))
        self._tried = self._steps = 0
        goal = self.world.begin(self.np_random, options, self._take_step)
        status = self.world.status()
        self._score, self._ready = status.score, not status.over
        info: dict[str, Any] = {"goal": clean(goal), "success": status.success, "score": status.score}
        if gold:
            info["gold"] = [plan] if (plan := self.world.gold()) else []
        skills = sorted(name.partition("/")[2].removesuffix(".py") for name in self._files if "__init__" not in name)
        known = f"\n\nSkills, `from skills import ...`: {', '.join(skills)}." if skills else ""
        return clean(f"{self.world.describe()}\n\n{self.manual()}{known}"), info

    def manual(self) -> str:
        """The primitives as the agent is told of them: signature and docstring of each."""
        lines = ["Write a Python program. It may call:"]
        for name, function in self.world.primitives.items():
            lines.append(
                f"{name}{inspect.signature(function, eval_str=True)}: {' '.join((function.__doc__ or '').split())}"
            )
        return "\n".join(lines)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        check_action(action)
        if not self._ready:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self._tried += 1
        self._left = min(self._program_steps, self._episode_steps - self._steps)
        before = self._steps
        result = self._lease.sandbox.run(
            read_program(action[:MAX_PROGRAM]),
            timeout_s=self._timeout_s,
            files=self._files,
            calls=self.world.primitives,
            calls_module="world",
        )
        if result.ended is Ended.REFUSED:
            raise SandboxUnavailable(result.note)
        status = self.world.status()
        reward, self._score = status.score - self._score, status.score
        terminated = status.success or status.over
        truncated = not terminated and (self._tried >= self._programs or self._steps >= self._episode_steps)
        self._ready = not (terminated or truncated)
        lines = [f"The program took {self._steps - before} steps and ended: {result.ended}."]
        if result.note and result.ended is not Ended.ERROR:
            lines.append(f"Because: {result.note}.")
        lines += [f"It printed:\n{_shown(result.stdout)}"] if result.stdout.strip() else []
        lines += [f"It raised:\n{_shown(result.stderr)}"] if result.stderr.strip() else []
        feedback = clean("\n".join(lines))
        info = {"success": status.success, "score": status.score, "feedback": feedback}
        return clean(f"{feedback}\n\n{self.world.describe()}"), reward, terminated, truncated, info

    def close(self) -> None:
        self.world.close()
        self._lease.close()

    def _take_step(self) -> None:
        if self._left <= 0:
            raise ProgramInterrupted(
                "the episode has no steps left"
                if self._steps >= self._episode_steps
                else f"a program may take {self._program_steps} steps"
            )
        self._left -= 1
        self._steps += 1


def program_env(id: str, world: ProgramWorld, kwargs: Mapping[str, Any]) -> ProgramEnv:
    """The environment ``id``. Raises `UnknownName` for what is no argument of `ProgramEnv`."""
    check_names(id, partial(ProgramEnv, world), kwargs)
    return ProgramEnv(world, **kwargs)


def read_program(text: str) -> str:
    """The program in what an agent wrote: the fenced Markdown code, joined, or all of it where nothing is fenced."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```[ \t]*$", text, re.M | re.S)
    return "\n".join(blocks) if blocks else text


def skill_files(skills: Mapping[str, str]) -> dict[str, str]:
    """The files that make ``skills`` (name -> code) importable from the package ``skills``. Raises `InvalidValue` for
    a name that is no Python name."""
    for name, code in skills.items():
        checked(f"skills[{name!r}]", code, str)
        if not checked("the name of a skill", name, str).isidentifier() or name.startswith("_"):
            raise InvalidValue(f"skill name {name!r}: a skill is called by the name of its function.")
    if not skills:
        return {}
    files = {f"skills/{name}.py": f"from world import *\n\n{code}\n" for name, code in skills.items()}
    return {"skills/__init__.py": _SKILLS_PACKAGE, **files}


def _shown(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN else f"…{text[-_SHOWN:]}"
