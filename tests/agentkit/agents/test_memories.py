"""What is remembered of an episode, and what of it is shown, in which order: part by part."""

from __future__ import annotations

import pytest

from agentkit.agent import Agent
from agentkit.agents.clin import RecallCausal
from agentkit.agents.learning import Consolidating
from agentkit.agents.memories import (
    RecallEpisodes,
    RecallInsights,
    RecallKind,
    RecallLessons,
    RecallNearLessons,
    RecallSkills,
    RememberEpisodes,
    RememberWays,
)
from agentkit.agents.reflexion import reflexion
from agentkit.envs.sandbox import Sandbox
from agentkit.llm import ScriptedLLM
from agentkit.llm.base import LLM
from agentkit.memory import Memory, Record
from agentkit.memory import View as MemoryView
from agentkit.memory.skills import SkillLibrary
from agentkit.policy.generate import ReAct
from agentkit.policy.simple import Random
from agentkit.recall import RecallSteps
from agentkit.reflection.consolidate import Changes
from agentkit.runner import run
from agentkit.types import Action, Episode, Judgement, Step, StepJudgement, StopReason, Task, View

TASK = Task("hall", name="hall")
VIEW = View(TASK, "get out", "A hall.", admissible=("left", "right"))
STEPS = tuple(Step(f"Place {i}.", Action(f"go {i}"), 0.0, f"Place {i + 1}.") for i in range(3))


def episode(success: bool = False, reason: StopReason | None = None) -> Episode:
    stop = reason or (StopReason.SUCCESS if success else StopReason.FAILURE)
    return Episode("e", TASK, 0, 0, "get out", STEPS, stop, success, float(success))


def test_the_last_lessons_of_the_task_are_shown_oldest_first() -> None:
    memory = Memory()
    for i in range(4):
        memory.add(Record("lesson", f"lesson {i}", data={"kind": "reflection"}, task="hall"))
    memory.add(Record("lesson", "of another kind", data={"kind": "trace"}, task="hall"))
    memory.add(Record("lesson", "of another task", data={"kind": "reflection"}, task="cellar"))

    def shown(recall: RecallLessons) -> list[str]:
        return [found.record.text for found in recall(VIEW, memory).lessons]

    assert shown(RecallLessons(last=2, kinds=("reflection",))) == ["lesson 2", "lesson 3"]
    assert shown(RecallLessons(last=2)) == ["lesson 3", "of another kind"]
    assert shown(RecallLessons(last=0)) == []
    near = RecallNearLessons(kinds=("reflection",))(VIEW, memory).lessons
    assert [found.record.text for found in near] == ["of another task"]


def test_the_order_of_lessons_is_that_of_the_prompt() -> None:
    memory, llm = Memory(), ScriptedLLM(lambda request: "Action: left")
    agent = reflexion(llm, memory, policy=ReAct())
    ids = [
        memory.add(Record("lesson", text, data={"kind": "reflection"}, task="hall")) for text in ("go left", "go right")
    ]
    action = agent.act(VIEW)
    prompt = llm.requests[-1].messages[0].content
    assert prompt.index("go left") < prompt.index("go right")
    assert list(action.memory_ids) == ids
    memory.edit(ids[0], text="go right")
    memory.edit(ids[1], text="go left")
    agent.act(VIEW)
    swapped = llm.requests[-1].messages[0].content
    assert swapped.index("go right") < swapped.index("go left")
    assert swapped != prompt


def test_the_strongest_insights_are_shown_first_and_of_equals_the_oldest() -> None:
    memory = Memory()
    for text, strength in (("weak", 1), ("first", 3), ("second", 3), ("middling", 2)):
        memory.add(Record("insight", text, data={"strength": strength}))
    shown = RecallInsights(most=3)(VIEW, memory).lessons
    assert [found.record.text for found in shown] == ["first", "second", "middling"]


def test_episodes_are_shown_by_time_or_nearness_and_no_more_than_asked_for() -> None:
    memory = Memory()
    for i, (task, success) in enumerate((("hall", True), ("cellar", False), ("hall", False), ("cellar", True))):
        memory.add(
            Record("episode", f"episode {i}", key=f"key {i}" if i else "get out\nA hall.", data={"success": success},
                   task=task)
        )  # fmt: skip

    def shown(recall: RecallEpisodes) -> list[int]:
        return [int(found.record.text[-1]) for found in recall(VIEW, memory).memories]

    assert shown(RecallEpisodes("all", k=None)) == [0, 1, 2, 3]
    assert shown(RecallEpisodes("all", k=None, newest_first=True)) == [3, 2, 1, 0]
    assert shown(RecallEpisodes("recent", k=2)) == [2, 3]
    assert shown(RecallEpisodes("recent", k=1, task="same")) == [2]
    assert shown(RecallEpisodes("recent", k=1, task="other", successes_only=True)) == [3]
    assert shown(RecallEpisodes("near", k=1)) == [0]
    assert shown(RecallEpisodes("near", k=3, successes_only=True)) == [0, 3]


