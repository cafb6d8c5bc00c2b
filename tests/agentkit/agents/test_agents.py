"""Every published agent, in a world of three doors: what it remembers reaches its prompt, and moves what it does.

The model is scripted and reads only the prompt: it takes the door that something it was shown speaks well of, else red.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest

from agentkit import registry
from agentkit.agent import Agent
from agentkit.agents.clin import clin
from agentkit.agents.expel import expel
from agentkit.agents.icl import icl
from agentkit.agents.memories import RecallRoutines, RecallWays, RememberWays
from agentkit.agents.random import random
from agentkit.agents.react import react
from agentkit.agents.reflexion import reflexion
from agentkit.agents.retry import retry
from agentkit.agents.self_consistency import self_consistency
from agentkit.agents.self_refine import self_refine
from agentkit.agents.voyager import skill_of, voyager
from agentkit.critic.base import EnvironmentCritic
from agentkit.critic.ensemble import WithSteps
from agentkit.critic.judge import StepJudge
from agentkit.envs import text_space
from agentkit.envs.sandbox import Sandbox
from agentkit.errors import InvalidValue
from agentkit.llm import ScriptedLLM
from agentkit.memory import Memory, Record, Where
from agentkit.policy.generate import ReAct
from agentkit.policy.simple import Resume
from agentkit.runner import Run, run
from agentkit.types import Options, Request, Task, View

DOORS = ("red", "green", "blue")


class Doors(gymnasium.Env[str, str]):
    """One choice: the door named by the option is right. ``program`` makes the action a program that must print it."""

    def __init__(self, program: bool = False) -> None:
        self.observation_space = text_space()
        self.action_space = text_space()
        self.program = program
        self.sandbox = Sandbox()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.right = (options or {}).get("right", "blue")
        return "Three doors.", {
            "goal": "Go through the right door.",
            "admissible_actions": None if self.program else [*DOORS],
        }

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        chosen = self.sandbox.run(action).stdout.strip() if self.program else action
        won = chosen == self.right
        said = f"The {chosen} door was {'right' if won else 'wrong'}."
        return said, float(won), True, False, {"success": won}

    def close(self) -> None:
        self.sandbox.close()


if "tests/Doors-v0" not in gymnasium.registry:
    gymnasium.register("tests/Doors-v0", Doors, disable_env_checker=True)  # type: ignore[arg-type]
    gymnasium.register("tests/ProgramDoors-v0", Doors, disable_env_checker=True, kwargs={"program": True})  # type: ignore[arg-type]

ONE = [Task("tests/Doors-v0", name="one")]
TWO = [Task("tests/Doors-v0", name="one"), Task("tests/Doors-v0", name="two", options=Options({"right": "blue"}))]


def model(request: Request) -> str:
    """Reads the prompt, and nothing else."""
    prompt = request.messages[-1].content
    if prompt.endswith("Reflection:"):
        wrong = re.search(r"The (\w+) door was wrong", prompt)
        return f"I took {wrong[1] if wrong else 'nothing'}. I should take blue."
    if prompt.endswith("Statements:"):
        return "- taking blue SHOULD BE NECESSARY TO winning\n- I like doors"
    if prompt.endswith("Operations:"):
        return "ADD: One should take blue."
    if "does and when to use it" in prompt:
        return "Opens the blue door."
    if "Python program" in prompt:
        if "def go_blue" in prompt:
            return "```python\ngo_blue()\n```"
        return "```python\ndef go_blue():\n    '''Goes.'''\n    print('blue')\ngo_blue()\n```"
    if "The answer you want to give:" in prompt:
        return "no change needed" if "give:\nblue" in prompt else "Red is wrong; take blue."
    if "Write the improved answer" in prompt:
        return "blue"
    controls, executes = prompt.endswith("Next goal: the goal"), "Next goal:" in prompt
    if executes and not controls:  # what the executor is told of experience is the goal
        return next(door for door in DOORS if f"Next goal: {door}" in prompt)
    advice = prompt.rpartition("Task:")[0]
    liked = re.findall(
        r"(?:take|taking|The) (red|green|blue)(?: door was right|\b(?! door was wrong)(?! DOES NOT))", advice
    )
    door = liked[-1] if liked else "red"
    if controls:
        return f"I learned what opens.\nNext goal: {door}."
    return f"it may be {door}\nAction: {door}" if prompt.rstrip().endswith(":") and "Thought" in prompt else door


Make = Callable[[ScriptedLLM, Memory], Agent]

LEARNERS: dict[str, Make] = {
    "reflexion": lambda llm, memory: reflexion(llm, memory, policy=ReAct()),
    "reflexion, both": lambda llm, memory: reflexion(llm, memory, policy=ReAct(), strategy="both"),
    "clin": lambda llm, memory: clin(llm, memory),
    "expel": lambda llm, memory: expel(llm, memory, phase="online"),
    "icl": lambda llm, memory: icl(llm, memory),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_learned_is_in_the_next_prompt_and_is_named_by_the_step(name: str) -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    agent = LEARNERS[name](llm, memory)
    played = run(agent, ONE, trials=3)
    first, second, third = played.episodes
    assert not first.memory_ids
    assert second.memory_ids, "nothing of the first trial was shown in the second"
    for id_ in third.memory_ids:
        assert memory.get(id_).id == id_
    if name != "icl":  # the context of naive in-context learning holds the failures too, and no advice
        assert [e.success for e in (second, third)][-1]
    assert not any("never reached" in note for note in played.notes)


@pytest.mark.parametrize("name", LEARNERS)
def test_changing_one_record_changes_the_prompt_and_removing_it_takes_it_out(name: str) -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    agent = LEARNERS[name](llm, memory)
    shown = run(agent, ONE, trials=3).episodes[-1].memory_ids

    def prompt_of() -> tuple[str, tuple[int, ...]]:
        llm.requests.clear()
        action = agent.act(View(ONE[0], "Go through the right door.", "Three doors.", admissible=DOORS))
        return llm.requests[0].messages[0].content, action.memory_ids

    for id_ in shown:
        before, ids = prompt_of()
        if id_ not in ids:
            continue
        memory.edit(id_, text=f"zebra {id_}")
        changed, _ = prompt_of()
        assert f"zebra {id_}" in changed
        assert changed != before
        memory.remove(id_)
        gone, left = prompt_of()
        assert f"zebra {id_}" not in gone
        assert id_ not in left


def test_swapping_the_lessons_of_two_tasks_misleads_reflexion() -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    agent = reflexion(llm, memory, policy=ReAct())
    other = Task("tests/Doors-v0", name="other", options=Options({"right": "red"}))
    run(agent, [ONE[0], other], trials=2)
    (lesson,) = memory.records(Where(kinds=("lesson",)))
    assert lesson.task == "one"
    view = View(other, "Go through the right door.", "Three doors.", admissible=DOORS)
    assert agent.act(view).text == "red"
    memory.edit(lesson.id, task="other")
    assert agent.act(view).text == "blue"
    assert agent.act(View(ONE[0], "Go through the right door.", "Three doors.", admissible=DOORS)).text == "red"


def test_reflexion_reflects_on_failures_alone_and_shows_the_last_lessons() -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    run(reflexion(llm, memory, policy=ReAct(), lessons=1), ONE, trials=3)
    assert [r.data["kind"] for r in memory.records()] == ["reflection"]
    asked = [r for r in llm.requests if r.messages[0].content.endswith("Reflection:")]
    assert len(asked) == 1
    assert "The red door was wrong." in asked[0].messages[0].content
    with pytest.raises(InvalidValue):
        reflexion(llm, memory, strategy="none")  # type: ignore[arg-type]


def test_last_attempt_strategy_shows_the_attempt_and_asks_for_no_reflection() -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    run(reflexion(llm, memory, policy=ReAct(), strategy="last_attempt"), ONE, trials=2)
    assert not any(r.messages[0].content.endswith("Reflection:") for r in llm.requests)
    assert "The red door was wrong." in llm.requests[-1].messages[0].content


def test_clins_controller_sees_the_memory_and_its_executor_the_goal() -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    _, second = run(clin(llm, memory), ONE, trials=2).episodes
    (lesson, *_) = memory.records(Where(kinds=("lesson",)))
    controller, executor = [r.messages[0].content for r in llm.requests if "Next goal:" in r.messages[0].content][-2:]
    assert lesson.text in controller
    assert lesson.text not in executor
    assert "Next goal: blue\n" in executor
    assert (second.steps[0].action.text, second.steps[0].action.thought) == ("blue", "blue")
    assert second.memory_ids == (lesson.id,)


def test_clin_makes_a_meta_memory_for_a_task_not_met_before() -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    run(clin(llm, memory, setting="environment"), TWO, trials=3)
    (meta,) = memory.records(Where(kinds=("meta",)))
    assert meta.text == "taking blue SHOULD BE NECESSARY TO winning."
    new = View(Task("tests/Doors-v0", name="new"), "Go through the right door.", "Three doors.", admissible=DOORS)
    action = clin(llm, memory, setting="environment").act(new)
    assert (action.text, action.memory_ids) == ("blue", (meta.id,))
    assert clin(llm, memory, setting="adapt").act(new).text == "red"


def test_expel_votes_on_insights_and_shows_them_in_the_apply_phase() -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    run(expel(llm, memory, phase="gather"), TWO, trials=2)
    (insight,) = memory.records(Where(kinds=("insight",)))
    assert (insight.text, insight.data["strength"]) == ("One should take blue.", 2)
    applying = expel(llm, memory, phase="apply")
    new = View(Task("tests/Doors-v0", name="new"), "Go through the right door.", "Three doors.", admissible=DOORS)
    action = applying.act(new)
    assert action.text == "blue"
    assert insight.id in action.memory_ids
    assert {memory.get(i).kind for i in action.memory_ids} == {"insight", "episode"}
    assert all(memory.get(i).data.get("success", True) for i in action.memory_ids)


def test_retry_repeats_what_worked_and_nothing_else() -> None:
    memory = Memory()
    answers = iter(["red", "green", "blue", "red", "red"])
    llm = ScriptedLLM(lambda request: f"Action: {next(answers)}")
    played = run(retry(llm, memory), ONE, trials=5)
    assert played.success_by_trial == [0, 0, 1, 1, 1]
    assert len(llm.requests) == 3
    *_, shown, way = memory.records(Where(kinds=("way",)))
    assert played.episodes[-1].memory_ids == (shown.id,)
    memory.edit(way.id, data={**way.data, "actions": ["green"]})
    assert retry(llm, memory).act(View(ONE[0], "", "Three doors.", admissible=DOORS)).text == "green"


def test_self_refine_follows_its_own_feedback_until_it_asks_for_no_change() -> None:
    llm = ScriptedLLM(model)
    played = run(self_refine(llm), ONE)
    assert played.success_by_trial == [1.0]
    draft, feedback, refined, done = [r.messages[0].content for r in llm.requests]
    assert "Answer with the next action alone" in draft
    assert "The answer you want to give:\nred" in feedback
    assert "Red is wrong; take blue." in refined
    assert "The answer you want to give:\nblue" in done


def test_self_consistency_samples_with_different_seeds() -> None:
    llm = ScriptedLLM(lambda request: "Action: blue" if (request.seed or 0) % 3 else "Action: red")
    played = run(self_consistency(llm, samples=9), ONE)
    assert played.success_by_trial == [1.0]
    assert len({r.seed for r in llm.requests}) == 9
    llm = ScriptedLLM(lambda request: "Action: blue")
    run(self_consistency(llm, samples=9, how="adaptive"), ONE)
    assert len(llm.requests) == 4


def test_react_and_random_keep_nothing() -> None:
    played: Run = run(react(ScriptedLLM(model)), ONE, trials=2)
    assert played.success_by_trial == [0, 0]
    assert run(random(), ONE, trials=1).episodes[0].steps[0].action.text in DOORS


def test_voyager_keeps_the_program_that_succeeded_and_calls_it_by_name() -> None:
    memory, llm = Memory(), ScriptedLLM(model)
    task = [Task("tests/ProgramDoors-v0", name="program")]
    with Sandbox() as sandbox:
        agent = voyager(llm, memory, sandbox, instructions="print(door) opens a door.")
        played = run(agent, task, trials=2)
    assert played.success_by_trial == [1, 1]
    (skill,) = memory.records(Where(kinds=("skill",)))
    assert skill.data["description"] == "Opens the blue door."
    assert skill.data["evidence"] == played.episodes[0].id
    second = played.episodes[1]
    assert second.memory_ids == (skill.id,)
    assert second.steps[0].action.text.count("def go_blue") == 1
    assert second.steps[0].action.text.rstrip().endswith("go_blue()")

    llm.requests.clear()
    view = View(task[0], "Go through the right door.", "Three doors.")
    memory.edit(skill.id, text="def go_zebra(): ...")
    agent.act(view)
    assert "go_zebra" in llm.requests[0].messages[0].content
    memory.remove(skill.id)
    assert agent.act(view).memory_ids == ()


def test_the_skill_in_a_program() -> None:
    program = "import math\ndef helper():\n    return 1\ndef old():\n    pass\ndef main():\n    return helper()\nmain()"
    name, code = skill_of(program, {"old"})
    assert name == "main"
    assert "import math" in code
    assert "def helper" in code
    assert "def old" not in code
    assert skill_of("print(1)", set()) == ("", "")
    assert skill_of("def f(:", set()) == ("", "")


def test_voyager_without_a_sandbox_says_so() -> None:
    with pytest.raises(InvalidValue, match="Sandbox"):
        run(voyager(ScriptedLLM(model), Memory()), [Task("tests/ProgramDoors-v0", name="p")])


@pytest.mark.parametrize("name", LEARNERS)
def test_results_do_not_depend_on_the_number_of_workers(name: str) -> None:
    prints = {
        run(LEARNERS[name](ScriptedLLM(model), Memory()), TWO, trials=2, workers=workers).fingerprint()
        for workers in (1, 2)
    }
    assert len(prints) == 1


class Hall(gymnasium.Env[str, str]):
    """Two right doors in a row; after a wrong one nothing more can be reached."""

    def __init__(self) -> None:
        self.observation_space = self.action_space = text_space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0
        return "The first door.", {"goal": "Get out.", "admissible_actions": [*DOORS]}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.place = self.place + 1 if action == ("green", "blue")[self.place] else -1
        success = self.place == 2
        said = ("The second door.", "Outside.", "A dead end.")[self.place - 1] if self.place > 0 else "A dead end."
        info = {"success": success, "admissible_actions": [*DOORS]}
        return said, float(success), success or self.place < 0, False, info


if "tests/Hall-v0" not in gymnasium.registry:
    gymnasium.register("tests/Hall-v0", Hall, disable_env_checker=True)  # type: ignore[arg-type]


def test_the_next_trial_goes_back_to_before_the_first_mistake() -> None:
    def answers(request: Request) -> str:
        prompt = request.messages[-1].content
        if "first action that was a mistake" in prompt:
            return "2: that door leads nowhere"
        return f"Action: {next(doors)}"

    doors = iter(["green", "red", "blue"])
    memory, llm = Memory(), ScriptedLLM(answers)
    agent = Agent(
        llm,
        Resume(ReAct()),
        memory=memory,
        critic=WithSteps(EnvironmentCritic(), StepJudge()),
        remember=RememberWays(),
        recall=RecallWays(),
    )
    first, second, third = run(agent, [Task("tests/Hall-v0", name="hall")], trials=3).episodes
    assert [s.action.text for s in first.steps] == ["green", "red"]
    assert [s.action.text for s in second.steps] == ["green", "blue"]
    assert [bool(s.action.memory_ids) for s in second.steps] == [True, False]
    assert [s.action.text for s in third.steps] == ["green", "blue"]
    assert [e.success for e in (first, second, third)] == [False, True, True]
    assert all(s.action.memory_ids for s in third.steps)


@pytest.mark.parametrize("kind", ["agents", "policies", "critics", "reflectors"])
def test_everything_is_found_by_name(kind: str) -> None:
    for name in registry.names(kind):
        assert callable(registry.get(kind, name)), name


def test_routines_are_the_nearest_ways_each_once() -> None:
    memory = Memory()
    for goal, actions in (
        ("dig a hole", "dig"),
        ("fell a tree", "chop"),
        ("dig a hole", "dig"),
        ("sing a song", "sing"),
    ):
        memory.add(Record("way", f"Solved by: {actions}.", key=f"{goal}\nA meadow.", data={"success": True}))
    memory.add(Record("way", "Good so far: look.", key="dig a hole\nA meadow.", data={"success": False}))
    seen = RecallRoutines(k=2)(View(Task("meadow"), "dig a hole", "A meadow."), memory)
    assert seen.skills[0].record.text == "Solved by: dig."
    assert len({s.record.text for s in seen.skills}) == 2
    assert all(s.record.data["success"] for s in seen.skills)
