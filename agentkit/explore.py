"""An agent and a curriculum: tasks proposed one after the other, each from what came of those before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentkit.agent import Agent
from agentkit.curriculum.base import Attempted, Curriculum, Progress
from agentkit.dialogue import derive
from agentkit.errors import InvalidValue
from agentkit.llm.meter import Ledger
from agentkit.runlog import RunLog
from agentkit.runner import Run, run
from agentkit.types import Episode, Judgement


@dataclass(frozen=True)
class Exploration:
    """What came of it: each attempt with its judgement, in order, and the runs that hold them."""

    attempted: tuple[Attempted, ...]
    runs: tuple[Run, ...]

    @property
    def done(self) -> list[str]:
        """The goals that were reached."""
        return Progress(self.attempted).done


def explore(
    agent: Agent,
    curriculum: Curriculum,
    *,
    tasks: int = 20,
    attempts: int = 1,
    seed: int = 0,
    max_steps: int = 50,
    log: RunLog | str | Path | None = None,
    budget: Ledger | None = None,
    progress: Callable[[Episode, Judgement], None] | None = None,
) -> Exploration:
    """Let the curriculum propose up to ``tasks`` tasks, and the agent attempt each up to ``attempts`` times in turn.

    A task is left as soon as the agent's critic calls it solved. The agent learns after each attempt, so that the next
    task finds what the last one taught; each task is a run of its own in the log, named ``<agent>/<number>``.
    """
    if tasks < 1 or attempts < 1:
        raise InvalidValue(f"tasks is {tasks} and attempts {attempts}; both must be at least 1.")
    opened = log if isinstance(log, RunLog) else RunLog(log if log is not None else ":memory:")
    attempted: list[Attempted] = []
    runs: list[Run] = []
    try:
        for number in range(tasks):
            proposed = curriculum.propose(Progress(tuple(attempted), seed), agent.llm)
            if proposed is None:
                break
            for attempt in range(attempts):
                name = f"{agent.name}/{number}" if attempts == 1 else f"{agent.name}/{number}/{attempt}"
                played = run(
                    agent,
                    proposed,
                    seed=derive(seed, number, attempt),
                    max_steps=max_steps,
                    log=opened,
                    name=name,
                    budget=budget,
                )
                runs.append(played)
                (episode,) = played.episodes
                judgement = _judgement(opened, episode)
                attempted.append(Attempted(episode, judgement))
                if progress is not None:
                    progress(episode, judgement)
                if judgement.success:
                    break
    finally:
        if opened is not log:
            opened.close()
    return Exploration(tuple(attempted), tuple(runs))


def _judgement(log: RunLog, episode: Episode) -> Judgement:
    """What the agent's critic said, from the log; where the round was not learned, the environment's word."""
    rows = log.query("select success, score, critique from judgements where episode = :id", id=episode.id)
    if not rows:
        return Judgement(episode.success, float(episode.success), "It was not judged.")
    return Judgement(bool(rows[0]["success"]), float(rows[0]["score"]), str(rows[0]["critique"]))