def test_an_episode_is_remembered_with_what_came_of_it() -> None:
    (won,) = RememberEpisodes()(episode(True), Judgement(True, 1.0, "Well done."))
    (lost,) = RememberEpisodes()(episode(), Judgement(False, 0.25, "Too slow."))
    assert won.text.endswith("Observation 3: Place 3.\nThis succeeded.")
    assert lost.text.endswith("This failed. Too slow.")
    assert (won.data["success"], lost.data["success"], lost.outcome) == (True, False, 0.25)
    assert won.key == "get out\nPlace 0."
    assert RememberEpisodes(successes_only=True)(episode(), Judgement(False, 0.0, "")) == []
    assert RememberEpisodes()(episode(reason=StopReason.ENV_ERROR), Judgement(False, 0.0, "")) == []


def test_a_way_ends_before_the_first_mistake() -> None:
    steps = (StepJudgement(0, 1.0, ""), StepJudgement(1, 0.0, "wrong"), StepJudgement(2, 0.0, ""))
    (way,) = RememberWays()(episode(), Judgement(False, 0.3, "", steps))
    assert (list(way.data["actions"]), way.text) == (["go 0"], "Good so far: go 0.")
    assert RememberWays()(episode(), Judgement(False, 0.0, "")) == []
    (whole,) = RememberWays()(episode(True), Judgement(True, 1.0, ""))
    assert list(whole.data["actions"]) == ["go 0", "go 1", "go 2"]


def test_what_skills_require_is_shown_with_them() -> None:
    memory = Memory()
    with Sandbox() as sandbox:
        library = SkillLibrary(memory, sandbox)
        library.add("step_once", "def step_once():\n    return 1", "Steps once.", evidence="e")
        library.add("walk", "def walk():\n    return step_once() + step_once()", "Gets out of a hall.", evidence="e")
    shown = RecallSkills(k=1)(VIEW, memory).skills
    assert [found.record.data["name"] for found in shown] == ["walk", "step_once"]


def test_a_kind_is_shown_whole() -> None:
    memory = Memory()
    memory.add(Record("tool", "search: finds"))
    memory.add(Record("lesson", "another kind"))
    assert [found.record.text for found in RecallKind("tool")(VIEW, memory).lessons] == ["search: finds"]


def test_every_episode_credits_what_it_was_shown_with_what_came_of_it() -> None:
    memory = Memory()
    id_ = memory.add(Record("lesson", "Right is right.", data={"kind": "reflection"}, task="lake"))
    llm = ScriptedLLM(lambda request: "Action: right")
    lake = Task("agentkit/FrozenLake-v0", name="lake")
    (shown,) = run(reflexion(llm, memory, policy=ReAct()), lake, max_steps=1).episodes
    assert shown.memory_ids == (id_,)
    run(Agent(None, Random(), memory=memory, name="alone"), lake, max_steps=1)
    with_it, without = memory.credits()
    assert (set(with_it.ids), with_it.episode, with_it.outcome) == ({id_}, shown.id, 0.0)
    assert not without.ids


@pytest.mark.parametrize("k", [0, 1])
def test_none_are_shown_where_none_are_asked_for(k: int) -> None:
    memory = Memory()
    memory.add(Record("episode", "one", key="x", data={"success": True}, task="hall"))
    assert len(RecallEpisodes("recent", k=k)(VIEW, memory).memories) == k


def test_clin_shows_the_latest_memory_of_the_task_alone() -> None:
    memory = Memory()
    for i in range(3):
        memory.add(Record("lesson", f"list {i}", data={"kind": "causal"}, task="hall"))
    memory.add(Record("lesson", "another task's list", data={"kind": "causal"}, task="cellar"))
    assert [found.record.text for found in RecallCausal("adapt")(VIEW, memory).lessons] == ["list 2"]


def test_reflexion_shows_the_last_attempt_at_the_same_task() -> None:
    memory, llm = Memory(), ScriptedLLM(lambda request: "Action: left")
    for task, text in (("hall", "I went right."), ("cellar", "I dug.")):
        memory.add(Record("episode", text, key=text, data={"success": False}, task=task))
    agent = reflexion(llm, memory, policy=ReAct(), strategy="last_attempt")
    agent.act(VIEW)
    prompt = llm.requests[-1].messages[0].content
    assert "I went right." in prompt
    assert "I dug." not in prompt


class Reads:
    """A consolidator that keeps what it was given to read."""

    def __init__(self) -> None:
        self.read: list[object] = []

    def consolidate(
        self, episodes: object, judgements: object, memory: Memory | MemoryView, llm: LLM | None
    ) -> Changes:
        self.read.append(memory)
        return Changes()


def test_a_round_is_consolidated_from_what_was_there_when_it_began() -> None:
    memory, part = Memory(), Reads()
    agent = Consolidating(None, Random(), memory=memory, consolidators=[part])
    run(agent, Task("agentkit/FrozenLake-v0", name="lake"), trials=2, max_steps=1)
    assert len(part.read) == 2
    assert all(isinstance(read, MemoryView) for read in part.read)


def test_steps_of_other_tasks_are_shown_only_where_that_is_asked_for() -> None:
    memory = Memory()
    for task in ("hall", "cellar"):
        memory.add(Record("step", task, key="get out\nA hall.\nleft, right", data={"action": "left"}, task=task))

    def shown(recall: RecallSteps) -> set[str]:
        return {found.record.text for found in recall(VIEW, memory).memories}

    assert shown(RecallSteps()) == {"hall"}
    assert shown(RecallSteps(same_task=False)) == {"hall", "cellar"}
    assert len(RecallSteps(same_task=False, k=1)(VIEW, memory).memories) == 1
