"""The curricula, and the loop that lets one propose and an agent attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentkit import parsing
from agentkit.agent import Agent
from agentkit.curriculum.base import Attempted, BySuccess, Fixed, Goals, Progress
from agentkit.curriculum.proposed import LMA3, ProposerEvaluator, VoyagerCurriculum, subgoals_of
from agentkit.errors import InvalidValue
from agentkit.explore import explore
from agentkit.llm import ScriptedLLM
from agentkit.policy.simple import Random
from agentkit.types import Action, Episode, Judgement, Step, StopReason, Task

A, B = Task("cell", name="a"), Task("cell", name="b")
STEP = Step("", Action("dig"), 0.0, "Health: 9\nBiome: plains\nInventory: 2 wood")


def attempted(task: Task, success: bool) -> Attempted:
    episode = Episode(f"e/{task.name}", task, 0, 0, task.name, (STEP,), StopReason.FAILURE, success, 0.0)
    return Attempted(episode, Judgement(success, float(success)))


def test_fixed_leaves_a_task_when_it_is_solved_or_used_up() -> None:
    curriculum = Fixed((A, B), attempts=2)
    assert curriculum.propose(Progress(), None) == A
    assert curriculum.propose(Progress((attempted(A, False),)), None) == A
    assert curriculum.propose(Progress((attempted(A, True),)), None) == B
    assert curriculum.propose(Progress((attempted(A, False), attempted(A, False), attempted(B, True))), None) is None


def test_by_success_prefers_what_is_neither_solved_nor_hopeless() -> None:
    c = Task("cell", name="c")
    known = [attempted(A, True)] * 4 + [attempted(B, False)] * 4 + [attempted(c, True), attempted(c, False)]
    weights = BySuccess((A, B, c), floor=0.1).weights(Progress(tuple(known)))
    assert weights == pytest.approx([0.1 / 1.2, 0.1 / 1.2, 1 / 1.2])
    drawn = [BySuccess((A, B, c), floor=0.0).propose(Progress(tuple(known), seed=s), None) for s in range(5)]
    assert drawn == [c] * 5
    assert BySuccess((A, B)).weights(Progress()) == pytest.approx([0.5, 0.5])
    with pytest.raises(InvalidValue):
        BySuccess(())


def test_a_goal_is_read_from_its_label_or_the_last_line() -> None:
    assert parsing.goal("Wood is near.\nTask: Mine 1 wood log.") == "Mine 1 wood log"
    assert parsing.goal("**Next task:** dig") == "dig"
    assert parsing.goal("dig a hole") == "dig a hole"
    assert parsing.goal(" ") is None


def test_voyager_is_told_the_state_the_done_and_the_failed_and_warms_up() -> None:
    curriculum = VoyagerCurriculum(
        goals=Goals("world"), first="Collect wood", warm_up=(("biome", 1), ("inventory", 2)), limit=5
    )
    assert curriculum.propose(Progress(), None) == Task("world", goal="Collect wood", name="Collect wood")
    llm = ScriptedLLM(["Because.\nTask: Make a table", "Task: x"])
    tried = (attempted(A, False), attempted(B, True))
    task = curriculum.propose(Progress(tried), llm)
    assert task is not None
    assert (task.goal, task.env_id) == ("Make a table", "world")
    prompt = llm.requests[0].messages[0].content
    assert "Health: 9" in prompt
    assert "Biome" in prompt
    assert "Inventory" not in prompt
    assert "Done so far: b" in prompt
    assert "failed so far: a" in prompt
    curriculum.propose(Progress((*tried, attempted(A, True))), llm)
    assert "Inventory: 2 wood" in llm.requests[1].messages[0].content
    assert curriculum.propose(Progress(tried * 3), llm) is None


def test_lma3_proposes_with_subgoals_relabels_and_rewards() -> None:
    lma3 = LMA3(goals=Goals("world"))
    task = lma3.propose(
        Progress((attempted(A, True),)), ScriptedLLM(["Goal: build a hut\nSubgoals: get wood; stack it"])
    )
    assert task is not None
    assert task.goal == "build a hut (by: get wood; stack it)"
    assert subgoals_of(task.goal) == ["get wood", "stack it"]
    episode = attempted(A, False).episode
    assert lma3.relabel(episode, ScriptedLLM(["- dug a hole.\n- got dirt"])) == ["dug a hole", "got dirt"]
    assert lma3.relabel(episode, ScriptedLLM(["none"])) == []
    llm = ScriptedLLM(["Yes, it did."])
    assert lma3.reached(episode, "a hole", llm)
    assert "a hole" in llm.requests[0].messages[0].content


def test_pae_proposes_batches_from_the_context_and_evaluates_the_outcome() -> None:
    llm = ScriptedLLM(lambda r: "1. dig\n2. chop" if "do not propose" not in r.messages[0].content else "1. fly")
    pae = ProposerEvaluator(goals=Goals("world"), context="A meadow with a spade.", batch=2)
    tasks: list[Task] = []
    for _ in range(3):
        done = tuple(attempted(task, True) for task in tasks)
        task = pae.propose(Progress(done), llm)
        assert task is not None
        tasks.append(task)
    assert [t.goal for t in tasks] == ["dig", "chop", "fly"]
    assert "A meadow with a spade." in llm.requests[0].messages[0].content
    judged = pae.judge(attempted(A, False).episode, ScriptedLLM(["Score: 1"]))
    assert judged.success


def test_progress_lists_goals_once() -> None:
    progress = Progress((attempted(A, False), attempted(A, True), attempted(B, False), attempted(B, False)))
    assert (progress.done, progress.failed) == (["a"], ["b"])
    assert progress.state.startswith("Health")
    assert Progress().state == ""


def test_explore_runs_each_proposal_and_tells_the_curriculum_what_came_of_it() -> None:
    ids = [Task("agentkit/FrozenLake-v0", seed=s, name=f"lake {s}") for s in range(2)]
    agent = Agent(None, Random(), name="walker")
    seen: list[Episode] = []
    found = explore(agent, Fixed(tuple(ids), attempts=2), tasks=9, max_steps=5, progress=lambda e, j: seen.append(e))
    assert [a.episode for a in found.attempted] == seen
    names = [e.task.name for e in seen]
    for task in ids:
        assert names.count(task.name) == 2 or any(e.success for e in seen if e.task.name == task.name)
    assert [r.name for r in found.runs] == [f"walker/{i}" for i in range(len(seen))]
    again = explore(agent, Fixed(tuple(ids), attempts=2), tasks=9, max_steps=5)
    assert [r.fingerprint() for r in again.runs] == [r.fingerprint() for r in found.runs]
    assert len({e.seed for e in seen}) == len(seen)


def test_explore_tries_again_until_the_critic_is_content() -> None:
    class Third:
        def __init__(self) -> None:
            self.asked = 0

        def judge(self, episode: Episode, llm: object) -> Judgement:
            self.asked += 1
            return Judgement(self.asked == 3, 0.0)

    critic = Third()
    agent = Agent(None, Random(), critic=critic)
    found = explore(agent, Fixed((replace(A, env_id="agentkit/FrozenLake-v0"),)), attempts=5, max_steps=3)
    assert critic.asked == 3
    assert [a.judgement.success for a in found.attempted] == [False, False, True]
    with pytest.raises(InvalidValue):
        explore(agent, Fixed(()), tasks=0)
