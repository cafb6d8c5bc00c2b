"""Small worlds for the tests of `check_env`: one that keeps the contract, and one for each way to break it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
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


class Rooms(Good):
    """Two rooms; of what the second lists, one action is refused, in words that name the room."""

    lists = {"hall": ["go north", "look"], "attic": ["go south", "look", "open chest"]}  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        self.room = "hall"
        return "You are in the hall.", self.info(goal="Open the chest.")

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        ways = {("hall", "go north"): "attic", ("attic", "go south"): "hall"}
        if action == "look" or (self.room, action) in ways:
            self.room = ways.get((self.room, action), self.room)
            return f"You are in the {self.room}.", 0.0, False, False, self.info(success=False)
        said = clean(f"In the {self.room} {action[:20]!r} does nothing.")
        return said, 0.0, False, False, self.info(feedback=said, success=False)

    def info(self, **more: Any) -> dict[str, Any]:
        return {**more, "admissible_actions": list(self.lists[self.room])}


class RoomsMended(Rooms):
    """The same, without the action that is refused."""

    lists = {"hall": ["go north", "look"], "attic": ["go south", "look"]}  # noqa: RUF012


class FarRoom(Rooms):
    """Refuses what it lists in the tenth room only."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        self.number = 0
        return "Room 0.", self.info(goal="Reach the last room.")

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action in ("left", "right", "jump", "wave"):
            self.number += action == "right"
            return f"Room {self.number}.", 0.0, False, False, self.info(success=False)
        said = clean(f"{action[:20]!r} does nothing.")
        return said, 0.0, False, False, self.info(feedback=said, success=False)

    def info(self, **more: Any) -> dict[str, Any]:
        return {**more, "admissible_actions": ["right", *(["fly"] if self.number == 10 else [])]}


class ListsNothing(Good):
    """An empty action is listed."""

    def info(self, **more: Any) -> dict[str, Any]:
        return {**more, "admissible_actions": ["", "1"]}


class NeedsArgument(Good):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class ConstructorRaises(Good):
    def __init__(self) -> None:
        super().__init__()
        Path("/no/such/file").read_text()


class NoEnvironment:
    """It has the methods, and is none."""

    reset, step = Good.reset, Good.step


class ResetWithoutSeed(Good):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class ResetWithoutOptions(Good):
    def reset(self, *, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class ResetNeedsMore(Good):
    def reset(self, task: str, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class ResetTakesAnything(Good):
    def reset(self, **anything: Any) -> Any:
        return super().reset(**anything)


class ResetReturnsText(Good):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0]


class ResetReturnsNothing(Good):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)


class ForgetsSuper(Good):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.number, self.tries = 3, 0
        return "I think of a number.", self.info(goal="Guess it.")


class FourValues(Good):
    def step(self, action: str) -> Any:
        text, reward, terminated, _, info = super().step(action)
        return text, reward, terminated, info


class StepNeedsMore(Good):
    def step(self, action: str, more: str) -> Any:  # type: ignore[override]
        return super().step(action)


class NoStep(gymnasium.Env[str, str]):
    def __init__(self) -> None:
        self.observation_space, self.action_space = text_space(), text_space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "You wait.", {"goal": "Wait."}


class NoSpaces(Good):
    def __init__(self) -> None:
        """Forgotten."""


class RewardIsNothing(Good):
    def step(self, action: str) -> Any:
        text, _, terminated, truncated, info = super().step(action)
        return text, None, terminated, truncated, info


class Exits(Good):
    def step(self, action: str) -> Any:
        sys.exit(3)


class CloseRaises(Good):
    def close(self) -> None:
        raise OSError("the connection is gone")


class CloseRaisesAgain(Good):
    def close(self) -> None:
        del self.action_space


class NumPyValues(Good):
    def step(self, action: str) -> Any:
        text, reward, terminated, truncated, info = super().step(action)
        return text, reward, np.bool_(terminated), truncated, info


def makes_a_class() -> Any:
    return Good
