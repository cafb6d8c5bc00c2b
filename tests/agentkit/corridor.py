"""Small worlds for tests of the core: one that can be solved, and one for each way to break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from agentkit.envs import text_space
from agentkit.types import Request

Reply = tuple[Any, Any, Any, Any, Any]


class Corridor(gymnasium.Env[str, str]):
    """Four doors in a row; in each room one of three colours, drawn from the seed, leads on. A wrong one leads back."""

    observation_space = text_space()
    action_space = text_space(4096)
    rooms = 3
    colours = ("red", "green", "blue")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.right = [str(c) for c in self.np_random.choice(self.colours, self.rooms)]
        self.room = 0
        return self._look(), {"goal": "Reach the garden.", "admissible_actions": list(self.colours)}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.room = self.room + 1 if action == self.right[self.room] else 0
        done = self.room == self.rooms
        info = {"success": done, "admissible_actions": list(self.colours), "score": self.room / self.rooms}
        return self._look(), float(done), done, False, info

    def _look(self) -> str:
        return f"You are in room {self.room} of {self.rooms}." if self.room < self.rooms else "You are in the garden."


if "tests/Corridor-v0" not in gymnasium.registry:
    gymnasium.register("tests/Corridor-v0", "tests.agentkit.corridor:Corridor", disable_env_checker=True)


def prefers(request: Request) -> list[float]:
    """Log-probabilities that depend on the whole prompt, as a model's do, and on nothing else."""
    import zlib

    prompt = request.messages[-1].content
    return [-(zlib.crc32(f"{prompt}|{choice}".encode()) % 97) / 24 for choice in request.choices or ()]


class Breaks(Corridor):
    """A corridor of which one thing is put wrong: ``began`` or ``answered`` makes another answer of the right one."""

    def __init__(
        self,
        began: Callable[[str, dict[str, Any]], Any] = lambda text, info: (text, info),
        answered: Callable[[Reply], Any] = lambda reply: reply,
    ) -> None:
        self._began, self._answered = began, answered

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = super().reset(seed=seed)
        return self._began(text, info)  # type: ignore[no-any-return]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return self._answered(super().step(action))  # type: ignore[no-any-return]
