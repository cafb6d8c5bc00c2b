"""BabyAI (Chevalier-Boisvert et al., 2019) and MiniGrid levels, told in words.

Needs the extra ``minigrid``. See docs/worlds/minigrid.md.
"""

from __future__ import annotations

import copy
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.extras import require
from agentkit.envs.spaces import MAX_ACTION, check_action, clean, quoted, text_space
from agentkit.envs.tasks import choose, read_options

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")
_NUMBERS = {name: number for number, name in enumerate(ACTIONS)}
_HIDDEN = ("unseen", "empty", "wall", "floor", "agent")
_DOOR = {0: "open ", 1: "closed ", 2: "locked "}
_BOT_STEPS = 500


class MiniGridEnv(gymnasium.Env[str, str]):
    """A BabyAI or MiniGrid level.

    Args:
        level: a level's id, ``BabyAI-GoToObj-v0`` or ``MiniGrid-DoorKey-5x5-v0``.

    An observation tells what the agent sees in front of it, nearest first, and what it carries. The goal is the
    mission. Success: the level ended and paid. Options of ``reset``: ``level`` and ``gold``, which is what BabyAI's own
    bot does; it knows BabyAI levels only, and not all of them, and gives an empty list then.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, level: str = "BabyAI-GoToObj-v0") -> None:
        package = require("minigrid", "minigrid", "minigrid")
        gymnasium.register_envs(package)
        constants = require("minigrid.core.constants", "minigrid", "minigrid")
        self._colors = constants.IDX_TO_COLOR
        self._shown = {i: name for i, name in constants.IDX_TO_OBJECT.items() if name not in _HIDDEN}
        self._wall = constants.OBJECT_TO_IDX["wall"]
        # It prints a line for each layout that it rejects, and standard output is not ours to fill.
        require("minigrid.envs.babyai.core.roomgrid_level", "minigrid", "minigrid").print = _silent
        self.observation_space, self.action_space = text_space(), text_space(MAX_ACTION)
        self._defaults = {"level": level}
        self._level = ""
        self._grid: Any = None
        self._load(level)
        self._seen: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, self._defaults)
        grid = self._load(chosen["level"])
        # The levels use their generator from the first to the last step, so an unseeded episode needs a seed as well.
        self._seen, _ = grid.reset(seed=seed if seed is not None else int(self.np_random.integers(2**31)))
        info: dict[str, Any] = {"goal": str(self._seen["mission"]), "admissible_actions": list(ACTIONS)}
        if chosen["gold"]:
            info["gold"] = self._gold()
        return self._describe(), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        name = action
        if name not in _NUMBERS:
            name = " ".join(action.lower().split()) if len(action) <= MAX_ACTION else ""
        if name not in _NUMBERS:
            feedback = f"There is no action {quoted(action)}. Actions: {', '.join(ACTIONS)}."
            info = {"success": False, "feedback": feedback, "admissible_actions": list(ACTIONS)}
            return clean(f"{feedback}\n{self._describe()}"), 0.0, False, False, info
        assert self._grid is not None, "call reset first"
        self._seen, reward, terminated, truncated, _ = self._grid.step(_NUMBERS[name])
        info = {"success": bool(terminated) and float(reward) > 0, "admissible_actions": list(ACTIONS)}
        return self._describe(), float(reward), bool(terminated), bool(truncated), info

    def close(self) -> None:
        if self._grid is not None:
            self._grid.close()

    def _load(self, level: object) -> Any:
        if level != self._level or self._grid is None:
            levels = [name for name in gymnasium.registry if name.startswith(("BabyAI-", "MiniGrid-"))]
            self._level = choose("level", level, levels)
            self.close()
            self._grid = gymnasium.make(self._level, disable_env_checker=True).unwrapped
        return self._grid

    def _describe(self) -> str:
        image = self._seen["image"]  # (width, height, 3) uint8: type, color, state; the agent looks up from below
        width, height = image.shape[:2]
        things = []
        cells = image.tolist()
        for aside, cells_aside in enumerate(cells, -(width // 2)):
            for ahead, (kind, color, state) in zip(range(height - 1, -1, -1), cells_aside, strict=True):
                if kind in self._shown and (ahead or aside):  # at (0, 0) is what the agent carries
                    name = self._shown[kind]
                    door = _DOOR[state] if name == "door" else ""
                    where = [_count(ahead, "ahead")] if ahead else []
                    where += [_count(abs(aside), "to the left" if aside < 0 else "to the right")] if aside else []
                    article = "an" if door == "open " else "a"
                    things.append(
                        (ahead + abs(aside), f"{article} {door}{self._colors[color]} {name} {' and '.join(where)}")
                    )
        if cells[width // 2][height - 2][0] == self._wall:
            things.append((1, "a wall 1 step ahead"))
        text = "You see " + ("; ".join(what for _, what in sorted(things)) or "nothing near") + "."
        carried = getattr(self._grid, "carrying", None)
        return text + (f" You carry a {carried.color} {carried.type}." if carried else "")

    def _gold(self) -> list[str]:
        bots = require("minigrid.utils.baby_ai_bot", "minigrid", "minigrid")
        grid: Any = copy.deepcopy(self._grid)
        actions: list[str] = []
        last = None
        try:
            bot = bots.BabyAIBot(grid)
            while len(actions) < _BOT_STEPS:
                last = bot.replan(last)
                _, reward, terminated, truncated, _ = grid.step(last)
                actions.append(ACTIONS[int(last)])
                if terminated or truncated:
                    return actions if terminated and reward > 0 else []
        except Exception:  # the bot asserts on levels that it was not made for: it is asked here, and has no plan then
            return []
        return []


def _silent(*_: object, **__: object) -> None:
    pass


def _count(steps: int, direction: str) -> str:
    return f"{steps} step{'s' * (steps != 1)} {direction}"
