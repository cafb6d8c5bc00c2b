"""Small worlds for the tests of `check_env`: one that keeps the contract, and one for each way to break it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from agentkit.envs import clean, text_space


class Good(gymnasium.Env[str, str]):
    """Guess a number between 1 and 9 in five tries."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = text_space(), text_space(100)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.number, self.tries = int(self.np_random.integers(1, 10)), 0
        return "I think of a number.", self.info(goal="Guess the number between 1 and 9.")

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.tries += 1
        if not (action.isascii() and action.isdigit() and len(action) == 1):
            text = clean(f"{action[:20]!r} is no number from 1 to 9.")
            return text, 0.0, self.tries == 5, False, self.info(feedback=text, success=False)
        found = int(action) == self.number
        text = "Yes!" if found else "More." if int(action) < self.number else "Less."
        return text, float(found), found or self.tries == 5, False, self.info(success=found)

    def info(self, **more: Any) -> dict[str, Any]:
        return {"admissible_actions": list("123456789"), **more}


class WrongSpace(Good):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Discrete(3)  # type: ignore[assignment]


class DefaultCharset(Good):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Text(1000)


class OutOfSpace(Good):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        text, reward, terminated, truncated, info = super().step(action)
        return text + "打", reward, terminated, truncated, info


class NoGoal(Good):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = super().reset(seed=seed, options=options)
        return text, {"admissible_actions": info["admissible_actions"]}


class NoSuccess(Good):
    def info(self, **more: Any) -> dict[str, Any]:
        more.pop("success", None)
        return super().info(**more)


class SuccessOfAnotherType(Good):
    def info(self, **more: Any) -> dict[str, Any]:
        return super().info(**{**more, "success": 1})


class RawScore(Good):
    def info(self, **more: Any) -> dict[str, Any]:
        return super().info(**more, score=70.0)


class RefusesWhatItLists(Good):
    def info(self, **more: Any) -> dict[str, Any]:
        return {**more, "admissible_actions": ["one", "two"]}


class Raises(Good):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        int(action)
        return super().step(action)


class WritesFiles(Good):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "save":
            Path("game.save").write_text("saved")
        return super().step(action)


class WritesFilesAlways(Good):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        with open("journal.txt", "a") as file:
            file.write(action)
        return super().step(action)


class GlobalRandom(Good):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = super().reset(seed=seed, options=options)
        random.seed(seed)
        self.number = random.randint(1, 9)
        return text, info


class HashSeed(Good):
    """The words come from a set of strings, in an order that depends on PYTHONHASHSEED."""

    def info(self, **more: Any) -> dict[str, Any]:
        words = list({"1", "2", "3", "4", "5", "6", "7", "8", "9"})
        return {**super().info(**more), "admissible_actions": words}


class SharedState(Good):
    numbers: list[int] = []  # noqa: RUF012  the mistake under test

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = super().reset(seed=seed, options=options)
        self.numbers[:] = [self.number]
        return text, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.number = self.numbers[0]
        return super().step(action)


class Remembers(Good):
    """The second episode of a seed is another than the first."""

    episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        _, info = super().reset(seed=seed, options=options)
        self.episodes += 1
        return f"I think of number {self.episodes}.", info


class LeavesAProcess(Good):
    child: subprocess.Popen[bytes] | None = None

    def __init__(self) -> None:
        super().__init__()
        if LeavesAProcess.child is None:
            # It ends with this process: its standard input is a pipe from here.
            code = "import sys; sys.stdin.read()"
            LeavesAProcess.child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


class ProcessOfItsOwn(Good):
    """The number depends on the process."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = super().reset(seed=seed, options=options)
        return f"{text} ({os.getpid()})", info
