"""The agent's parts: what is judged, remembered, reflected on, credited and recalled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.agent import Agent
from agentkit.agents.reflexion import reflexion
from agentkit.critic.base import EnvironmentCritic
from agentkit.errors import ContractError, InvalidValue
from agentkit.llm import ScriptedLLM, instrument
from agentkit.memory import Memory, Recalled, Record, Where
from agentkit.policy.choose import Choose, Experience
from agentkit.reflection.trace import TraceReflector, dead_ends, way
from agentkit.types import Action, Episode, Judgement, Lesson, Message, Request, Step, StopReason, Task, View

TASK = Task("house", seed=1)


def episode(
    *walked: tuple[str, str, str], success: bool = False, reason: StopReason = StopReason.FAILURE, **more: Any
) -> Episode:
    """An episode of (observation, action, next observation)."""
    steps = tuple(
        Step(o, Action(a, memory_ids=more.get("ids", ())), 0.0, n, admissible=("a", "b")) for o, a, n in walked
    )
    return Episode(more.get("id", "e"), TASK, 0, 0, "goal", steps, reason, success, 0.0)


WON = episode(("hall", "a", "kitchen"), ("kitchen", "b", "garden"), success=True, reason=StopReason.SUCCESS)
LOST = episode(("hall", "b", "hall"), ("hall", "a", "cellar"))


# --- critic and reflector


def test_the_environments_word() -> None:
    critic = EnvironmentCritic()
    assert critic.judge(WON, None) == Judgement(True, 1.0, "Solved in 2 steps.")
    assert critic.judge(LOST, None).score == 0.0
    scored = Episode(
        "e",
        TASK,
        0,
        0,
        "",
        (Step("o", Action("a"), 0.0, "n", score=0.5), Step("o", Action("a"), 0.0, "n")),
        StopReason.STEP_LIMIT,
        False,
        9.0,
    )
    assert critic.judge(scored, None).score == 0.5
    for reason in StopReason:
        judged = critic.judge(episode(reason=reason), None)
        assert (judged.success, judged.score) == (False, 0.0)
        assert judged.critique


@pytest.mark.parametrize("score", [-3.0, 7.0])
def test_a_score_out_of_range_is_brought_into_it(score: float) -> None:
    step = Step("o", Action("a"), 0.0, "n", score=score)
    judged = EnvironmentCritic().judge(Episode("e", TASK, 0, 0, "", (step,), StopReason.FAILURE, False, 0.0), None)
    assert judged.score == min(max(score, 0.0), 1.0)


def test_the_way_leaves_out_the_loops() -> None:
    walked = [("1", "x", "2"), ("2", "y", "1"), ("1", "a", "3"), ("3", "l", "3"), ("3", "b", "4")]
    assert way(episode(*walked).steps) == ["a", "b"]
    assert dead_ends(episode(*walked).steps) == ["y", "l"]
    assert way(()) == dead_ends(()) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_way_never_visits_a_place_twice_and_ends_as_the_episode_did(walk: list[tuple[int, int]]) -> None:
    steps = [Step(str(place), Action(f"{i}:{a}"), 0.0, "") for i, (place, a) in enumerate(walk)]
    path = way(steps)
    places = [str(walk[int(action.split(":")[0])][0]) for action in path]
    assert len(set(places)) == len(places)
    assert path[-1] == steps[-1].action.text


def test_a_lesson_is_learned_once() -> None:
    reflector = TraceReflector()
    (lesson,) = reflector.reflect(WON, Judgement(True, 1.0), [], None)
    assert lesson == Lesson("What worked: a, then b.", "trace", TASK.name, ("e",))
    assert reflector.reflect(WON, Judgement(True, 1.0), [lesson.text], None) == []
    (lesson,) = reflector.reflect(LOST, Judgement(False, 0.0), [], None)
    assert lesson.text == "What led nowhere: b."
    assert reflector.reflect(episode(("1", "a", "2")), Judgement(False, 0.0), [], None) == []
    assert reflector.reflect(episode(), Judgement(True, 1.0), [], None) == []


# --- memory


def test_what_an_episode_leaves_in_memory() -> None:
    memory = Memory()
    agent = reflexion(ScriptedLLM(), memory)
    learned = agent.learn([WON, episode(("hall", "b", "hall"), id="f")])
    assert learned.records == len(memory) == 3 + 2
    assert {k: j.score for k, j in learned.judgements.items()} == {"e": 1.0, "f": 0.0}
    steps = memory.records(Where(kinds="step"))
    assert [(r.data["action"], r.outcome, r.episode, r.step) for r in steps] == [
        ("a", 0.95, "e", 0),
        ("b", 1.0, "e", 1),
        ("b", 0.0, "f", 0),
    ]
    assert steps[0].key == "goal\nhall\na, b"
    assert {r.task for r in memory.records()} == {TASK.name}


@pytest.mark.parametrize("reason", [r for r in StopReason if r.broken])
def test_an_episode_that_was_cut_off_teaches_nothing_of_its_actions(reason: StopReason) -> None:
    memory = Memory()
    learned = reflexion(ScriptedLLM(), memory).learn([episode(("hall", "a", "kitchen"), reason=reason)])
    assert (len(memory), memory.credits()) == (0, [])
    assert learned.judgements["e"].success is False


def test_recall_brings_the_same_tasks_steps_and_last_lessons() -> None:
    memory = Memory()
    for i in range(5):
        memory.add(Record(kind="lesson", text=f"lesson {i}", task=TASK.name))
    memory.add(Record(kind="lesson", text="of another task", task="other"))
    agent = reflexion(ScriptedLLM(), memory, k=1)
    agent.learn([WON])
    view = View(TASK, "goal", "kitchen", ("a", "b"))
    assert agent.recall is not None
    seen = agent.recall(view, memory)
    assert [r.record.data["action"] for r in seen.memories] == ["b"]
    assert [r.record.text for r in seen.lessons] == ["lesson 3", "lesson 4", "What worked: a, then b."]
    then = memory.at(0)
    assert agent.recall(view, then).memories == agent.recall(view, then).lessons == ()


def test_an_agent_as_of_a_number_reads_as_of_it() -> None:
    memory = Memory()
    agent = Agent(memory=memory)
    memory.add(Record(kind="lesson", text="x"))
    before = agent.at(0)
    assert before.reading is not None
    assert len(before.reading) == 0
    assert agent.reading is memory
    assert before.memory is memory


# --- choose


def probabilities(policy: Choose, view: View, llm: ScriptedLLM, n: int = 2000) -> dict[str, float]:
    from dataclasses import replace

    taken = [policy.act(replace(view, seed=i), instrument(llm)) for i in range(n)]
    return {a: sum(t.text == a for t in taken) / n for a in view.admissible or ()}


VIEW = View(TASK, "goal", "hall", ("go", "stay here"))


def test_actions_are_drawn_by_likelihood_per_token() -> None:
    llm = ScriptedLLM(scorer=lambda r: [np.log(0.8), 2 * np.log(0.2)])  # the second has two tokens
    shares = probabilities(Choose(), VIEW, llm)
    assert shares["go"] == pytest.approx(0.8, abs=0.03)
    action = Choose().act(VIEW, instrument(llm))
    assert action.logprob == pytest.approx(np.log({"go": 0.8, "stay here": 0.2}[action.text]))
    assert action.memory_ids == ()
    cold = probabilities(Choose(temperature=0.01), VIEW, llm, 100)
    assert cold["go"] == 1.0


def test_experience_values_are_those_worked_out_by_hand() -> None:
    def found(action: str, outcome: float | None, relevance: float = 1.0) -> Recalled:
        return Recalled(
            Record(kind="step", text="", data={"action": action}, outcome=outcome, id=1), relevance, relevance
        )

    experience = Experience(optimism=0.5, prior=1.0)
    values = experience.values(
        ("a", "b", "c"), [found("a", 1.0), found("a", 1.0), found("b", 0.0), found("x", 1.0), found("c", None)]
    )
    assert values == pytest.approx([(0.5 + 2) / 3, 0.5 / 2, 0.5])
    near, far = (experience.values(("a",), [found("a", 1.0, r)])[0] for r in (0.99, 0.2))
    assert 0.5 < far < near < values[0]


def test_experience_moves_the_choice_and_is_named() -> None:
    llm = ScriptedLLM(scorer=lambda r: [-1.0, -2.0])
    worked = Recalled(Record(kind="step", text="", data={"action": "stay here"}, outcome=1.0, id=7), 1.0, 1.0)
    elsewhere = Recalled(Record(kind="step", text="", data={"action": "fly"}, outcome=1.0, id=8), 1.0, 1.0)
    lesson = Recalled(Record(kind="lesson", text="Stay.", id=9), 1.0, 1.0)
    from dataclasses import replace

    view = replace(VIEW, memories=(worked, elsewhere), lessons=(lesson,))
    assert probabilities(Choose(), view, llm)["stay here"] > probabilities(Choose(), VIEW, llm)["stay here"] + 0.2
    assert Choose().act(view, instrument(llm)).memory_ids == (9, 7), (
        "the record of an action that cannot be taken had no part"
    )
    assert Choose(experience=None).act(view, instrument(llm)).memory_ids == (9,)


@pytest.mark.parametrize(("history", "shown"), [(0, []), (1, ["b"]), (2, ["a", "b"]), (9, ["a", "b"])])
def test_history_shows_that_many_steps(history: int, shown: list[str]) -> None:
    from dataclasses import replace

    llm = ScriptedLLM(scorer=lambda r: [-1.0, -1.0])
    past = tuple(Step("x", Action(a), 0.0, "y") for a in ("a", "b"))
    Choose(history=history).act(replace(VIEW, history=past), instrument(llm))
    lines = llm.requests[0].messages[0].content.splitlines()
    assert [line[2:] for line in lines if line.startswith("> ")] == shown


def test_what_choose_cannot_do_is_said() -> None:
    from dataclasses import replace

    with pytest.raises(ContractError, match="named no admissible actions"):
        Choose().act(replace(VIEW, admissible=None), instrument(ScriptedLLM(scorer=lambda r: [])))
    with pytest.raises(ContractError, match="cannot score"):
        Choose().act(VIEW, None)
    for bad in ({"temperature": 0.0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"history": -1}):
        with pytest.raises(InvalidValue):
            Choose(**bad)


# --- purposes


def test_calls_are_filed_under_what_they_were_for() -> None:
    from agentkit.llm import Call, metered

    class Asks:
        def judge(self, episode: Episode, llm: Any) -> Judgement:
            llm.generate([Request((Message("user", "judge"),))])
            return Judgement(False, 0.0)

        def reflect(self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: Any) -> list[Lesson]:
            llm.generate([Request((Message("user", "reflect"),))])
            return []

    calls: list[Call] = []
    agent = reflexion(ScriptedLLM(lambda r: "ok"), Memory(), critic=Asks(), reflector=Asks())
    with metered(sink=calls):
        agent.learn([LOST])
    assert [(c.purpose, c.request.messages[0].content) for c in calls] == [("judge", "judge"), ("reflect", "reflect")]
