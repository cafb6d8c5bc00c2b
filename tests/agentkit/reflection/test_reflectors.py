"""The reflectors and consolidators: what they ask, what they make of the answer, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.llm import ScriptedLLM
from agentkit.memory import Memory, Record, Where
from agentkit.reflection.causal import CausalReflector, MetaMemory, abstractions
from agentkit.reflection.insights import Insight, Insights, apply, votes
from agentkit.reflection.several import Several
from agentkit.reflection.tools import ToolDocs, tool_of
from agentkit.reflection.verbal import Contrast, Hindsight, VerbalReflector
from agentkit.types import Action, Episode, Judgement, Step, StepJudgement, StopReason, Task

STEP = Step("A cell.", Action("wait", thought="it may open"), 0.0, "Nothing happens.")
LOST = Episode("run/0/0", Task("cell", name="cell"), 0, 7, "get out", (STEP,), StopReason.FAILURE, False, 0.0)
WON = replace(
    LOST,
    id="run/0/1",
    steps=(replace(STEP, action=Action("open door"), next_observation="Outside."),),
    stop_reason=StopReason.SUCCESS,
    success=True,
)
BROKEN = replace(LOST, stop_reason=StopReason.MODEL_ERROR)
NO, YES = Judgement(False, 0.0, "Not out yet."), Judgement(True, 1.0, "Out.")


def test_verbal_reflection_is_asked_of_failures_with_everything_that_is_known() -> None:
    llm = ScriptedLLM(["Reflection: I waited. Next I open the door."])
    judged = replace(NO, steps=(StepJudgement(0, 0.0, "waiting opens nothing"),))
    (lesson,) = VerbalReflector().reflect(LOST, judged, ["a", "b", "c", "I sang."], llm)
    assert (lesson.text, lesson.kind, lesson.task) == ("I waited. Next I open the door.", "reflection", "cell")
    assert lesson.evidence == ("run/0/0",)
    prompt = llm.requests[0].messages[0].content
    for said in (
        "get out",
        "Action 1: wait",
        "Thought 1: it may open",
        "Not out yet.",
        "- I sang.",
        "About action 1: waiting opens nothing",
    ):
        assert said in prompt
    assert "- a\n" not in prompt
    assert VerbalReflector().reflect(WON, YES, [], llm) == []
    assert VerbalReflector().reflect(BROKEN, NO, [], llm) == []
    assert VerbalReflector().reflect(LOST, NO, [], ScriptedLLM(["  "])) == []


def test_hindsight_names_what_was_reached() -> None:
    (lesson,) = Hindsight().reflect(LOST, NO, [], ScriptedLLM(["To wait in the cell."]))
    assert (lesson.text, lesson.kind, lesson.task) == ("To wait in the cell: wait.", "hindsight", "")
    assert Hindsight().reflect(LOST, NO, [], ScriptedLLM(["None."])) == []
    assert Hindsight().reflect(WON, YES, [], ScriptedLLM([])) == []


def test_causal_statements_are_read_in_their_form_alone() -> None:
    said = "\n".join(
        [
            "Sure:",
            "- Opening the door SHOULD BE NECESSARY to get out.",
            "2. the key may contribute to opening the door",
            "- waiting DOES NOT CONTRIBUTE TO getting out",
            "- singing may not contribute to it",
            "- I like doors",
            "- Opening the door SHOULD BE NECESSARY to get out.",
        ]
    )
    assert abstractions(said) == "\n".join(
        [
            "Opening the door SHOULD BE NECESSARY TO get out.",
            "the key MAY BE NECESSARY TO opening the door.",
            "waiting DOES NOT CONTRIBUTE TO getting out.",
            "singing DOES NOT CONTRIBUTE TO it.",
        ]
    )
    assert abstractions("nothing causal") is None


def test_causal_memory_is_written_anew_after_failures_and_successes() -> None:
    for episode, judgement in ((LOST, NO), (WON, YES)):
        llm = ScriptedLLM(["- x MAY BE NECESSARY TO y"])
        (lesson,) = CausalReflector().reflect(episode, judgement, ["old one", "old two"], llm)
        assert (lesson.kind, lesson.text) == ("causal", "x MAY BE NECESSARY TO y.")
        prompt = llm.requests[0].messages[0].content
        assert "(the latest):\nold two" in prompt
        assert ("was not done" in prompt) != judgement.success
    assert CausalReflector().reflect(BROKEN, NO, [], ScriptedLLM([])) == []


def test_meta_memory_is_made_of_the_best_of_each_task_and_edited_afterwards() -> None:
    memory = Memory()
    for task, text, outcome in (("a", "bad", 0.0), ("a", "good", 1.0), ("b", "other", 0.5)):
        memory.add(
            Record("lesson", text, key=f"goal {task}\n{text}", data={"kind": "causal"}, task=task, outcome=outcome)
        )
    llm = ScriptedLLM(["- m MAY BE NECESSARY TO n", "- p MAY BE NECESSARY TO q"])
    judged = {LOST.id: NO}
    MetaMemory().consolidate([LOST], judged, memory, llm).apply(memory)
    prompt = llm.requests[0].messages[0].content
    assert "goal a (done)\ngood" in prompt
    assert "bad" not in prompt
    assert prompt.index("goal a (done)") < prompt.index("goal b (not done)")
    MetaMemory().consolidate([LOST], judged, memory, llm).apply(memory)
    (meta,) = memory.records(Where(kinds=("meta",)))
    assert meta.text == "p MAY BE NECESSARY TO q."


@pytest.mark.parametrize(
    ("line", "vote"),
    [
        ("ADD: a rule", ("ADD", 0, "a rule")),
        ("- **ADD**: a rule", ("ADD", 0, "a rule")),
        ("AGREE 2: yes", ("AGREE", 2, "yes")),
        ("agree 2", ("AGREE", 2, "")),
        ("EDIT #3: better", ("EDIT", 3, "better")),
        ("REMOVE 1: wrong", ("REMOVE", 1, "wrong")),
        ("DOWNVOTE 1", ("REMOVE", 1, "")),
    ],
)
def test_votes_are_read(line: str, vote: tuple[str, int, str]) -> None:
    assert votes(f"Operations:\n{line}") == [vote]


def test_votes_that_say_nothing_are_none() -> None:
    assert votes("ADD:\nEDIT: x\nREMOVE\nhello") is None


def test_strengths_follow_the_paper_and_an_insight_drops_at_zero() -> None:
    held = [Insight("a", 1, 1), Insight("b", 2, 2), Insight("c", 2, 3)]
    apply(
        held,
        [("REMOVE", 1, ""), ("AGREE", 2, ""), ("EDIT", 3, "C"), ("ADD", 0, "d"), ("ADD", 0, "D"), ("AGREE", 9, "")],
        10,
    )
    assert [(i.text, i.strength) for i in held] == [("b", 3), ("C", 3), ("d", 2)]
    full = [Insight("a", 1, 1)]
    apply(full, [("ADD", 0, "b")], 1)
    assert [i.text for i in full] == ["a"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ADD", "AGREE", "EDIT", "REMOVE"]),
            st.integers(0, 6),
            st.text("abc", min_size=1, max_size=3),
        ),
        max_size=20,
    )
)
def test_no_operations_leave_a_weak_or_doubled_insight_or_pass_the_limit(
    operations: list[tuple[str, int, str]],
) -> None:
    held = [Insight("x", 2, 1)]
    apply(held, operations, 4)  # type: ignore[arg-type]
    assert all(i.strength > 0 for i in held)
    assert len(held) <= 4


def test_insights_compare_a_success_with_the_failure_before_it_and_vote() -> None:
    memory = Memory()
    memory.add(Record("episode", "I sang and failed.", data={"success": False}, task="cell"))
    old = memory.add(Record("insight", "Sing.", data={"strength": 1}))
    llm = ScriptedLLM(["REMOVE 1: no\nADD: Open doors."])
    changes = Insights().consolidate([WON], {WON.id: YES}, memory, llm)
    prompt = llm.requests[0].messages[0].content
    assert "I sang and failed." in prompt
    assert "Action 1: open door" in prompt
    assert "1. Sing." in prompt
    assert changes.removed == (old,)
    changes.apply(memory)
    (insight,) = memory.records(Where(kinds=("insight",)))
    assert (insight.text, insight.data["strength"]) == ("Open doors.", 2)
    Insights().consolidate([WON], {WON.id: YES}, memory, ScriptedLLM(["AGREE 1"])).apply(memory)
    assert memory.get(insight.id).data["strength"] == 3


def test_insights_of_several_successes_and_none_of_failures_alone() -> None:
    other = replace(WON, id="run/0/2", task=Task("attic", name="attic"), goal="get down")
    llm = ScriptedLLM(["ADD: Open things."])
    changes = Insights().consolidate([WON, other], {WON.id: YES, other.id: YES}, Memory(), llm)
    assert [r.text for r in changes.added] == ["Open things."]
    assert "Task: get down" in llm.requests[0].messages[0].content
    assert Insights().consolidate([LOST], {LOST.id: NO}, Memory(), ScriptedLLM([])).added == ()


def test_contrast_is_drawn_once_a_task() -> None:
    memory, llm = Memory(), ScriptedLLM(["Open the door at once.", "again"])
    changes = Contrast().consolidate([LOST, WON], {LOST.id: NO, WON.id: YES}, memory, llm)
    changes.apply(memory)
    (lesson,) = memory.records()
    assert (lesson.text, lesson.task, lesson.data["kind"]) == ("Open the door at once.", "cell", "contrast")
    prompt = llm.requests[0].messages[0].content
    assert prompt.index("Action 1: wait") < prompt.index("Action 1: open door")
    assert Contrast().consolidate([LOST, WON], {LOST.id: NO, WON.id: YES}, memory, llm).added == ()


@pytest.mark.parametrize("part", [Contrast(), Insights(comparisons=1)])
def test_a_success_is_held_against_the_failure_just_before_it(part: Contrast | Insights) -> None:
    memory, llm = Memory(), ScriptedLLM(["ADD: Open doors."])
    memory.add(Record("episode", "Long ago I sang.", data={"success": False}, task="cell"))
    part.consolidate([LOST, WON], {LOST.id: NO, WON.id: YES}, memory, llm)
    prompt = llm.requests[0].messages[0].content
    assert "Action 1: wait" in prompt
    assert "Long ago I sang." not in prompt


def test_tool_documents_are_revised_until_they_settle() -> None:
    memory = Memory()
    failing = replace(WON, steps=(*WON.steps, replace(STEP, action=Action("open sesame"), feedback="No such thing.")))
    llm = ScriptedLLM(
        ["Opens a named thing.", "Opens a named thing, if it is there.", "Opens a named thing if it is there."]
    )
    for _ in range(4):
        docs = ToolDocs(docs={"open": "Opens."})
        docs.consolidate([failing], {failing.id: YES}, memory, llm).apply(memory)
    (doc,) = memory.records(Where(kinds=("tool",)))
    assert doc.text == "open: Opens a named thing if it is there."
    assert doc.data == {"tool": "open", "settled": True}
    assert len(llm.requests) == 3
    first = llm.requests[0].messages[0].content
    assert first.index("open sesame") < first.index("open door")
    assert "Opens." in first
    assert "(No such thing.)" in first


def test_the_tool_of_an_action() -> None:
    assert tool_of('{"name": "move", "arguments": {}}') == "move"
    assert tool_of("Search[x]") == "Search"
    assert tool_of("???") == ""


def test_several_reflectors_each_have_their_say_once() -> None:
    llm = ScriptedLLM(["I waited.", "wait in the cell", "I waited."])
    both = Several((VerbalReflector(), Hindsight(), VerbalReflector()))
    lessons = both.reflect(LOST, NO, ["earlier"], llm)
    assert [(lesson.kind, lesson.text) for lesson in lessons] == [
        ("reflection", "I waited."),
        ("hindsight", "To wait in the cell: wait."),
    ]
    assert "- earlier" in llm.requests[2].messages[0].content


def test_the_number_of_comparisons_in_a_round_is_bounded() -> None:
    other = replace(WON, id="run/0/2", task=Task("attic", name="attic"), goal="get down")
    memory = Memory()
    memory.add(Record("episode", "I failed.", data={"success": False}, task="cell"))
    judged = {WON.id: YES, other.id: YES}
    llm = ScriptedLLM(["ADD: a", "ADD: b"])
    Insights(comparisons=1).consolidate([WON, other], judged, memory, llm)
    assert len(llm.requests) == 1
    Insights().consolidate([WON, other], judged, memory, llm := ScriptedLLM(["ADD: a", "ADD: b"]))
    assert len(llm.requests) == 2
