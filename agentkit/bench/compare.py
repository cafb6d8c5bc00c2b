"""Arms compared: the same tasks, the same seeds, lifetime by lifetime.

A lifetime is an agent that begins with an empty memory and plays all tasks for all trials. Lifetime i of every arm has
the same seeds, so that arms differ by what they are and not by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentkit.agent import Agent
from agentkit.bench.statistics import Interval, paired_difference
from agentkit.errors import InvalidValue, UnknownName
from agentkit.llm.meter import Ledger
from agentkit.runlog import RunLog
from agentkit.runner import Run, run
from agentkit.types import Episode, Task, Usage

Arm = Callable[[int], Agent]
"""Makes the agent of a lifetime, given the lifetime's number. Its memory should be empty, or its own from before."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The runs of each arm, in lifetime order."""

    runs: Mapping[str, tuple[Run, ...]]
    tasks: tuple[Task, ...]

    def success(self, arm: str) -> np.ndarray:
        """Whether each attempt succeeded: (lifetimes, tasks, trials) float64 of 0 and 1. What broke counts as 0."""
        if arm not in self.runs:
            raise UnknownName.among("arm", arm, self.runs)
        place = {task.name: i for i, task in enumerate(self.tasks)}
        trials = max(run.trials for run in self.runs[arm])
        solved = np.zeros((len(self.runs[arm]), len(self.tasks), trials))
        for lifetime, played in enumerate(self.runs[arm]):
            for episode in played.episodes:
                solved[lifetime, place[episode.task.name], episode.trial] = episode.success
        return solved

    def by_trial(self, arm: str) -> list[float]:
        """The share of tasks solved in each trial, over all lifetimes."""
        return [float(rate) for rate in self.success(arm).mean(axis=(0, 1))]

    def difference(self, arm: str, control: str, *, seed: int = 0) -> Interval:
        """By how much ``arm`` solves more than ``control`` in the trials after the first, with its interval."""
        a, b = self.success(arm), self.success(control)
        if a.shape[2] < 2:
            raise InvalidValue("There is one trial only: nothing could be learned before it. Give at least two.")
        return paired_difference(a[:, :, 1:].mean(axis=2), b[:, :, 1:].mean(axis=2), seed=seed)

    @property
    def usage(self) -> Usage:
        """What all the runs cost."""
        return sum((played.usage for runs in self.runs.values() for played in runs), Usage())

    def __repr__(self) -> str:
        lifetimes = max((len(runs) for runs in self.runs.values()), default=0)
        return f"<Comparison of {', '.join(self.runs)}: {len(self.tasks)} tasks, {lifetimes} lifetimes>"

    @property
    def notes(self) -> list[str]:
        """What a reader must know: the notes of the runs, each with its run's name."""
        return [f"{played.name}: {note}" for runs in self.runs.values() for played in runs for note in played.notes]


def compare(
    arms: Mapping[str, Arm],
    tasks: Sequence[Task],
    *,
    lifetimes: int = 1,
    trials: int = 5,
    seed: int = 0,
    workers: int = 1,
    max_steps: int = 50,
    log: RunLog | str | Path | None = None,
    budget: Ledger | None = None,
    progress: Callable[[str, int, Episode], None] | None = None,
) -> Comparison:
    """Run every arm for ``lifetimes`` lifetimes on the same tasks and seeds.

    ``progress`` is called with the arm's name, the lifetime and the finished episode. With ``log`` in a file, and the
    memories that the arms make in files too, a comparison that was killed goes on where it was.
    """
    if not arms or lifetimes < 1:
        raise InvalidValue("A comparison needs at least one arm and one lifetime.")
    for name, make in arms.items():
        if not callable(make):
            raise InvalidValue(f"the arm {name!r} is {make!r}; it must be what makes an agent: lambda lifetime: agent.")
    runs: dict[str, list[Run]] = {name: [] for name in arms}
    with ExitStack() as stack:
        opened = log if isinstance(log, RunLog) else stack.enter_context(RunLog(log if log is not None else ":memory:"))
        for lifetime in range(lifetimes):
            lifetime_seed = int(np.random.SeedSequence(seed, spawn_key=(lifetime,)).generate_state(1, np.uint32)[0])
            for name, make in arms.items():

                def report(episode: Episode, name: str = name, lifetime: int = lifetime) -> None:
                    if progress is not None:
                        progress(name, lifetime, episode)

                runs[name].append(
                    run(
                        make(lifetime),
                        tasks,
                        trials=trials,
                        workers=workers,
                        seed=lifetime_seed,
                        max_steps=max_steps,
                        log=opened,
                        name=f"{name}/{lifetime}",
                        budget=budget,
                        progress=report,
                    )
                )
    return Comparison({name: tuple(played) for name, played in runs.items()}, tuple(tasks))
