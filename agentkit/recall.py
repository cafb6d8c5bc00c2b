"""What of an episode is remembered, and what of the memory is shown: the keys of episodic memory.

A step's key holds the task's goal and the situation, so that like rooms of unlike tasks lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentkit.memory import Memory, Recalled, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.types import Episode, Judgement, View


def situation(goal: str, observation: str, admissible: Sequence[str] | None) -> str:
    """The key under which a step is remembered and looked for."""
    actions = ", ".join(admissible or ())
    return f"{goal}\n{observation}\n{actions}"


@dataclass(frozen=True)
class RememberSteps:
    """One record a step: the situation is its key, the discounted outcome of the episode its outcome.

    The outcome of step t of T is ``score * discount ** (T - 1 - t)``, the Monte-Carlo return of episodic control
    (Blundell et al. 2016, "Model-Free Episodic Control", section 2), with the critic's score as the only reward. Of an
    episode that was cut off (`StopReason.broken`) nothing is kept: its actions did not fail.
    """

    discount: float = 0.95

    def __call__(self, episode: Episode, judgement: Judgement) -> list[Record]:
        if episode.stop_reason.broken:
            return []
        last = len(episode.steps) - 1
        return [
            Record(
                kind="step",
                key=situation(episode.goal, step.observation, step.admissible),
                text=f"{step.action.text} -> {'solved' if judgement.success else 'not solved'}",
                data={"action": step.action.text},
                task=episode.task.name,
                outcome=judgement.score * self.discount ** (last - t),
                episode=episode.id,
                step=t,
            )
            for t, step in enumerate(episode.steps)
        ]


@dataclass(frozen=True)
class RecallSteps:
    """Shows the ``k`` remembered steps nearest to the situation, and the task's last ``lessons`` lessons.

    With ``same_task`` only steps of the same task are shown; else those of other tasks too, as near as their keys are.
    Steps less similar than ``floor`` (cosine) are left out.
    """

    k: int = 64
    lessons: int = 3
    same_task: bool = True
    floor: float = 0.0

    def __call__(self, view: View, memory: Memory | MemoryView) -> View:
        task = view.task.name
        steps = Where(kinds=("step",), task=task if self.same_task else None)
        query = situation(view.goal, view.observation, view.admissible)
        found = [r for r in memory.recall(query, self.k, where=steps) if r.relevance >= self.floor]
        lessons: list[Record] = []
        if self.lessons:
            lessons = list(memory.records(Where(kinds=("lesson",), task=task)))[-self.lessons :]
        return replace(view, memories=tuple(found), lessons=tuple(Recalled(r, 1.0, 1.0) for r in lessons))
