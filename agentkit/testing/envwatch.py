"""An environment played while watched: each step of it is held against the contract of `agentkit.envs`."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from agentkit.errors import ContractError
from agentkit.testing.envtrace import short

Env = gymnasium.Env[Any, Any]
SCORE_RANGE = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: where it showed, what was seen, and what to do."""

    rule: str
    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.where}: {self.problem}\n    How to mend it: {self.remedy}"


class Broken(Exception):
    """What was found makes further checks pointless."""


@dataclass
class Findings:
    """What was found, without repetitions."""

    violations: dict[tuple[str, str], Violation] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)

    def broken(self, rule: str, where: str, problem: str, remedy: str) -> None:
        """Note a violation: of each rule, the first in each method (of hostile actions, in each action)."""
        method = where.partition("(")[0].partition(" with ")[0]
        place = where if rule == "hostile" else method
        self.violations.setdefault((rule, place), Violation(rule, where + self.homes.get(method, ""), problem, remedy))

    def look_at(self, env: Env) -> None:
        """Learn where the environment's methods are written."""
        inner = type(env.unwrapped)
        own = [n for n in ("reset", "step", "close") if getattr(inner, n) is not getattr(gymnasium.Env, n)]
        self.homes = {name: home(getattr(inner, name)) for name in own}


@dataclass(frozen=True, slots=True)
class Watched:
    """Plays an environment and notes what breaks the contract on the way."""

    findings: Findings
    env: Env

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        where = f"reset(seed={seed})"
        try:
            answer: Any = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            given = f"seed={seed}, options={options}"
            self.findings.broken("reset", where, said(error), f"reset must not raise; it was called with {given}")
            raise Broken from error
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
            remedy = 'return observation, {"goal": "what is to be done"}: a tuple of a text and a dict'
            self.findings.broken("reset", where, f"returned {short(answer)}", remedy)
            raise Broken
        observation, info = answer
        self._text("reset", where, observation)
        goal = info.get("goal")
        if not (isinstance(goal, str) and goal.strip()):
            self.findings.broken(
                "goal",
                where,
                f"info['goal'] is {goal!r}",
                "give it at reset: info = {'goal': 'what is to be done, in words'}",
            )
        if "gold" in info and not options.get("gold"):
            self.findings.broken(
                "goal", where, "info['gold'] was not asked for", "give gold for options={'gold': True}"
            )
        self._extras(where, info, False)
        return observation, info

    def step(
        self, action: str, where: str = "step", rule: str = "step"
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        try:
            answer: Any = self.env.step(action)
        except (Exception, SystemExit) as error:
            remedy = "answer in the observation and in info['feedback']; an agent may write anything"
            if isinstance(error, ContractError):
                remedy = "mend the part that it names"
            self.findings.broken(rule, where, f"{short(action)}: {said(error)}", remedy)
            raise Broken from error
        if not (isinstance(answer, tuple) and len(answer) == 5):
            remedy = "return observation, reward, terminated, truncated, info: a tuple of five, without a `done`"
            self.findings.broken(rule, where, f"returned {short(answer)}", remedy)
            raise Broken
        observation, reward, terminated, truncated, info = answer
        self._text(rule, where, observation)
        if isinstance(reward, bool) or not isinstance(reward, (int, float)) or not math.isfinite(reward):
            self.findings.broken("step", where, f"the reward is {reward!r}", "a finite number: float(reward)")
            reward = 0.0
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(value, bool):
                self.findings.broken("step", where, f"{name} is {value!r}", f"True or False: bool({name})")
        if not isinstance(info, dict):
            self.findings.broken("step", where, f"info is {short(info)}", "a dict")
            raise Broken
        self._success(where, info, bool(terminated), bool(truncated))
        self._extras(where, info, bool(terminated))
        return observation, float(reward), bool(terminated), bool(truncated), info

    def _text(self, rule: str, where: str, observation: object) -> None:
        if not isinstance(observation, str):
            self.findings.broken(rule, where, f"the observation is {short(observation)}", "return a text (str)")
            raise Broken
        space = self.env.observation_space
        if observation not in space:
            assert isinstance(space, Text)
            strange = sorted(set(observation) - space.character_set)[:8]
            problem = f"the observation of {len(observation)} characters is not in observation_space"
            problem += f": it has {', '.join(map(ascii, strange))}" if strange else f" (at most {space.max_length})"
            remedy = "return agentkit.envs.clean(text), which makes any text a member of text_space()"
            if strange:
                remedy += "; or, to keep them, give gymnasium.spaces.Text a charset that holds them"
            self.findings.broken(rule, where, problem, remedy)

    def _success(self, where: str, info: Mapping[str, Any], terminated: bool, truncated: bool) -> None:
        success = info.get("success")
        if not isinstance(success, bool):
            moment = "at the end" if terminated or truncated else "in a step's info"
            self.findings.broken(
                "success",
                where,
                f"info['success'] is {success!r} {moment}",
                "say in every step's info whether the goal is reached, as True or False: a step limit outside may end "
                "the episode after any step, and neither terminated nor the reward says it",
            )

    def _extras(self, where: str, info: Mapping[str, Any], over: bool) -> None:
        if "score" in info:
            score, (low, high) = info["score"], SCORE_RANGE
            if isinstance(score, bool) or not isinstance(score, (int, float)) or not low <= score <= high:
                self.findings.broken("score", where, f"info['score'] is {score!r}", "the part that is done, in [0, 1]")
        if "feedback" in info and not isinstance(info["feedback"], str):
            self.findings.broken("feedback", where, f"info['feedback'] is {short(info['feedback'])}", "text")
        if "admissible_actions" in info:
            listed, space = info["admissible_actions"], self.env.action_space
            remedy = (
                "a list of texts, each once and in action_space, sorted(…) where it comes from a set; leave the key "
            )
            remedy += "out where they are not known"
            if not isinstance(listed, list) or not all(isinstance(a, str) for a in listed):
                self.findings.broken("admissible", where, f"info['admissible_actions'] is {short(listed)}", remedy)
            elif not all(a.strip() for a in listed):
                self.findings.broken("admissible", where, "an empty action is listed", remedy)
            elif len(set(listed)) < len(listed):
                self.findings.broken("admissible", where, "an action is listed twice", remedy)
            elif strange := [a for a in listed if a not in space]:
                self.findings.broken("admissible", where, f"{short(strange[0])} is not in action_space", remedy)
            elif not listed and not over:
                self.findings.broken("admissible", where, "none is listed before the end", remedy)


def said(error: BaseException) -> str:
    """The error in a line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    at = f" (in {Path(place[0].filename).name}, line {place[0].lineno})" if place else ""
    text = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())
    return f"{type(error).__name__}: {text if len(text) <= 600 else text[:600] + '…'}{at}"


def home(function: object) -> str:
    """Where a function, or a class's constructor, is written, where that is a file."""
    code = getattr(function, "__code__", None) or getattr(getattr(function, "__init__", None), "__code__", None)
    if code is None or not Path(code.co_filename).is_file():
        return ""
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})"
