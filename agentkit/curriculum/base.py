"""Who proposes the next task: the protocol, what it is told, and two curricula that ask no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from agentkit.dialogue import derive
from agentkit.errors import InvalidValue
from agentkit.llm.base import LLM
from agentkit.types import Episode, Judgement, Options, Task


@dataclass(frozen=True)
class Attempted:
    """An episode and its judgement."""

    episode: Episode
    judgement: Judgement


@dataclass(frozen=True)
class Progress:
    """What a curriculum is told: all that was attempted so far, in order, and a ``seed`` for what it draws."""

    attempted: tuple[Attempted, ...] = ()
    seed: int = 0

    def of(self, task: Task) -> list[bool]:
        """Whether each attempt at the task succeeded, in order."""
        return [a.judgement.success for a in self.attempted if a.episode.task.name == task.name]

    @property
    def done(self) -> list[str]:
        """The goals that were reached, each once, in the order of their first success."""
        return list(dict.fromkeys(a.episode.goal for a in self.attempted if a.judgement.success))

    @property
    def failed(self) -> list[str]:
        """The goals that were tried and never reached."""
        done = set(self.done)
        return list(dict.fromkeys(a.episode.goal for a in self.attempted if a.episode.goal not in done))

    @property
    def state(self) -> str:
        """The last observation of the last episode: where things stand."""
        steps = self.attempted[-1].episode.steps if self.attempted else ()
        return steps[-1].next_observation if steps else ""


class Curriculum(Protocol):
    """Proposes tasks."""

    def propose(self, progress: Progress, llm: LLM | None) -> Task | None:
        """The next task, or None when there is none left."""
        ...


@dataclass(frozen=True)
class Fixed:
    """The tasks in their order, ``attempts`` times each; a task that was solved is left at once."""

    tasks: tuple[Task, ...]
    attempts: int = 1

    def propose(self, progress: Progress, llm: LLM | None) -> Task | None:
        """The first task that is neither solved nor used up."""
        for task in self.tasks:
            tried = progress.of(task)
            if not any(tried) and len(tried) < self.attempts:
                return task
        return None


@dataclass(frozen=True)
class BySuccess:
    """Tasks that are neither too easy nor too hard: drawn in proportion to ``p * (1 - p)``, with p the task's success
    rate over its last ``window`` attempts (the learnability of Rutherford et al. 2024, "No Regrets", section 4).

    A task that has fewer than ``warm_up`` attempts counts as p = 1/2; every task keeps a share ``floor`` of the most
    learnable one's weight, so that nothing is forgotten for good.
    """

    tasks: tuple[Task, ...]
    window: int = 5
    warm_up: int = 1
    floor: float = 0.05

    def __post_init__(self) -> None:
        if not self.tasks or self.window < 1 or not 0 <= self.floor <= 1:
            raise InvalidValue("BySuccess needs tasks, a window of at least 1, and a floor in [0, 1].")

    def weights(self, progress: Progress) -> np.ndarray:
        """The probability of each task: (tasks,) float64."""
        rates = []
        for task in self.tasks:
            recent = progress.of(task)[-self.window :]
            rates.append(0.5 if len(recent) < self.warm_up else float(np.mean(recent)))
        p = np.array(rates)
        weights = np.maximum(p * (1 - p), self.floor * 0.25)
        total = weights.sum()
        result: np.ndarray = np.full(len(p), 1 / len(p)) if total == 0 else weights / total
        return result

    def propose(self, progress: Progress, llm: LLM | None) -> Task | None:
        """A task drawn with the progress's seed and length."""
        rng = np.random.default_rng(derive(progress.seed, len(progress.attempted)))
        return self.tasks[int(rng.choice(len(self.tasks), p=self.weights(progress)))]


@dataclass(frozen=True)
class Goals:
    """How a goal in words becomes a task: an environment that takes any goal, and the options of its reset."""

    env_id: str
    seed: int = 0
    options: dict[str, object] = field(default_factory=dict)

    def task(self, goal: str) -> Task:
        """The task of reaching ``goal``."""
        return Task(self.env_id, goal=goal, seed=self.seed, options=Options(self.options), name=goal)


def listed(goals: Sequence[str], most: int = 20) -> str:
    """The last ``most`` goals for a prompt."""
    return "; ".join(goals[-most:]) or "none"
