"""What of episodes is remembered, and what of memory is shown, for agents that read: whole attempts, lessons, insights,
ways that worked, skills.

`agentkit.recall` has the step memories of episodic control. Parts are put together with `Remembers` and `Recalls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentkit.agent import Recall, Remember
from agentkit.critic.judge import first_mistake
from agentkit.memory import Memory, Recalled, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.memory.skills import SkillLibrary
from agentkit.reflection.insights import rank
from agentkit.reflection.verbal import retold
from agentkit.types import Episode, Judgement, View

Reading = Memory | MemoryView


@dataclass(frozen=True)
class Remembers:
    """Everything that each part remembers."""

    parts: tuple[Remember, ...]

    def __call__(self, episode: Episode, judgement: Judgement) -> list[Record]:
        return [record for part in self.parts for record in part(episode, judgement)]


@dataclass(frozen=True)
class Recalls:
    """Everything that each part shows, in the order of the parts."""

    parts: tuple[Recall, ...]

    def __call__(self, view: View, memory: Reading) -> View:
        for part in self.parts:
            view = part(view, memory)
        return view


@dataclass(frozen=True)
class RememberEpisodes:
    """A whole attempt as one record of kind ``"episode"``: the goal, the turns, and what came of it."""

    observation_chars: int | None = 300
    successes_only: bool = False

    def __call__(self, episode: Episode, judgement: Judgement) -> list[Record]:
        if episode.stop_reason.broken or not episode.steps or (self.successes_only and not judgement.success):
            return []
        outcome = "This succeeded." if judgement.success else f"This failed. {judgement.critique}".strip()
        text = f"Task: {episode.goal}\n{retold(episode, self.observation_chars)}\n{outcome}"
        return [
            Record(
                kind="episode",
                text=text,
                key=f"{episode.goal}\n{episode.steps[0].observation}",
                data={"success": judgement.success},
                task=episode.task.name,
                outcome=judgement.score,
                episode=episode.id,
            )
        ]


@dataclass(frozen=True)
class RememberWays:
    """The actions of a solved attempt, or those of a failed one before the first mistake that the critic named: a
    record of kind ``"way"``, which `agentkit.policy.simple.Resume` does again."""

    def __call__(self, episode: Episode, judgement: Judgement) -> list[Record]:
        mistake = first_mistake(judgement)
        good = episode.steps if judgement.success else episode.steps[: mistake or 0]
        if not good or episode.stop_reason.broken:
            return []
        actions = [step.action.text for step in good]
        return [
            Record(
                kind="way",
                text=f"{'Solved by' if judgement.success else 'Good so far'}: {', then '.join(actions)}.",
                key=f"{episode.goal}\n{episode.steps[0].observation}",
                data={
                    "actions": actions,
                    "observations": [step.observation for step in good],
                    "success": judgement.success,
                },
                task=episode.task.name,
                outcome=judgement.score,
                episode=episode.id,
            )
        ]


@dataclass(frozen=True)
class RecallWays:
    """The way through this task: the last that solved it, or else the last that was good so far."""

    def __call__(self, view: View, memory: Reading) -> View:
        ways = memory.records(Where(kinds=("way",), task=view.task.name))
        ways.sort(key=lambda r: (bool(r.data["success"]), r.id))
        return replace(view, memories=(*view.memories, *_as_found(ways[-1:])))


@dataclass(frozen=True)
class RecallRoutines:
    """Ways that solved this task or others: the ``k`` nearest by goal and first observation, each text once.

    They stand where skills stand: for worlds whose actions are words, a way that worked is what a skill is elsewhere.
    """

    k: int = 3

    def __call__(self, view: View, memory: Reading) -> View:
        where = Where(kinds=("way",))
        pool = memory.recall(f"{view.goal}\n{_opening(view)}", memory.count(where), where=where)
        solved: dict[str, Recalled] = {}
        for found in pool:
            if found.record.data["success"]:
                solved.setdefault(found.record.text, found)
        return replace(view, skills=(*view.skills, *list(solved.values())[: self.k]))


@dataclass(frozen=True)
class RecallLessons:
    """The ``last`` lessons of this task, oldest first; of the given ``kinds`` alone where they are given."""

    last: int = 3
    kinds: tuple[str, ...] = ()

    def __call__(self, view: View, memory: Reading) -> View:
        lessons = memory.records(Where(kinds=("lesson",), task=view.task.name))
        if self.kinds:
            lessons = [r for r in lessons if r.data.get("kind") in self.kinds]
        return replace(view, lessons=(*view.lessons, *_as_found(lessons[-self.last :] if self.last else [])))


@dataclass(frozen=True)
class RecallNearLessons:
    """The ``k`` lessons nearest to the goal and situation, of other tasks than this one."""

    k: int = 3
    kinds: tuple[str, ...] = ()

    def __call__(self, view: View, memory: Reading) -> View:
        where = Where(kinds=("lesson",), exclude_task=view.task.name)
        found = memory.recall(f"{view.goal}\n{_opening(view)}", self.k if not self.kinds else 4 * self.k, where=where)
        if self.kinds:
            found = [r for r in found if r.record.data.get("kind") in self.kinds]
        return replace(view, lessons=(*view.lessons, *found[: self.k]))


@dataclass(frozen=True)
class RecallEpisodes:
    """Whole attempts: ``"all"`` of them, the ``"recent"`` ones, or the ``"near"`` ones by goal and first observation.

    At most ``k`` (None: all), oldest first where the order is by time, nearest first where it is by nearness. ``task``
    is ``"same"``, ``"other"`` or ``"any"``. What does not fit the policy's budget of tokens is left out there, so the
    newest come first when ``newest_first``.
    """

    how: Literal["all", "recent", "near"] = "near"
    k: int | None = 3
    task: Literal["same", "other", "any"] = "any"
    successes_only: bool = False
    newest_first: bool = False

    def __call__(self, view: View, memory: Reading) -> View:
        where = Where(
            kinds=("episode",),
            task=view.task.name if self.task == "same" else None,
            exclude_task=view.task.name if self.task == "other" else None,
        )
        if self.how == "near":
            # More than k are asked for, since failures may be among them.
            count = memory.count(where)
            k = count if self.k is None else self.k
            pool = memory.recall(f"{view.goal}\n{_opening(view)}", count if self.successes_only else k, where=where)
            found = [r for r in pool if r.record.data["success"] or not self.successes_only][:k]
        else:
            records = [r for r in memory.records(where) if r.data["success"] or not self.successes_only]
            records = records if self.k is None else records[-self.k :] if self.k else []
            found = _as_found(records[::-1] if self.newest_first else records)
        return replace(view, memories=(*view.memories, *found))


@dataclass(frozen=True)
class RecallInsights:
    """The insights, the strongest first."""

    most: int = 20

    def __call__(self, view: View, memory: Reading) -> View:
        insights = sorted(memory.records(Where(kinds=("insight",))), key=rank)
        return replace(view, lessons=(*view.lessons, *_as_found(insights[: self.most])))


@dataclass(frozen=True)
class RecallKind:
    """All records of one kind as lessons: tool documents (``"tool"``), meta-memories (``"meta"``)."""

    kind: str
    most: int = 20

    def __call__(self, view: View, memory: Reading) -> View:
        return replace(
            view, lessons=(*view.lessons, *_as_found(memory.records(Where(kinds=(self.kind,)))[: self.most]))
        )


@dataclass(frozen=True)
class RecallSkills:
    """The ``k`` skills nearest to the goal and the last feedback, and all that they require."""

    k: int = 5
    namespace: str = ""

    def __call__(self, view: View, memory: Reading) -> View:
        library = SkillLibrary(memory, namespace=self.namespace)
        feedback = view.history[-1].feedback if view.history else ""
        found = library.recall(f"{view.goal}\n{feedback or view.observation}"[:2000], self.k)
        in_use = {skill.name: skill for skill in library.skills()}
        have = {str(r.record.data["name"]) for r in found}
        wanted = [name for r in found for name in r.record.data["requires"]]
        while wanted:
            name = wanted.pop(0)
            if name not in have and name in in_use:
                have.add(name)
                found.append(Recalled(memory.get(in_use[name].id), 0.0, 0.0))
                wanted += in_use[name].requires
        return replace(view, skills=(*view.skills, *found))


def _opening(view: View) -> str:
    return view.history[0].observation if view.history else view.observation


def _as_found(records: Sequence[Record]) -> list[Recalled]:
    return [Recalled(record, 1.0, 1.0) for record in records]
