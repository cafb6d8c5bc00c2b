"""Lessons in the model's own words: reflection on a failure, contrast of a success with it, and hindsight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentkit import parsing
from agentkit.dialogue import Prompted, derive, transcript
from agentkit.llm.base import LLM
from agentkit.memory import Memory, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.reflection.consolidate import Changes
from agentkit.types import Episode, Judgement, Lesson


def retold(episode: Episode, observation_chars: int | None) -> str:
    """An episode for a prompt: what was seen first, then the turns."""
    opening = episode.steps[0].observation if episode.steps else ""
    turns = transcript(episode.steps, observation_chars=observation_chars)
    return "\n".join(part for part in (opening, turns) if part)


def _words(answer: str) -> str | None:
    text = parsing.plain(answer)
    for label in ("reflection:", "lesson:", "new plan:"):
        if text.lower().startswith(label):
            text = text[len(label) :].strip()
    return text or None


@dataclass(frozen=True, repr=False)
class VerbalReflector(Prompted):
    """Why the attempt failed and what to do instead, in a few sentences (Shinn et al. 2023, "Reflexion", section 3).

    Nothing is said of a solved attempt, nor of one that broke off (`StopReason.broken`). The earlier reflections on the
    task, at most ``earlier``, are shown, so that the new one adds to them. An empty answer is no lesson.
    """

    prompt: str = "reflect"
    reasks: int = 0
    earlier: int = 3
    observation_chars: int | None = 1000

    def reflect(
        self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: LLM | None
    ) -> Sequence[Lesson]:
        """One lesson of kind ``"reflection"``, or none."""
        if judgement.success or episode.stop_reason.broken:
            return []
        answer = self.ask(llm, self.text(episode, judgement, earlier), _words, "", seed=derive(episode.seed, "reflect"))
        if answer.value is None:
            return []
        return [Lesson(answer.value, kind="reflection", task=episode.task.name, evidence=(episode.id,))]

    def text(self, episode: Episode, judgement: Judgement, earlier: Sequence[str]) -> str:
        """The prompt."""
        return self.write(
            {
                "goal": episode.goal,
                "attempt": retold(episode, self.observation_chars),
                "critique": judgement.critique,
                "mistakes": [s for s in judgement.steps if s.critique],
                "earlier": list(earlier)[-self.earlier :] if self.earlier else [],
            }
        )


@dataclass(frozen=True, repr=False)
class Hindsight(Prompted):
    """What goal a failed attempt *did* reach: a lesson on how to reach that one.

    The idea is hindsight relabelling (Andrychowicz et al. 2017, section 3.2) with goals in words, named by the model as
    in Colas et al. 2023 ("LMA3", section 2.2). The lesson belongs to no task, and is found by the goal that it names.
    """

    prompt: str = "hindsight"
    observation_chars: int | None = 1000

    def reflect(
        self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: LLM | None
    ) -> Sequence[Lesson]:
        """One lesson of kind ``"hindsight"``, or none where nothing worth a name was reached."""
        if judgement.success or episode.stop_reason.broken or not episode.steps:
            return []
        said = {"goal": episode.goal, "attempt": retold(episode, self.observation_chars)}
        answer = self.ask(
            llm, self.write(said), _words, "Name one goal, or write: none.", seed=derive(episode.seed, "hs")
        )
        goal = (answer.value or "none").splitlines()[0].strip().rstrip(".")
        if goal.casefold() in ("none", "nothing"):
            return []
        actions = ", then ".join(step.action.text for step in episode.steps)
        return [Lesson(f"To {_lower(goal)}: {actions}.", kind="hindsight", evidence=(episode.id,))]


@dataclass(frozen=True, repr=False)
class Contrast(Prompted):
    """What a solved attempt did that a failed one at the same task did not: one lesson for each such pair.

    The failed attempt is the last before the solved one, of the same round or remembered (kind ``"episode"``). A task
    is contrasted once: when it has a lesson of kind ``"contrast"``, nothing is asked.
    """

    prompt: str = "contrast"
    reasks: int = 0
    observation_chars: int | None = 600

    def consolidate(
        self,
        episodes: Sequence[Episode],
        judgements: Mapping[str, Judgement],
        memory: Memory | MemoryView,
        llm: LLM | None,
    ) -> Changes:
        """The lessons, as records."""
        added: list[Record] = []
        for won in (e for e in episodes if judgements[e.id].success):
            task = won.task.name
            lessons = memory.records(Where(kinds=("lesson",), task=task))
            done = {r.task for r in (*lessons, *added) if r.data.get("kind") == "contrast"}
            lost = failures(won, episodes, judgements, memory, self.observation_chars)
            if task in done or not lost:
                continue
            said = {"goal": won.goal, "won": retold(won, self.observation_chars), "lost": lost[-1]}
            answer = self.ask(llm, self.write(said), _words, "", seed=derive(won.seed, "contrast"))
            if answer.value is not None:
                data = {"kind": "contrast", "evidence": []}
                key = f"{won.goal}\n{answer.value}"
                added.append(Record("lesson", answer.value, key=key, data=data, task=task, episode=won.id))
        return Changes(added=tuple(added))


def failures(
    won: Episode,
    episodes: Sequence[Episode],
    judgements: Mapping[str, Judgement],
    memory: Memory | MemoryView,
    observation_chars: int | None,
) -> list[str]:
    """The failed attempts at the task of ``won``, retold, oldest first: those remembered, then those of the round."""
    task = won.task.name
    past = [r.text for r in memory.records(Where(kinds=("episode",), task=task)) if not r.data.get("success")]
    now = [
        retold(e, observation_chars)
        for e in episodes
        if e.task.name == task and not judgements[e.id].success and not e.stop_reason.broken
    ]
    return past + now


def _lower(goal: str) -> str:
    words = goal.removeprefix("To ").removeprefix("to ")
    return words[:1].lower() + words[1:]
