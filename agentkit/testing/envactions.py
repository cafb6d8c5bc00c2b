"""Whether the actions that an environment lists are accepted in the states that list them.

First every listed action is tried, state after state along an episode, each from a fresh replay of what led there,
until a budget of steps is spent. Then whole episodes are walked that take, in each state, the listed action that was
tried least. A refusal is known by its ``feedback``: the same, but for the action's own words, as for an action that no
world knows, in the same state.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentkit.testing.envtrace import admissible, short
from agentkit.testing.envwatch import Watched

NONSENSE = "qwxz vlorp 93"
_STEPS_OF_A_RESET = 2  # what a reset counts in the budget
_BUDGET = 8  # times the steps of an episode


@dataclass(frozen=True, slots=True)
class _State:
    """Where an episode is: what led there, and what the environment said last."""

    seed: int
    actions: tuple[str, ...]
    observation: str
    info: Mapping[str, Any]
    over: bool

    @property
    def feedback(self) -> str:
        return str(self.info.get("feedback", ""))

    def __str__(self) -> str:
        return f"reset(seed={self.seed})" + (f" and {short(list(self.actions))}" if self.actions else "")


@dataclass
class Actions:
    """Tries listed actions. ``steps`` is the length of an episode."""

    env: Watched
    steps: int
    options: Mapping[str, Any]
    tried: Counter[str] = field(default_factory=Counter)
    refusals: dict[tuple[int, tuple[str, ...]], str] = field(default_factory=dict)
    left: int = 0

    def check(self, seeds: Sequence[int]) -> None:
        """Note each listed action that is refused."""
        self.left = _BUDGET * self.steps
        for seed in seeds:
            self._try_all(seed)
        for seed in seeds:
            self._walk(seed)

    def _try_all(self, seed: int) -> None:
        """Every listed action, in the states along one episode."""
        chooser = random.Random(f"actions {seed}")
        state = self._replay(seed, ())
        seen: set[tuple[str, str]] = set()
        while len(state.actions) < self.steps and not state.over:
            ways_on = []
            for action in admissible(state.info):
                if (state.observation, action) in seen:
                    continue  # as far as can be seen, it was tried right here
                seen.add((state.observation, action))
                self.left -= _STEPS_OF_A_RESET + len(state.actions) + 1
                if self.left < 0:
                    return
                after = self._replay(seed, (*state.actions, action))
                if not self._refused(state, action, after.feedback) and not after.over:
                    ways_on.append(after)
            if not ways_on:
                return
            state = chooser.choice(ways_on)

    def _walk(self, seed: int) -> None:
        """One episode of the actions that were tried least."""
        state = self._replay(seed, ())
        answered: dict[str, tuple[_State, str, str]] = {}
        while len(state.actions) < self.steps and not state.over:
            listed = admissible(state.info)
            if not listed:
                return
            action = min(listed, key=self.tried.__getitem__)
            after = self._step(state, action)
            if after.feedback:
                answered.setdefault(_pattern(after.feedback, action), (state, action, after.feedback))
            state = after
        for before, action, feedback in list(answered.values())[:5]:  # an environment may answer every action
            self._refused(before, action, feedback)

    def _refused(self, state: _State, action: str, feedback: str) -> bool:
        if not feedback:
            return False
        key = state.seed, state.actions
        if key not in self.refusals:
            unknown = self._replay(state.seed, (*state.actions, NONSENSE))
            self.refusals[key] = _pattern(unknown.feedback, NONSENSE)
        if _pattern(feedback, action) != self.refusals[key]:
            return False
        self.env.findings.broken(
            "admissible",
            f"step({action!r}) after {state}",
            f"the admissible action {action!r} is refused: {short(feedback)}",
            "list only what step takes in that very state, in the words it takes",
        )
        return True

    def _replay(self, seed: int, actions: Sequence[str]) -> _State:
        observation, info = self.env.reset(seed=seed, options=dict(self.options))
        state = _State(seed, (), observation, info, False)
        for action in actions:
            if state.over:
                break
            state = self._step(state, action)
        return state

    def _step(self, state: _State, action: str) -> _State:
        self.tried[action] += 1
        observation, _, terminated, truncated, info = self.env.step(action, f"step({short(action, 60)}) after {state}")
        return _State(state.seed, (*state.actions, action), observation, info, terminated or truncated)


def _pattern(feedback: str, action: str) -> str:
    """What was answered, without the action's own words."""
    return feedback.casefold().replace(action.casefold(), "…")
