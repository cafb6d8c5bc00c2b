"""ScienceWorld (Wang et al., 2022): 30 elementary-school science tasks with official train, dev and test variations.

Needs the extra ``scienceworld`` and Java. See docs/worlds/scienceworld.md.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.extras import cache_folder, require
from agentkit.envs.jvm import Jvm
from agentkit.envs.spaces import check_action, clean, one_line, text_space
from agentkit.envs.tasks import by_seed, checked, choose, read_options
from agentkit.errors import InvalidValue

# The same hash for all objects: the order of a set of them is that of insertion then, and not what their addresses in
# this episode make of it.
_SAME_HASH = ("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
SPLITS = ("train", "dev", "test")


class ScienceWorldEnv(gymnasium.Env[str, str]):
    """A ScienceWorld task.

    Args:
        task: one of the 30 names, ``boil``, ``find-living-thing``, ``power-component``, …
        split: ``train``, ``dev`` or ``test``: the official division of a task's variations.
        simplifications: the package's own, separated by commas; ``easy`` is all of them, the empty text none.
        admissible: whether infos list all valid actions. It makes a step some fifty times slower.

    A seed plays number ``seed`` of the split's variations. Options of ``reset``: ``task``, ``split``,
    ``simplifications``, ``admissible``, ``variation`` (a variation itself) and ``gold``. The goal ends with the forms
    that actions have. Success is the full score of 100; a mistake that ends the task scores 0.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self, task: str = "boil", split: str = "train", simplifications: str = "easy", admissible: bool = False
    ) -> None:
        self._package = require("scienceworld", "scienceworld", "scienceworld")
        self.observation_space, self.action_space = text_space(), text_space(300)
        self._defaults = {
            "task": task,
            "split": split,
            "simplifications": checked("simplifications", simplifications, str),
            "admissible": checked("admissible", admissible, bool),
            "variation": None,
        }
        self._jvm = self._start()
        self._world = self._jvm.world
        self._tasks = [str(name) for name in self._world.getTaskNames()]
        self._simplifications = ["easy", *self._world.getPossibleSimplifications().split(", ")]
        self._check(self._defaults)
        self._pools: dict[tuple[str, str], list[int]] = {}
        self._admissible = admissible
        self._score = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, self._defaults, variation=int)
        self._check(chosen)
        task, split = chosen["task"], chosen["split"]
        if (task, split) not in self._pools:
            self._world.load(task, 0, "", False)  # the lists of variations are those of the loaded task
            self._pools[task, split] = list(getattr(self._world, f"getVariations{split.capitalize()}")())
        variation = chosen["variation"]
        if variation is None:
            variation = by_seed(self._pools[task, split], seed, self.np_random)
        elif variation not in self._pools[task, split]:
            raise InvalidValue(f"variation={variation!r} is not one of {task}'s {split} variations")
        self._world.load(task, variation, chosen["simplifications"], False)
        self._world.reset()
        self._score, self._admissible = 0, chosen["admissible"]
        actions = ", ".join(sorted(set(map(str, self._world.getPossibleActions()))))
        info: dict[str, Any] = {"goal": f"{self._world.getTaskDescription()}\nActions: {actions}", **self._listed()}
        if chosen["gold"]:
            info["gold"] = self._gold(task, variation, chosen["simplifications"])
        return clean(str(self._world.freeActionLook())), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        # The package's own step lists all valid actions each time.
        text = clean(str(self._world.step(one_line(action, 300))))
        score = round(100 * self._world.getScore())
        over = bool(self._world.getCompleted()) or score < 0
        reward, self._score = (score - self._score) / 100, score
        info: dict[str, Any] = {"success": score == 100, "score": min(1.0, max(0.0, score / 100))}
        info |= {"admissible_actions": []} if over and self._admissible else self._listed()
        if text.startswith(("No known action", "Unknown action", "Ambiguous request")):
            info["feedback"] = text
        return text, reward, over, False, info

    def close(self) -> None:
        self._jvm.close()

    def _start(self) -> Jvm:
        return Jvm(self._package.constants.JAR_PATH, "scienceworld.runtime.pythonapi.PythonInterface", *_SAME_HASH)

    def _check(self, chosen: dict[str, Any]) -> None:
        choose("task", chosen["task"], self._tasks)
        choose("split", chosen["split"], SPLITS)
        for name in filter(None, chosen["simplifications"].split(",")):
            choose("simplification", name, self._simplifications)

    def _listed(self) -> dict[str, Any]:
        if not self._admissible:
            return {}
        return {"admissible_actions": sorted(set(map(str, self._world.getValidActionObjectCombinations())))}

    def _gold(self, task: str, variation: int, simplifications: str) -> list[str]:
        """The package's gold actions, made in a fresh JVM: what its generator gives depends on what it gave before."""
        name = f"{task}-{variation}-{simplifications.replace(',', '+') or 'none'}.json"
        path = cache_folder("scienceworld", self._package.__version__) / name
        if not path.exists():
            jvm = self._start()
            try:
                jvm.world.load(task, variation, simplifications, True)
                gold = [str(action) for action in jvm.world.getGoldActionSequence()]
            finally:
                jvm.close()
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump(gold, file)
            os.replace(file.name, path)
        result: list[str] = json.loads(path.read_text())
        return result
