"""Wrappers for any text environment. Each is a `gymnasium.Wrapper` and knows the contract, nothing else.

A step limit is `gymnasium.wrappers.TimeLimit`, which ``make(id, max_episode_steps=…)`` puts around an environment.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.spaces import check_action, clean, text_space
from agentkit.envs.tasks import checked

Answer = tuple[str, SupportsFloat, bool, bool, dict[str, Any]]
TextWrapper = gymnasium.Wrapper[str, str, str, str]


class TellStepsLeft(TextWrapper):
    """Ends an episode after ``limit`` steps, as `gymnasium.wrappers.TimeLimit` does, and says how many are left."""

    def __init__(self, env: gymnasium.Env[str, str], limit: int) -> None:
        super().__init__(env)
        self._limit, self._steps = checked("limit", limit, int, low=1), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self._steps = 0
        text, info = self.env.reset(seed=seed, options=options)
        return self._told(text), info

    def step(self, action: str) -> Answer:
        text, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        return self._told(text), reward, terminated, truncated or self._steps >= self._limit, info

    def _told(self, text: str) -> str:
        left = self._limit - self._steps
        return clean(f"{text}\n[{left} step{'s' * (left != 1)} left]")


class EndLoops(TextWrapper):
    """Ends an episode (truncated) when the same action met the same observation ``repeats`` times.

    The step that does says so in ``info["feedback"]``.
    """

    def __init__(self, env: gymnasium.Env[str, str], repeats: int = 3) -> None:
        super().__init__(env)
        self._repeats = checked("repeats", repeats, int, low=2)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._text = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self._seen.clear()
        self._text, info = self.env.reset(seed=seed, options=options)
        return self._text, info

    def step(self, action: str) -> Answer:
        check_action(action)
        self._seen[self._text, action] += 1
        looped = self._seen[self._text, action] >= self._repeats
        self._text, reward, terminated, truncated, info = self.env.step(action)
        if looped and not terminated:
            said = f"Loop: the same action in the same situation for the {self._repeats}th time."
            info = {**info, "feedback": "\n".join(filter(None, [info.get("feedback"), said]))}
            truncated = True
        return self._text, reward, terminated, truncated, info


class ClipObservation(TextWrapper):
    """Shortens observations to ``max_length`` characters, by their middle."""

    def __init__(self, env: gymnasium.Env[str, str], max_length: int) -> None:
        super().__init__(env)
        self._max_length = checked("max_length", max_length, int, low=1)
        self.observation_space = text_space(max_length)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = self.env.reset(seed=seed, options=options)
        return clean(text, self._max_length), info

    def step(self, action: str) -> Answer:
        text, reward, terminated, truncated, info = self.env.step(action)
        return clean(text, self._max_length), reward, terminated, truncated, info


class ShowHistory(TextWrapper):
    """Puts the last ``turns`` observations and actions before each observation, for agents that see one text only."""

    def __init__(self, env: gymnasium.Env[str, str], turns: int = 4) -> None:
        super().__init__(env)
        self._turns: deque[tuple[str, str]] = deque(maxlen=checked("turns", turns, int, low=1))
        self._text = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self._turns.clear()
        self._text, info = self.env.reset(seed=seed, options=options)
        return self._text, info

    def step(self, action: str) -> Answer:
        check_action(action)
        self._turns.append((self._text, clean(action, 500)))
        self._text, reward, terminated, truncated, info = self.env.step(action)
        shown = "".join(f"{text}\n> {action}\n" for text, action in self._turns) + self._text
        return clean(shown), reward, terminated, truncated, info


class ScaleReward(TextWrapper):
    """Multiplies rewards by ``scale``."""

    def __init__(self, env: gymnasium.Env[str, str], scale: float) -> None:
        super().__init__(env)
        self._scale = checked("scale", scale, float)

    def step(self, action: str) -> Answer:
        text, reward, terminated, truncated, info = self.env.step(action)
        return text, float(reward) * self._scale, terminated, truncated, info


class RewardFromScore(TextWrapper):
    """Pays what a step adds to ``info["score"]``: the same scale, 0 to 1 an episode, in every world that has a score.

    Where a world has none, success pays 1.
    """

    def __init__(self, env: gymnasium.Env[str, str]) -> None:
        super().__init__(env)
        self._score = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = self.env.reset(seed=seed, options=options)
        self._score = float(info.get("score", 0.0))
        return text, info

    def step(self, action: str) -> Answer:
        text, _, terminated, truncated, info = self.env.step(action)
        before, self._score = self._score, float(info.get("score", info["success"]))
        return text, self._score - before, terminated, truncated, info
