"""The ablation: every arm's memory reaches the prompt, arms are paired, and the test of McNemar is exact."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from agentkit.agents.random import random
from agentkit.agents.reflexion import reflexion
from agentkit.bench.ablate import ARMS, Ablation, ablate, agent, mcnemar
from agentkit.bench.compare import Comparison
from agentkit.envs import text_space
from agentkit.errors import InvalidValue, UnknownName
from agentkit.llm import ScriptedLLM
from agentkit.llm.base import LLM
from agentkit.memory import Memory, Recalled, Record
from agentkit.policy.choose import Choose
from agentkit.policy.choose_shown import ChooseShown
from agentkit.policy.generate import ReAct
from agentkit.runlog import RunLogError
from agentkit.runner import Run, run
from agentkit.types import Action, Episode, Judgement, Options, Request, Step, StopReason, Task, View

ROOT = Path(__file__).parents[2]
DOORS = ("red", "green", "blue")


class OneDoor(gymnasium.Env[str, str]):
    """Blue is right; whatever is taken is said."""

    def __init__(self) -> None:
        self.observation_space = self.action_space = text_space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "Three doors.", {"goal": f"Find the way {(options or {}).get('n', 0)}.", "admissible_actions": [*DOORS]}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return f"You took {action}.", float(action == "blue"), True, False, {"success": action == "blue"}


if "tests/OneDoor-v0" not in gymnasium.registry:
    gymnasium.register("tests/OneDoor-v0", OneDoor, disable_env_checker=True)  # type: ignore[arg-type]

STEP = Step("A hall.", Action("go on"), 0.0, "Three doors.")
TASKS = [Task("tests/OneDoor-v0", name=f"way {n}", options=Options({"n": n})) for n in range(2)]


def scores(request: Request) -> list[float]:
    """Likes what the prompt speaks of most, a little."""
    said = request.messages[-1].content
    return [-2.0 + 0.5 * min(said.count(choice), 3) for choice in request.choices or ()]


def answers(request: Request) -> str:
    if request.messages[-1].content.endswith("Operations:"):
        return "ADD: Take blue."
    return "Action: green\nI failed. Take blue."


def test_every_arm_but_the_two_without_memory_shows_what_it_remembers() -> None:
    llm = ScriptedLLM(answers, scorer=scores)
    result = ablate(Choose(), TASKS, llm=llm, seeds=2, trials=4)
    assert result.arms == ARMS
    for arm in ARMS:
        used = [e for run in result.comparison.runs[arm] for e in run.episodes if e.memory_ids]
        assert bool(used) == (arm != "none"), arm
    assert "| none |" in str(result)


@pytest.mark.parametrize("arm", [a for a in ARMS if a != "none"])
def test_a_writing_policy_sees_the_arms_memory_too(arm: str) -> None:
    llm = ScriptedLLM(lambda r: "Action: blue" if r.messages[0].content.endswith("Thought 1:") else answers(r))
    fails = ScriptedLLM(answers)
    memory = Memory()
    run(agent(arm, ReAct(), fails, memory), TASKS, trials=1)
    played = run(agent(arm, ReAct(), llm, memory), TASKS, trials=2)
    shown = {memory.get(i).kind for e in played.episodes for i in e.memory_ids}
    expected = {
        "retry": {"way"}, "icl": {"episode"}, "recency": {"episode"}, "knn": {"episode"}, "reflections": {"lesson"},
        "insights": {"insight"}, "skills": {"way"}, "all": {"episode", "lesson", "insight", "way"},
    }  # fmt: skip
    assert shown == expected[arm]


def test_arms_have_the_same_seeds_and_equal_runs_are_equal() -> None:
    def once() -> Ablation:
        return ablate(Choose(), TASKS, llm=ScriptedLLM(answers, scorer=scores), arms=["retry"], seeds=2, trials=2)

    first, second = once(), once()
    assert first.arms == ("none", "retry")
    seeds = [[e.seed for e in first.comparison.runs[arm][1].episodes] for arm in first.arms]
    assert seeds[0] == seeds[1]
    assert first.rows() == second.rows()
    # Until something is remembered, the arms are the same agent.
    trials = [[e.success for e in first.comparison.runs[arm][0].episodes if e.trial == 0] for arm in first.arms]
    assert trials[0] == trials[1]


def test_each_arm_has_the_same_budget_and_what_is_spent_is_not_solved() -> None:
    llm = ScriptedLLM(answers, scorer=scores)
    result = ablate(Choose(), TASKS, llm=llm, arms=["reflections"], seeds=1, trials=2, tokens=60)
    assert all(int(str(row["tokens"])) <= 60 for row in result.rows())
    assert any("budget" in note for note in result.comparison.notes)


def test_without_memories_the_prompt_is_that_of_choose_to_the_letter() -> None:
    lesson = Recalled(Record("lesson", "What led nowhere: red.", id=1), 1.0, 1.0)
    view = View(TASKS[0], "Find the way.", "Three doors.", admissible=DOORS, lessons=(lesson,), history=(STEP,))
    prompts = []
    for policy in (Choose(history=1), ChooseShown(history=1)):
        llm = ScriptedLLM(scorer=scores)
        policy.act(view, llm)
        prompts.append(llm.requests[0].messages[0].content)
    assert prompts[0] == prompts[1]


KILLED_ARMS = ["knn", "reflections", "insights", "all"]


def killable(folder: str, die_at: int) -> str:
    """A program that plays an ablation in ``folder`` and kills itself at its ``die_at``-th model call."""
    return f"""
