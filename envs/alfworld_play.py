"""Playing ALFWorld games: what runs in the process of an `agentkit.envs.alfworld.ALFWorldEnv`."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.alfworld_games import TASKS, HouseGame, alfworld, make_game, scenes
from agentkit.envs.extras import require
from agentkit.envs.spaces import check_action, clean, one_line, quoted, text_space
from agentkit.errors import InvalidValue

_WELCOME = "-= Welcome to TextWorld, ALFRED! =-"


class ALFWorldGame(gymnasium.Env[str, str]):
    """ALFWorld games, one after the other. It is not safe in threads: the planner is a library with state."""

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, split: str = "train", tasks: Sequence[str] = TASKS) -> None:
        alfworld()
        self._pddl = require("textworld.envs", "alfworld", "alfworld").PddlEnv
        self._infos = require("textworld", "alfworld", "alfworld").EnvInfos
        self.observation_space, self.action_space = text_space(), text_space(300)
        self._split, self._tasks = split, tuple(tasks)
        self._world: Any = None
        self._state: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = dict(options or {})
        if chosen.get("game"):
            data, goal = json.loads(Path(chosen["game"]).read_text()), ""
            gold: tuple[tuple[str, ...], ...] = ()
        else:
            made = self._make(seed, chosen)
            data, goal, gold = made.data, made.goal, made.gold
        world = self._pddl(self._infos(feedback=True, admissible_commands=True, won=True))
        world.load(data)
        ids = number_names(world._entity_infos)
        for key, entity in world._entity_infos.items():
            entity.name = ids[key]
        self._world, self._state = world, world.reset()
        text = str(self._state.feedback).replace(_WELCOME, "").strip()
        if not goal:
            goal = text.rpartition("Your task is to:")[2].strip().rstrip(".")
        info: dict[str, Any] = {"goal": f"{goal[:1].upper()}{goal[1:]}.", "admissible_actions": self._admissible()}
        if chosen.get("gold"):
            info["gold"] = [step[0].format(*(ids[thing.lower()] for thing in step[1:])) for step in gold]
        return clean(text), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        assert self._world is not None, "call reset first"
        command = one_line(action, 300)
        won = bool(self._state.won)
        if won or command not in self._state["_valid_commands"]:
            feedback = "Nothing happens."
            info = {"success": won, "score": float(won), "admissible_actions": [] if won else self._admissible()}
            return feedback, 0.0, won, False, {**info, "feedback": f"{feedback} {quoted(action)} cannot be done now."}
        self._state, _, _ = self._world.step(command)
        won = bool(self._state.won)
        info = {"success": won, "score": float(won), "admissible_actions": [] if won else self._admissible()}
        return clean(str(self._state.feedback).strip()), float(won), won, False, info

    def _admissible(self) -> list[str]:
        return sorted(set(self._state["_valid_commands"]))

    def _make(self, seed: int | None, chosen: dict[str, Any]) -> HouseGame:
        number = seed if seed is not None else int(self.np_random.integers(2**31))
        rng = random.Random(f"alfworld {number}")
        task = chosen.get("task") or self._tasks[number % len(self._tasks)]
        variation = chosen["variation"] if chosen.get("variation") is not None else rng.randrange(10**6)
        wanted = chosen.get("scene")
        if wanted is not None and wanted not in {*scenes("train"), *scenes("unseen")}:
            raise InvalidValue(
                f"scene={wanted!r}: ALFRED's scenes are the kitchens 1 to 30, the living rooms 201 to 230, "
                "the bedrooms 301 to 330 and the bathrooms 401 to 430"
            )
        rooms: Iterable[int] = [wanted] if wanted is not None else _shuffled(scenes(self._split_of(chosen)), rng)
        for scene in rooms:
            if (game := make_game(task, scene, variation)) is not None:
                return game
        raise InvalidValue(f"scene={wanted} has nothing for the task {task!r}: choose another scene, or another task")

    def _split_of(self, chosen: dict[str, Any]) -> str:
        return str(chosen.get("split") or self._split)


def number_names(entities: dict[str, Any]) -> dict[str, str]:
    """The names that ALFWorld gives to ids: ``apple_bar_…`` becomes ``apple 2``, numbered downwards by sorted id."""
    kinds = {}
    for key, entity in entities.items():
        kind, bar, _ = entity.id.partition("_bar_")
        kinds[key] = (kind + ("basin" if "basin" in entity.id else ""), bool(bar))
    left = Counter(kind for kind, numbered in kinds.values() if numbered)
    names = {}
    for key in sorted(entities, key=lambda k: entities[k].id):
        kind, numbered = kinds[key]
        if numbered:
            names[key] = f"{kind} {left[kind]}"
            left[kind] -= 1
        else:
            names[key] = entities[key].id
    return names


def _shuffled(items: list[int], rng: random.Random) -> list[int]:
    return rng.sample(items, len(items))
