"""TextCraft and BabyAI with primitives for programs, on the worlds of the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from agentkit.envs.minigrid import MiniGridEnv
from agentkit.envs.programs import Over, ProgramEnv, Status, program_env
from agentkit.envs.textcraft import TextCraftEnv


class _TextWorld:
    """What the two share: an environment of text, played by functions."""

    def __init__(self, env: TextCraftEnv | MiniGridEnv) -> None:
        self._env = env
        self._take_step: Callable[[], None] = lambda: None
        self._observation = ""
        self._first = ""
        self._gold: list[str] = []
        self._success = self._over = False

    def begin(self, random: np.random.Generator, options: Mapping[str, Any], take_step: Callable[[], None]) -> str:
        own = {k: v for k, v in options.items() if k not in ("skills", "gold")}
        seed = int(random.integers(2**31 - 1))
        self._observation, info = self._env.reset(seed=seed, options={**own, "gold": options.get("gold", False)})
        self._first, self._gold = self._observation, info.get("gold", [])
        self._take_step = take_step
        self._success = self._over = False
        return str(info["goal"])

    def status(self) -> Status:
        return Status(self._success, float(self._success), self._over)

    def close(self) -> None:
        self._env.close()

    def _act(self, action: str) -> str:
        if self._over:
            raise Over("the episode is over")
        self._take_step()
        self._observation, _, terminated, truncated, info = self._env.step(action)
        self._success = bool(info["success"])
        self._over = terminated or truncated
        if "feedback" in info:
            raise ValueError(info["feedback"])
        return self._observation


class TextCraftWorld(_TextWorld):
    """Craft an item. Options are those of `TextCraftEnv`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(TextCraftEnv(**kwargs))

    @property
    def primitives(self) -> Mapping[str, Callable[..., object]]:
        return {"recipes": self.recipes, "get": self.get, "craft": self.craft, "inventory": self.inventory}

    def describe(self) -> str:
        return self._first.partition("\n\nActions:")[0]

    def gold(self) -> str:
        lines = []
        for action in self._gold:
            verb, _, rest = action.partition(" ")
            made, _, using = rest.partition(" using ")
            count, _, item = made.partition(" ")
            if verb == "get":
                lines.append(f"get({item!r}, {count})")
            else:
                parts = {name: int(n) for n, _, name in (p.partition(" ") for p in using.split(", "))}
                lines.append(f"craft({item!r}, {count}, {parts!r})")
        return "\n".join(lines)

    def recipes(self) -> list[tuple[str, int, dict[str, int]]]:
        """The crafting commands you were shown: item, how many it makes, and the ingredients it takes."""
        found = []
        for line in self._first.splitlines():
            head, separator, using = line.partition(" using ")
            words = head.split(" ", 2)
            if separator and words[0] == "craft" and len(words) == 3:
                parts = (p.partition(" ") for p in using.split(", "))
                found.append((words[2], int(words[1]), {name: int(n) for n, _, name in parts}))
        return found

    def get(self, item: str, count: int = 1) -> str:
        """Get so many of an item that cannot be crafted. Raises ValueError for what can, or is not there."""
        return self._act(f"get {int(count)} {item}")

    def craft(self, item: str, count: int, using: dict[str, int]) -> str:
        """Craft an item from ingredients you have: as many as one recipe makes, of as many as it takes. Raises
        ValueError when you lack some, or there is no such recipe."""
        parts = ", ".join(f"{int(n)} {name}" for name, n in using.items())
        return self._act(f"craft {int(count)} {item} using {parts}")

    def inventory(self) -> dict[str, int]:
        """What you carry."""
        return {k.removeprefix("minecraft:").replace("_", " "): n for k, n in self._env._world.inventory.items()}  # type: ignore[union-attr]


class BabyAIWorld(_TextWorld):
    """A BabyAI or MiniGrid level. Options are those of `MiniGridEnv`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(MiniGridEnv(**kwargs))

    @property
    def primitives(self) -> Mapping[str, Callable[..., object]]:
        functions = (
            self.look,
            self.turn_left,
            self.turn_right,
            self.go_forward,
            self.pick_up,
            self.drop,
            self.toggle,
        )
        return {f.__name__: f for f in functions}

    def describe(self) -> str:
        return self._observation

    def gold(self) -> str:
        return "\n".join(f"{action.replace(' ', '_')}()" for action in self._gold)

    def look(self) -> str:
        """What you see before you and what you carry. It takes no step."""
        return self._observation

    def turn_left(self) -> str:
        """Turn left; what you see then."""
        return self._act("turn left")

    def turn_right(self) -> str:
        """Turn right; what you see then."""
        return self._act("turn right")

    def go_forward(self, steps: int = 1) -> str:
        """Go so many steps forward, as far as the way is free; what you see then."""
        for _ in range(max(1, min(int(steps), 100))):
            self._act("go forward")
        return self._observation

    def pick_up(self) -> str:
        """Pick up what is right before you; what you see then."""
        return self._act("pick up")

    def drop(self) -> str:
        """Put down before you what you carry; what you see then."""
        return self._act("drop")

    def toggle(self) -> str:
        """Open or close the door, or open the box, right before you; what you see then."""
        return self._act("toggle")


def textcraft_program(*, min_depth: int = 2, max_depth: int = 99, **kwargs: Any) -> ProgramEnv:
    """TextCraft for programs (extra ``textcraft``). ``kwargs`` are those of `ProgramEnv`."""
    return program_env("agentkit/TextCraftProgram-v0", TextCraftWorld(min_depth=min_depth, max_depth=max_depth), kwargs)


def babyai_program(*, level: str = "BabyAI-GoToObj-v0", **kwargs: Any) -> ProgramEnv:
    """BabyAI for programs (extra ``minigrid``). ``kwargs`` are those of `ProgramEnv`."""
    return program_env("agentkit/BabyAIProgram-v0", BabyAIWorld(level=level), kwargs)
