"""ALFWorld (Shridhar et al., 2021): household tasks in text.

Needs the extra ``alfworld``. See docs/worlds/alfworld.md: without downloaded games, the games are of our own making and
scores on them are not comparable with published ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from agentkit.envs.alfworld_games import SPLITS, TASKS
from agentkit.envs.tasks import as_path, choose, read_options
from agentkit.envs.worker import WorkerEnv
from agentkit.errors import InvalidValue, MissingExtra


class ALFWorldEnv(WorkerEnv):
    """Household tasks, in a process of their own.

    Args:
        split: ``train`` or ``unseen``: ALFRED's division of its scenes.
        tasks: the task types to play, all six by default.
        timeout_s: seconds that a call may take.

    A seed plays the task type number ``seed``, in a scene and with an arrangement that it draws. Options of ``reset``:
    ``task``, ``split``, ``scene``, ``variation``, ``gold``; and ``game``, the path of an official game
    (``game.tw-pddl``). Success: the goal holds. An action that cannot be done is answered as ALFWorld does, "Nothing
    happens.", and in ``feedback``.
    """

    def __init__(self, split: str = "train", tasks: Sequence[str] = TASKS, *, timeout_s: float = 300.0) -> None:
        if importlib.util.find_spec("alfworld") is None:
            raise MissingExtra.of("alfworld", "alfworld")
        choose("split", split, SPLITS)
        if not isinstance(tasks, list | tuple) or not tasks:
            raise InvalidValue(f"tasks={tasks!r}: a list of at least one of {', '.join(TASKS)} is needed")
        for task in tasks:
            choose("task", task, TASKS)
        made = {"split": split, "tasks": list(tasks)}
        super().__init__("agentkit.envs.alfworld_play:ALFWorldGame", made, timeout_s=timeout_s)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        empty = {"task": None, "split": None, "scene": None, "variation": None, "game": None}
        chosen = read_options(options, empty, scene=int, variation=int)
        if chosen["task"] is not None:
            choose("task", chosen["task"], TASKS)
        if chosen["split"] is not None:
            choose("split", chosen["split"], SPLITS)
        if chosen["game"] is not None:
            game = as_path("game", chosen["game"]).absolute()
            if not game.is_file():
                raise InvalidValue(f"there is no file {game}: give the path of a game.tw-pddl")
            chosen["game"] = str(game)
        return super().reset(seed=seed, options={k: v for k, v in chosen.items() if v is not None})