import json, os, signal
from agentkit.bench.ablate import ablate
from agentkit.llm import ScriptedLLM
from agentkit.llm.base import LLM
from agentkit.policy.choose import Choose
from tests.agentkit.test_ablate import KILLED_ARMS, TASKS, answers, scores
calls, played = [], []
def counted(answer):
    def answered(request):
        calls.append(1)
        if len(calls) == {die_at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(request)
    return answered
llm = ScriptedLLM(counted(answers), scorer=counted(scores))
result = ablate(Choose(), TASKS, llm=llm, arms=KILLED_ARMS, seeds=2, trials=3, tokens=4000, folder={folder!r},
                progress=lambda *episode: played.append(1))
print(json.dumps([result.rows(), len(played)]))
"""


def test_an_ablation_that_was_killed_goes_on_where_it_was_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    def once(folder: str, die_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", killable(str(tmp_path / folder), die_at)]
        return subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    whole = once("whole", 0)
    assert whole.returncode == 0, whole.stderr
    rows, episodes = json.loads(whole.stdout)
    assert episodes == 5 * 2 * 3 * len(TASKS)
    for die_at in (3, 21, 34):
        assert once("killed", die_at).returncode == -signal.SIGKILL
    finished = once("killed", 0)
    assert finished.returncode == 0, finished.stderr
    again, left = json.loads(finished.stdout)
    assert again == rows
    assert 0 < left < episodes
    # Once more: nothing is left to play, and the table is the same.
    assert json.loads(once("killed", 1).stdout) == [rows, 0]


def test_a_folder_takes_more_arms_and_refuses_an_ablation_of_other_arguments(tmp_path: Path) -> None:
    def play(arms: list[str], trials: int = 2) -> Ablation:
        llm = ScriptedLLM(answers, scorer=scores)
        return ablate(Choose(), TASKS, llm=llm, arms=arms, seeds=1, trials=trials, folder=tmp_path)

    first, more = play(["knn"]), play(["knn", "retry"])
    assert more.by_trial("knn") == first.by_trial("knn")
    assert {p.name for p in tmp_path.glob("*.db")} == {"run.db", "knn-0.db", "retry-0.db"}
    with pytest.raises(RunLogError):
        play(["knn"], trials=3)


def test_shown_memories_and_skills_are_in_the_prompt_within_the_budget() -> None:
    def found(text: str, id_: int, kind: str) -> Recalled:
        return Recalled(Record(kind, text, id=id_), 1.0, 1.0)

    view = View(
        TASKS[0], "Find the way.", "Three doors.", admissible=DOORS,
        memories=(found("I took green.", 1, "episode"), found("long " * 5000, 2, "episode")),
        skills=(found("Solved by: blue.", 3, "way"),),
    )  # fmt: skip
    llm = ScriptedLLM(scorer=scores)
    action = ChooseShown().act(view, llm)
    prompt = llm.requests[0].messages[0].content
    assert "I took green." in prompt
    assert "Solved by: blue." in prompt
    assert "long long" not in prompt
    assert action.memory_ids == (1, 3)


@pytest.mark.parametrize(("better", "worse", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (1, 9, 22 / 1024), (3, 3, 1.0)])
def test_mcnemar(better: int, worse: int, p: float) -> None:
    # Tails of the binomial with one half, from the table: 2 * (1 + 10) / 1024 for 1 of 10.
    assert mcnemar(better, worse).p == pytest.approx(p)
    assert mcnemar(worse, better).p == pytest.approx(p)


def test_mcnemar_counts_for_the_arm_what_it_alone_solved() -> None:
    def played(arm: str, *solved: bool) -> tuple[Run, ...]:
        return tuple(
            Run(arm, (Episode("e", TASKS[0], 0, 0, "", (), StopReason.STEP_LIMIT, s, float(s)),), "") for s in solved
        )

    runs = {"none": played("none", False, False, True, False), "knn": played("knn", True, True, False, False)}
    result = Ablation(Comparison(runs, (TASKS[0],)), ("none", "knn"), "none")
    assert (result.mcnemar("knn").better, result.mcnemar("knn").worse) == (2, 1)


@pytest.mark.parametrize(
    ("arm", "shown"),
    [
        ("retry", ["way of way 0"]),
        ("icl", ["episode 4", "episode 3", "episode 2", "episode 1", "episode 0"]),
        ("recency", ["episode 4", "episode 3", "episode 2"]),
        ("knn", ["step"]),
        ("reflections", ["lesson 1", "lesson 2", "lesson 3"]),
        ("insights", ["strong", "weak"]),
        ("skills", ["way of way 0", "way of way 1"]),
        ("all", ["step", "lesson 1", "lesson 2", "lesson 3", "strong", "weak", "way of way 0", "way of way 1"]),
    ],
)
def test_an_arm_shows_its_own_part_of_memory_and_no_other(arm: str, shown: list[str]) -> None:
    memory = Memory()
    key = "Find the way 0.\nThree doors."
    for i in range(5):
        memory.add(Record("episode", f"episode {i}", key=key, data={"success": True}, task=TASKS[i % 2].name))
        memory.add(Record("lesson", f"lesson {i}", data={"kind": "trace"}, task=TASKS[i // 4].name))
    for text, strength in (("weak", 1), ("strong", 3)):
        memory.add(Record("insight", text, data={"strength": strength}))
    for i, task in enumerate(TASKS):
        data = {"success": True, "actions": ["blue"], "observations": ["Three doors."]}
        memory.add(
            Record("way", f"way of {task.name}", key=f"Find the way {i}.\nThree doors.", data=data, task=task.name)
        )
    memory.add(
        Record("step", "step", key=f"{key}\nred, green, blue", data={"action": "blue"}, outcome=1.0, task=TASKS[0].name)
    )
    made = agent(arm, ChooseShown(), ScriptedLLM(scorer=scores), memory)
    assert made.recall is not None
    view = made.recall(View(TASKS[0], "Find the way 0.", "Three doors.", admissible=DOORS), memory)
    assert [found.record.text for found in (*view.memories, *view.lessons, *view.skills)] == shown


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="reflections"):
        ablate(Choose(), TASKS, llm=ScriptedLLM(scorer=scores), arms=["reflection"])
    with pytest.raises(InvalidValue):
        mcnemar(-1, 0)


def test_an_agent_and_an_environment_are_one_line() -> None:
    llm = ScriptedLLM(answers, scorer=scores)
    whole = ablate(reflexion(llm), "tests/OneDoor-v0", arms=["knn"], seeds=2, trials=2)
    parts = ablate(Choose(), [Task("tests/OneDoor-v0")], llm=llm, arms=["knn"], seeds=2, trials=2)
    assert whole.rows() == parts.rows()
    single = ablate(reflexion(llm), Task("tests/OneDoor-v0"), arms=["knn"], seeds=2, trials=2)
    assert single.rows() == parts.rows()
    for lacking in (random(), Choose()):
        with pytest.raises(InvalidValue, match="a policy and llm="):
            ablate(lacking, "tests/OneDoor-v0")


def test_the_critic_of_the_agent_is_that_of_every_arm() -> None:
    class Kind:
        def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
            return Judgement(True, 1.0, "fine")

    llm = ScriptedLLM(answers, scorer=scores)
    result = ablate(reflexion(llm, critic=Kind()), TASKS, arms=["skills"], seeds=1, trials=2)
    assert all(e.memory_ids for e in result.comparison.runs["skills"][0].episodes if e.trial)  # failures count as ways


def test_the_plot_shows_every_arm(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = ablate(Choose(), TASKS, llm=ScriptedLLM(answers, scorer=scores), seeds=2, trials=2)
    path = result.plot(tmp_path / "a" / "plot.png", title="Doors")
    assert path.read_bytes()[:4] == b"\x89PNG"
