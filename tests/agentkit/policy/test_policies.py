"""The policies: what they show the model, what they read from it, and what they do when it cannot be read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from agentkit.errors import ContractError, InvalidValue
from agentkit.llm import ScriptedLLM
from agentkit.llm.base import LLM
from agentkit.memory import Recalled, Record
from agentkit.policy.base import Policy
from agentkit.policy.call import FunctionCall, Tool
from agentkit.policy.choose import Choose
from agentkit.policy.consistent import Consistent
from agentkit.policy.generate import ChooseListed, Direct, ReAct
from agentkit.policy.program import Program, new_functions
from agentkit.policy.simple import Random, Resume
from agentkit.types import Action, Options, Step, Task, View

STEP = Step("A cell.", Action("look", thought="where am I"), 0.0, "A cell with a door.")
VIEW = View(
    Task("cell", goal="get out"),
    "get out",
    "A cell with a door.",
    admissible=("open door", "look"),
    history=(STEP,),
    step=1,
    seed=7,
)


def recalled(text: str, id_: int, kind: str = "lesson", **data: object) -> Recalled:
    return Recalled(Record(kind, text, data=data, id=id_), 1.0, 1.0)


def skill(name: str, code: str, id_: int, requires: tuple[str, ...] = ()) -> Recalled:
    data = {
        "name": name, "code": code, "description": f"does {name}", "signature": f"def {name}():", "requires": requires,
        "tests": "", "evidence": "e", "version": 1, "reason": "", "verified_with": {}, "held": False,
    }  # fmt: skip
    return Recalled(Record("skill", f"def {name}():\n    does {name}", data=data, id=id_), 1.0, 1.0)


POLICIES: list[tuple[Policy, str]] = [
    (Direct(), "open door"),
    (ReAct(), "Thought: out.\nAction: open door"),
    (ChooseListed(), "1"),
]


@pytest.mark.parametrize(("policy", "answer"), POLICIES)
def test_what_was_seen_is_in_the_prompt_and_the_action_is_read(policy: Policy, answer: str) -> None:
    llm = ScriptedLLM([answer])
    action = policy.act(VIEW, llm)
    assert (action.text, action.valid) == ("open door", True)
    (request,) = llm.requests
    prompt = request.messages[0].content
    assert request.seed == VIEW.seed
    for seen in ("get out", "A cell.", "look", "A cell with a door.", "open door"):
        assert seen in prompt


@pytest.mark.parametrize(("policy", "answer"), POLICIES)
def test_every_record_in_the_prompt_is_named_by_the_action_and_no_other(policy: Policy, answer: str) -> None:
    shown = replace(
        VIEW,
        lessons=(recalled("doors open inwards", 3),),
        memories=(recalled("last time I waited", 5, "episode"), recalled("long " * 20_000, 6, "episode")),
        skills=(recalled("def knock():", 8, "skill"),),
    )
    llm = ScriptedLLM([answer])
    action = policy.act(shown, llm)
    prompt = llm.requests[0].messages[0].content
    assert set(action.memory_ids) == {3, 5, 8}
    for text in ("doors open inwards", "last time I waited", "def knock():"):
        assert text in prompt
    assert "long long" not in prompt


@pytest.mark.parametrize(("policy", "answer"), POLICIES)
def test_an_unreadable_answer_is_sent_back_and_then_is_invalid(policy: Policy, answer: str) -> None:
    llm = ScriptedLLM(["hm, what now", answer])
    assert policy.act(VIEW, llm).valid
    asked, again = llm.requests
    assert [m.role for m in again.messages] == ["user", "assistant", "user"]
    assert again.messages[0] == asked.messages[0]
    assert again.messages[1].content == "hm, what now"
    assert again.seed != asked.seed

    llm = ScriptedLLM(["hm, what now", "well well"])
    lost = policy.act(VIEW, llm)
    assert (lost.text, lost.valid) == ("well well", False)
    assert len(llm.requests) == 2


def test_a_react_thought_is_kept_and_the_models_own_observations_are_not_asked_for() -> None:
    llm = ScriptedLLM(["The door may be open.\nAction 2: open door\nObservation 2: you are free"])
    action = ReAct().act(VIEW, llm)
    assert action == Action("open door", thought="The door may be open.")
    assert llm.requests[0].stop == ("\nObservation",)
    assert llm.requests[0].messages[0].content.endswith("Thought 2:")


def test_history_is_cut_to_the_last_steps_with_their_opening_observation() -> None:
    steps = tuple(Step(f"room {i}", Action(f"go {i}"), 0.0, f"room {i + 1}") for i in range(5))
    llm = ScriptedLLM(["look"])
    Direct(history=2).act(replace(VIEW, history=steps), llm)
    prompt = llm.requests[0].messages[0].content
    assert "room 2" not in prompt
    assert "room 3" in prompt
    assert "Action 4: go 3" in prompt
    assert "Action 3:" not in prompt


def test_a_policy_without_its_model_or_actions_says_what_to_do() -> None:
    with pytest.raises(ContractError, match="give the agent an llm"):
        Direct().act(VIEW, None)
    with pytest.raises(ContractError, match="react"):
        ChooseListed().act(replace(VIEW, admissible=None), ScriptedLLM())


def test_a_changed_prompt_is_a_changed_configuration(tmp_path: Path) -> None:
    (tmp_path / "direct.jinja").write_text("Now: {{ view.goal }}")
    llm = ScriptedLLM(["look"])
    own = Direct(prompt_folder=str(tmp_path))
    own.act(VIEW, llm)
    assert llm.requests[0].messages[0].content == "Now: get out"
    assert repr(own).partition("prompt=")[2][:19] != repr(Direct()).partition("prompt=")[2][:19]


@pytest.mark.parametrize("changed", ["_context", "reask"])
def test_a_prompt_that_another_includes_or_falls_back_on_counts_too(changed: str, tmp_path: Path) -> None:
    before = repr(ReAct(prompt_folder=str(tmp_path)))
    (tmp_path / f"{changed}.jinja").write_text("Other.")
    assert repr(ReAct(prompt_folder=str(tmp_path))) != before


def test_a_program_gets_the_skills_it_calls_and_those_they_require_and_no_others() -> None:
    skills = (
        skill("unlock", "def unlock():\n    push()", 1, ("push",)),
        skill("push", "def push():\n    return 'pushed'", 2),
        skill("sing", "def sing():\n    return 'la'", 3),
    )
    answer = "I unlock it.\n```python\ndef escape():\n    unlock()\nescape()\n```"
    action = Program().act(replace(VIEW, skills=skills), ScriptedLLM([answer]))
    assert action.thought == "I unlock it."
    assert action.text.index("def push") < action.text.index("def unlock") < action.text.index("def escape")
    assert "sing" not in action.text
    assert action.memory_ids == (1, 2, 3)
    assert list(new_functions(action.text, ["push", "unlock"])) == ["escape"]


def test_a_program_that_does_not_compile_is_invalid_after_the_re_ask() -> None:
    llm = ScriptedLLM(["def f(:", "def g(:"])
    assert not Program().act(VIEW, llm).valid
    assert len(llm.requests) == 2


def test_a_function_call_has_one_notation_whatever_the_model_wrote() -> None:
    tool = Tool("move", "goes there", Options({"properties": {"to": {"type": "string"}}, "required": ["to"]}))
    for answer in ('{"name": "move", "arguments": {"to": "hall"}}', "move('hall')", "Move(to='hall')"):
        assert FunctionCall(tools=(tool,)).act(VIEW, ScriptedLLM([answer])).text == (
            '{"name": "move", "arguments": {"to": "hall"}}'
        )
        assert FunctionCall(tools=(tool,), form="python").act(VIEW, ScriptedLLM([answer])).text == "move(to='hall')"
    assert not FunctionCall(tools=(tool,), reasks=0).act(VIEW, ScriptedLLM(["move()"])).valid
    llm = ScriptedLLM(["move(to='hall')"])
    FunctionCall(tools=(tool,), constrained=True).act(VIEW, llm)
    assert llm.requests[0].schema is not None
    assert "goes there" in llm.requests[0].messages[0].content


def test_an_action_repeated_in_the_same_situation_becomes_less_likely() -> None:
    llm = ScriptedLLM(scorer=lambda request: [0.0 for _ in request.choices or ()])
    here = replace(STEP, observation=VIEW.observation, admissible=VIEW.admissible)
    elsewhere = replace(STEP, admissible=VIEW.admissible)

    def chosen(*history: Step) -> Action:
        return Choose(repeat_penalty=50.0).act(replace(VIEW, history=history), llm)

    assert {chosen(here).text, chosen(here, here).text} == {"open door"}
    assert chosen(here).logprob == pytest.approx(0.0, abs=1e-9)
    assert chosen(elsewhere).logprob == pytest.approx(-math.log(2))
    assert chosen(here, replace(here, action=Action("open door"))).logprob == pytest.approx(-math.log(2))


def test_random_is_seeded_and_reaches_every_action() -> None:
    drawn = {Random().act(replace(VIEW, seed=s), None).text for s in range(40)}
    assert drawn == set(VIEW.admissible or ())
    assert Random().act(VIEW, None) == Random().act(VIEW, None)


def test_resume_repeats_the_way_while_the_world_is_the_same() -> None:
    way = recalled("", 4, "way", actions=["look", "open door"], observations=["A cell.", "A cell with a door."])
    policy = Resume(Direct())
    assert policy.act(replace(VIEW, memories=(way,)), None) == Action("open door", memory_ids=(4,))
    changed = replace(VIEW, memories=(way,), observation="A cell. The door is gone.")
    llm = ScriptedLLM(["look"])
    assert policy.act(changed, llm).text == "look"


class Fixed:
    """Says the actions in turn, whatever it sees."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.seeds: list[int] = []

    def act(self, view: View, llm: LLM | None) -> Action:
        self.seeds.append(view.seed)
        text = self.texts[len(self.seeds) - 1]
        return Action(text, valid=text != "?")


def test_majority_soft_and_adaptive_consistency() -> None:
    inner = Fixed("look", "open door", "?", "open door", "look")
    assert Consistent(inner, samples=4).act(VIEW, None).text == "open door"
    assert len(set(inner.seeds)) == 4

    scorer = ScriptedLLM(scorer=lambda request: [-9.0 if c == "look" else -0.1 for c in request.choices or ()])
    assert Consistent(Fixed("look", "look", "open door"), 3, "soft").act(VIEW, scorer).text == "open door"

    inner = Fixed(*["look"] * 40)
    assert Consistent(inner, samples=40, how="adaptive").act(VIEW, None).text == "look"
    assert len(inner.seeds) == 4  # Beta(5, 1) is the first with more than 95% above one half

    assert not Consistent(Fixed("?", "?"), 2).act(VIEW, None).valid
    with pytest.raises(InvalidValue):
        Consistent(Direct(), samples=0)
