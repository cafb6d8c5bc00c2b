"""Crafter (Hafner, 2021), an open world of survival and tools, told in words.

Needs the extra ``crafter``. See docs/worlds/crafter.md. The same world for programs: `agentkit.envs.programs_crafter`.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from agentkit.envs.programs_crafter import CrafterWorld
from agentkit.envs.spaces import MAX_ACTION, check_action, clean, quoted, text_space
from agentkit.envs.tasks import choose, read_options


class CrafterEnv(gymnasium.Env[str, str]):
    """Crafter with its seventeen actions by name: ``move left``, ``do``, ``place table``, ``make wood pickaxe``, …

    Args:
        achievement: what to unlock, ``collect_wood`` or another of the 22; None leaves it to the seed.

    A seed is a map. Success: the achievement is unlocked. The reward is Crafter's own: 1 for each achievement unlocked
    for the first time, 0.1 for each point of health. Option of ``reset``: ``achievement``.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, achievement: str | None = None) -> None:
        self._world = CrafterWorld()
        self.observation_space, self.action_space = text_space(), text_space(MAX_ACTION)
        if achievement is not None:
            choose("achievement", achievement, self._world.achievements)
        self._defaults = {"achievement": achievement}
        names: list[str] = self._world._env.action_names
        self._actions = {name.replace("_", " "): name for name in names}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, self._defaults)
        random = np.random.default_rng(int(self.np_random.integers(2**31)))
        goal = self._world.begin(random, {"achievement": chosen["achievement"]}, lambda: None)
        return clean(self._world.observe()), {"goal": goal, "admissible_actions": list(self._actions)}

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        name = " ".join(action.lower().split()).replace("_", " ") if len(action) <= MAX_ACTION else ""
        before = self._world._player.achievements.copy()
        reward = 0.0
        info: dict[str, Any] = {}
        text = ""
        if name not in self._actions:
            text = info["feedback"] = f"There is no action {quoted(action)}. Actions: {', '.join(self._actions)}."
        else:
            _, reward, _, _ = self._world._env.step(self._world._env.action_names.index(self._actions[name]))
            self._world._look()
        new = [k.replace("_", " ") for k, v in self._world._player.achievements.items() if v and not before[k]]
        died = ["You have died."] if self._world._player.health <= 0 else []
        text = "\n".join([*filter(None, [text]), *died, *(f"Achievement: {k}." for k in new), self._world.observe()])
        status = self._world.status()
        over_now = status.success or status.over
        info |= {"success": status.success, "score": status.score}
        info["admissible_actions"] = [] if over_now else list(self._actions)
        return clean(text), float(reward), over_now, False, info
