"""Lessons read off the trace of an episode, with no model: the way that worked, or the moves that led nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.llm.base import LLM
from agentkit.types import Episode, Judgement, Lesson, Step


@dataclass(frozen=True)
class TraceReflector:
    """Names the shortest way through a solved episode, and the dead ends of a failed one.

    The way is the actions with all loops cut out. A dead end is an action after which the world looked as it had looked
    before in the episode. At most ``limit`` actions are named; a lesson that is held already is not learned again.
    """

    limit: int = 4

    def reflect(
        self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: LLM | None
    ) -> Sequence[Lesson]:
        """One lesson, or none where there is nothing new to say."""
        if not episode.steps:
            return []
        if judgement.success:
            text = "What worked: " + ", then ".join(way(episode.steps)[-self.limit :]) + "."
        else:
            useless = list(dict.fromkeys(dead_ends(episode.steps)))[: self.limit]
            if not useless:
                return []
            text = "What led nowhere: " + ", ".join(useless) + "."
        if text in earlier:
            return []
        return [Lesson(text, kind="trace", task=episode.task.name, evidence=(episode.id,))]


def way(steps: Sequence[Step]) -> list[str]:
    """The actions from start to end, without those between two visits of the same situation."""
    path: list[tuple[tuple[str, tuple[str, ...] | None], str]] = []
    for step in steps:
        here = (step.observation, step.admissible)
        seen = [place for place, _ in path]
        if here in seen:
            path = path[: seen.index(here)]
        path.append((here, step.action.text))
    return [action for _, action in path]


def dead_ends(steps: Sequence[Step]) -> list[str]:
    """The actions after which the observation was one seen before in the episode, in order."""
    seen: set[str] = set()
    found = []
    for step in steps:
        seen.add(step.observation)
        if step.next_observation in seen:
            found.append(step.action.text)
    return found
