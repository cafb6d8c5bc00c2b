"""Runs: the same for any number of workers, and what becomes of what breaks."""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import agentkit
from agentkit.agent import Agent, Learned
from agentkit.agents.reflexion import reflexion
from agentkit.critic.base import EnvironmentCritic
from agentkit.errors import AgentkitError, ContractError, InvalidValue, UnknownName
from agentkit.llm import Ledger, ScriptedLLM
from agentkit.llm.errors import RateLimited
from agentkit.memory import Memory, Record, Where
from agentkit.reflection.base import Reflector
from agentkit.runlog import RunLog
from agentkit.runner import Run, episode_seed, run
from agentkit.types import Action, Episode, Judgement, Lesson, Message, Request, StopReason, Task, View
from tests.agentkit.corridor import Breaks, Corridor, prefers

CORRIDORS = [Task("tests/Corridor-v0", seed=i) for i in range(6)]
TOYS = [
    Task(f"agentkit/{toy}-v0", seed=i) for i in range(2) for toy in ("FrozenLake", "Taxi", "CliffWalking", "Blackjack")
]


class Samples(Agent):
    """Takes an admissible action at random, with the step's own seed."""

    def act(self, view: View) -> Action:
        assert view.admissible is not None
        return Action(str(np.random.default_rng(view.seed).choice(view.admissible)))


class Reflects:
    """Asks the model for a lesson, so that the learning phase has calls too."""

    def reflect(self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: Any) -> list[Lesson]:
        said = f"{episode.id} {judgement.score} after {len(earlier)} lessons"
        ((answer,),) = llm.generate([Request((Message("user", said),), max_tokens=8)])
        return [Lesson(answer.text, task=episode.task.name, evidence=(episode.id,))]


def learner(memory: Memory | None, reflector: Reflector | None = None) -> Agent:
    llm = ScriptedLLM(lambda r: f"noted: {r.messages[0].content}", scorer=prefers)
    return reflexion(llm, memory, reflector=reflector or Reflects())


def content(memory: Memory) -> list[tuple[Any, ...]]:
    """All that was remembered, and all credit, but for the time of writing."""
    records: list[tuple[Any, ...]] = [
        (r.id, r.kind, r.text, r.key, dict(r.data), r.task, r.outcome, r.episode, r.step) for r in memory.records()
    ]
    return records + [(e.seq, e.episode, e.task, e.outcome) for e in memory.credits()]


# --- determinism


@pytest.mark.parametrize("tasks", [CORRIDORS, TOYS], ids=["corridors", "toy text"])
def test_the_result_is_the_same_for_any_number_of_workers(tasks: list[Task]) -> None:
    results = []
    for workers in (1, 8):
        memory = Memory(clock=lambda: 0.0)
        played = run(learner(memory), tasks, trials=3, workers=workers, seed=5, max_steps=8)
        results.append((played.fingerprint(), content(memory)))
        assert any(e.memory_ids for e in played.episodes)
        assert played.notes == ()
    assert results[0] == results[1]
    other = run(learner(Memory()), tasks, trials=3, seed=6, max_steps=8)
    assert other.fingerprint() != results[0][0]
    retry = run(learner(None), tasks, trials=3, seed=5, max_steps=8)
    assert retry.fingerprint() != results[0][0]


def test_a_fingerprint_sees_one_changed_action() -> None:
    def of(action: str) -> str:
        class Walks(Agent):
            def act(self, view: View) -> Action:
                return Action(action if view.step == 2 else "red")

        return run(Walks(name="walks"), CORRIDORS, max_steps=4).fingerprint()

    assert of("red") == of("red") != of("blue")


def test_no_episode_sees_what_another_of_its_round_wrote() -> None:
    seen: list[tuple[int, int]] = []

    class Counts(Agent):
        def act(self, view: View) -> Action:
            assert self.reading is not None
            seen.append((view.trial, len(self.reading)))
            return Action("red")

        def learn(self, episodes: Sequence[Episode]) -> None:  # type: ignore[override]
            assert self.memory is not None
            for episode in episodes:
                self.memory.add(Record(kind="note", text=episode.id))

    memory = Memory()
    run(Counts(memory=memory), CORRIDORS, trials=3, workers=4, max_steps=2)
    assert set(seen) == {(0, 0), (1, 6), (2, 12)}
    order = [f"agent/{trial}/{i}" for trial in range(3) for i in range(6)]
    assert [r.text for r in memory.records()] == order


def test_episode_seeds_do_not_repeat() -> None:
    seeds = {episode_seed(s, t, p) for s in range(10) for t in range(10) for p in range(10)}
    assert len(seeds) == 1000


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_too() -> None:
    pytest.importorskip("torch")
    from agentkit.llm import LocalLLM

    llm = LocalLLM("smollm2-135m", workers=2)
    try:
        prints = {
            run(reflexion(llm, Memory()), CORRIDORS[:3], trials=2, workers=w, seed=1, max_steps=4).fingerprint()
            for w in (1, 8)
        }
    finally:
        llm.close()
    assert len(prints) == 1


# --- a user's own agent and environment


def test_a_users_own_agent_learns_without_a_memory_of_ours() -> None:
    class Remembers(Agent):
        def __init__(self) -> None:  # it need not call ours
            self.right: dict[tuple[str, str], str] = {}
            self.rounds = 0

        def act(self, view: View) -> Action:
            known = self.right.get((view.task.name, view.observation))
            rng = np.random.default_rng(view.seed)
            return Action(known or str(rng.choice(view.admissible or ())))

        def learn(self, episodes: Sequence[Episode]) -> None:  # type: ignore[override]
            self.rounds += 1
            for episode in episodes:
                for step in episode.steps:
                    if step.observation != step.next_observation and "room 0" not in step.next_observation:
                        self.right[episode.task.name, step.observation] = step.action.text

    agent = Remembers()
    played = agentkit.run(agent, CORRIDORS, trials=6, max_steps=12)
    assert agent.rounds == 6
    assert played.success_by_trial[-1] == 1.0
    assert played.success_by_trial[0] < 1.0
    assert played.trials == 6


def test_an_agent_without_a_policy_says_so() -> None:
    with pytest.raises(InvalidValue, match="has no policy"):
        run(Agent(), Corridor)


def make_corridor() -> Corridor:
    return Corridor()


@pytest.mark.parametrize(
    ("worlds", "env_id"),
    [
        (Corridor(), "Corridor"),
        (Corridor, "Corridor"),
        (make_corridor, "make_corridor"),
        ("tests/Corridor-v0", "tests/Corridor-v0"),
        (Task("tests/Corridor-v0", seed=4), "tests/Corridor-v0"),
        (CORRIDORS, "tests/Corridor-v0"),
        ((t for t in CORRIDORS), "tests/Corridor-v0"),
        (gymnasium.make("tests/Corridor-v0"), "tests/Corridor-v0"),
    ],
    ids=["instance", "class", "callable", "id", "task", "tasks", "generator", "made instance"],
)
def test_what_can_be_played(worlds: Any, env_id: str) -> None:
    played = run(Samples(), worlds, trials=2, max_steps=3)
    assert {e.task.env_id for e in played.episodes} == {env_id}
    assert {e.stop_reason for e in played.episodes} <= {StopReason.SUCCESS, StopReason.STEP_LIMIT}
    assert all(e.steps for e in played.episodes)


def test_a_users_environment_is_left_open_and_ours_are_closed() -> None:
    closed: list[int] = []

    class Closes(Corridor):
        def close(self) -> None:
            closed.append(id(self))

    mine = Closes()
    run(Samples(), mine, max_steps=2)
    assert closed == []
    run(Samples(), Closes, workers=3, trials=2, max_steps=2)
    assert len(closed) == len(set(closed)) >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "trials is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"max_steps": -1}, "max_steps is -1"),
        ({"trials": 1.5}, "trials is 1.5; it must be a whole number"),
        ({"trials": "3"}, "trials is '3'; it must be a whole number"),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0"),
        ({"env": []}, "There is nothing to play"),
        ({"env": None}, "There is nothing to play"),
        ({"env": 7}, "There is nothing to play"),
        ({"env": ["tests/Corridor-v0"]}, "There is nothing to play"),
        ({"env": [CORRIDORS[0], CORRIDORS[0]]}, "Two tasks have the same name"),
        ({"env": Corridor(), "workers": 2}, "One environment cannot serve several workers"),
        ({"agent": "reflexion"}, "the agent is 'reflexion'"),
        ({"agent": Agent}, "the agent is <class"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"agent": Samples(), "env": Corridor, **arguments}
    log = tmp_path / "run.db"
    with pytest.raises(InvalidValue, match=message):
        run(arguments.pop("agent"), arguments.pop("env"), log=log, **arguments)
    assert not log.exists()


def test_an_unknown_world_is_an_error_before_the_log_knows_of_the_run(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run.db") as log:
        with pytest.raises(UnknownName, match="agentkit/FrozenLake-v0"):
            run(Samples(), "agentkit/FrozenLak-v0", log=log)
        assert log.names() == []
        with pytest.raises(ContractError, match=r"made a int; it must make a gymnasium\.Env"):
            run(Samples(), lambda: 3, log=log)  # type: ignore[arg-type, return-value]
        with pytest.raises(ZeroDivisionError):
            run(Samples(), lambda: 1 // 0, log=log)  # type: ignore[arg-type, return-value]
        assert log.names() == []


def test_progress_is_told_of_each_episode() -> None:
    told: list[str] = []
    played = run(Samples(), CORRIDORS, trials=2, workers=4, max_steps=3, progress=lambda e: told.append(e.id))
    assert sorted(told) == sorted(e.id for e in played.episodes)


# --- what breaks


def test_a_world_that_raises_ends_its_episode_and_the_run_goes_on(tmp_path: Path) -> None:
    made: list[Breaks] = []

    def sometimes() -> Breaks:
        def answered(reply: Any) -> Any:
            if len(made) == 1:
                raise OSError("the disk of this world is gone")
            return reply

        made.append(Breaks(answered=answered))
        return made[-1]

    played = run(Samples(), sometimes, trials=3, max_steps=4, log=tmp_path / "run.db")
    assert played.episodes[0].stop_reason == StopReason.ENV_ERROR
    assert all(e.stop_reason != StopReason.ENV_ERROR for e in played.episodes[1:])
    assert len(made) == 2, "a world that raised is not lent again"
    said = "1 of 3 episodes ended as env_error; they count as not solved. The first: OSError: the disk of this world is gone"
    assert played.notes == (said,)
    with RunLog(tmp_path / "run.db") as log:
        (row,) = log.query("select error, success from episodes where stop_reason='env_error'")
    assert "Traceback" in row["error"]
    assert "OSError: the disk of this world is gone" in row["error"]
    assert "test_runner.py" in row["error"]
    assert row["success"] == 0
    assert played.success_by_trial[0] == 0.0


def test_a_world_that_cannot_be_made_again_is_data_too() -> None:
    made: list[int] = []

    def once() -> Breaks:
        made.append(1)
        if len(made) > 1:
            raise MemoryError("no room for a second world")
        return Breaks(answered=lambda reply: 1 / 0)

    played = run(Samples(), once, trials=3)
    assert [e.stop_reason for e in played.episodes] == [StopReason.ENV_ERROR] * 3
    assert "ZeroDivisionError" in played.episodes[0].error
    assert "no room for a second world" in played.episodes[2].error


def test_broken_episodes_are_not_held_against_actions_or_memories() -> None:
    memory = Memory()
    broken = Breaks(answered=lambda reply: (reply[0], math.nan, *reply[2:]) if reply[1] else reply)
    played = run(learner(memory), broken, trials=3, max_steps=40)
    assert {e.stop_reason for e in played.episodes} == {StopReason.ENV_ERROR}
    assert memory.count(Where(kinds="step")) == 0
    assert memory.credits() == []


def test_a_model_that_fails_ends_its_episode() -> None:
    def scorer(request: Request) -> list[float]:
        if "room 1" in request.messages[0].content:
            raise RateLimited("still too fast, after all retries")
        return prefers(request)

    agent = reflexion(ScriptedLLM(scorer=scorer))
    played = run(agent, CORRIDORS, trials=2, workers=3)
    assert {e.stop_reason for e in played.episodes} == {StopReason.MODEL_ERROR}
    assert all("still too fast, after all retries" in e.error for e in played.episodes)
    assert played.success_by_trial == [0.0, 0.0]
    assert len(played.episodes) == 12


def test_a_mistake_in_the_agent_is_raised_with_its_own_traceback_and_the_log_goes_on(tmp_path: Path) -> None:
    class Flawed(Agent):
        mistake = True

        def act(self, view: View) -> Action:
            if self.mistake and view.task.seed == 4 and view.trial == 1:
                return self.my_own_flawed_method(view)
            return Action("red")

        def my_own_flawed_method(self, view: View) -> Action:
            raise LookupError("my own mistake")

    agent = Flawed(memory=Memory(tmp_path / "memory.db"))
    for workers in (1, 4):
        with pytest.raises(LookupError, match="my own mistake") as caught:
            run(agent, CORRIDORS, trials=3, workers=workers, max_steps=3, log=tmp_path / "run.db")
        assert "my_own_flawed_method" in "".join(traceback.format_tb(caught.value.__traceback__))
    with RunLog(tmp_path / "run.db") as log:
        assert 6 <= log.query("select count(*) n from episodes")[0]["n"] < 12
    agent.mistake = False
    resumed = run(agent, CORRIDORS, trials=3, workers=2, max_steps=3, log=tmp_path / "run.db")
    unflawed = Flawed(memory=Memory())
    unflawed.mistake = False
    assert resumed.fingerprint() == run(unflawed, CORRIDORS, trials=3, max_steps=3).fingerprint()


def test_a_mistake_in_learning_writes_nothing_and_is_made_good(tmp_path: Path) -> None:
    class Forgets(Reflects):
        mistake = True

        def reflect(self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: Any) -> list[Lesson]:
            if self.mistake and episode.id.endswith("/1/3"):
                raise ArithmeticError("a reflector's mistake")
            return super().reflect(episode, judgement, earlier, llm)

    reflector, memory = Forgets(), Memory(tmp_path / "memory.db", clock=lambda: 0.0)
    with pytest.raises(ArithmeticError, match="a reflector's mistake"):
        run(learner(memory, reflector), CORRIDORS, trials=3, max_steps=6, log=tmp_path / "run.db")
    assert {r.episode.split("/")[1] for r in memory.records()} == {"0"}
    reflector.mistake = False
    resumed = run(learner(memory, reflector), CORRIDORS, trials=3, max_steps=6, log=tmp_path / "run.db")
    whole = Memory(clock=lambda: 0.0)
    assert resumed.fingerprint() == run(learner(whole), CORRIDORS, trials=3, max_steps=6).fingerprint()
    assert content(memory) == content(whole)


@pytest.mark.parametrize("returned", [3, {"judgements": {}}, "done"])
def test_learn_that_returns_something_else_is_told(returned: Any) -> None:
    class Odd(Samples):
        def learn(self, episodes: Sequence[Episode]) -> Any:
            return returned

    with pytest.raises(ContractError, match="learn returned a"):
        run(Odd(), Corridor, max_steps=2)


def failing_learner(memory: Memory) -> Agent:
    """Its reflector's model fails for the third episode of the first round, its critic's for the fifth of the second."""

    def answer(request: Request) -> str:
        if request.messages[0].content.startswith("reflexion/0/2"):
            raise RateLimited("enough")
        return f"noted: {request.messages[0].content}"

    class Asks:
        def judge(self, episode: Episode, llm: Any) -> Judgement:
            if episode.id == "reflexion/1/4":
                llm.generate([Request((Message("user", "reflexion/0/2"),), max_tokens=8)])
            return EnvironmentCritic().judge(episode, llm)

    return reflexion(ScriptedLLM(answer, scorer=prefers), memory, reflector=Reflects(), critic=Asks())


def test_a_model_that_fails_in_learning_ends_the_learning_of_that_episode_alone(tmp_path: Path) -> None:
    results = []
    for workers in (1, 8):
        memory = Memory(clock=lambda: 0.0)
        with RunLog(tmp_path / f"{workers}.db") as log:
            played = run(failing_learner(memory), CORRIDORS, trials=3, workers=workers, max_steps=3, log=log)
            judged = {row["episode"] for row in log.query("select episode from judgements")}
            rows = log.query("select purpose, error from calls where error <> '' order by id")
            assert [row["learned"] for row in log.query("select learned from rounds")] == [1, 1, 1]
        assert {e.id for e in played.episodes} - judged == {"reflexion/0/2", "reflexion/1/4"}
        assert [(row["purpose"], row["error"]) for row in rows] == [
            ("reflect", "RateLimited: enough"),
            ("judge", "RateLimited: enough"),
        ]
        taught = {record.episode for record in memory.records()}
        assert taught == {e.id for e in played.episodes} - {"reflexion/0/2", "reflexion/1/4"}
        assert {credit.episode for credit in memory.credits()}.isdisjoint({"reflexion/0/2", "reflexion/1/4"})
        assert any("2 model calls of learning failed" in note for note in played.notes)
        results.append((played.fingerprint(), content(memory), played.notes))
    assert results[0] == results[1]


def test_a_run_whose_learning_failed_in_part_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def until(id: str) -> Callable[[Episode], None]:
        def watch(episode: Episode) -> None:
            if episode.id == id:
                raise Killed

        return watch

    whole = Memory(clock=lambda: 0.0)
    expected = run(failing_learner(whole), CORRIDORS, trials=3, max_steps=3)
    path = tmp_path / "memory.db"
    for id in ("reflexion/1/1", "reflexion/2/3"):
        with Memory(path, clock=lambda: 0.0) as memory, pytest.raises(Killed):
            run(failing_learner(memory), CORRIDORS, trials=3, max_steps=3, log=tmp_path / "run.db", progress=until(id))
    with Memory(path, clock=lambda: 0.0) as memory:
        resumed = run(failing_learner(memory), CORRIDORS, trials=3, max_steps=3, log=tmp_path / "run.db")
        assert (resumed.fingerprint(), resumed.notes) == (expected.fingerprint(), expected.notes)
        assert content(memory) == content(whole)


# --- budgets


def test_64_workers_never_spend_more_than_the_budget_and_nothing_is_lost(tmp_path: Path) -> None:
    tasks = [Task("tests/Corridor-v0", seed=i) for i in range(64)]
    ledger = Ledger(tokens=4000)
    most, lock = [0], threading.Lock()

    def watch(_episode: Episode) -> None:
        with lock:
            most[0] = max(most[0], ledger.spent.tokens)

    agent = learner(Memory())
    played = run(
        agent, tasks, trials=2, workers=64, budget=ledger, log=tmp_path / "run.db", progress=watch, max_steps=8
    )
    assert most[0] <= ledger.spent.tokens <= 4000
    assert ledger.spent.tokens > 3500, "it was used"
    assert len(played.episodes) == 128, "every episode is there"
    assert {e.stop_reason for e in played.episodes if e.trial} == {StopReason.BUDGET}
    assert any("budget was spent before round" in note for note in played.notes)
    with RunLog(tmp_path / "run.db") as log:
        (row,) = log.query("select sum(prompt_tokens + completion_tokens) n from calls")
    assert row["n"] == ledger.spent.tokens == played.usage.tokens


def test_a_spent_budget_ends_the_episodes_of_later_runs_too() -> None:
    ledger = Ledger(tokens=0)
    for _ in range(2):
        played = run(learner(None), Corridor, budget=ledger)
        assert [e.stop_reason for e in played.episodes] == [StopReason.BUDGET]
    late = Ledger(seconds=0)
    assert run(learner(None), Corridor, budget=late).episodes[0].stop_reason == StopReason.BUDGET


def test_a_resumed_run_counts_what_was_spent_before(tmp_path: Path) -> None:
    first = run(learner(None), CORRIDORS, log=tmp_path / "run.db", max_steps=3)
    ledger = Ledger(tokens=100_000)
    run(learner(None), CORRIDORS, log=tmp_path / "run.db", max_steps=3, budget=ledger)
    assert ledger.spent.tokens == first.usage.tokens > 0


# --- what a run says of itself


def test_a_memory_that_never_reached_the_policy_is_noted() -> None:
    class Ignores(Samples):
        """Has a memory and never looks."""

    played = run(Ignores(memory=Memory()), CORRIDORS, trials=2, max_steps=3)
    assert played.notes == ("memory was on, but no record ever reached the policy: look at the agent's recall.",)
    assert played.notes[0] in str(played)
    assert run(Ignores(memory=Memory()), CORRIDORS, trials=1, max_steps=3).notes == ()
    assert run(Ignores(), CORRIDORS, trials=2, max_steps=3).notes == ()
    filled = Memory()
    filled.add(Record(kind="step", text="x"))
    assert "no record ever reached" in "".join(run(Ignores(memory=filled), CORRIDORS, trials=1, max_steps=3).notes)


def test_the_same_agent_learns_in_a_second_run_too() -> None:
    memory = Memory()
    agent = learner(memory)
    run(agent, CORRIDORS, trials=2, max_steps=4)
    first = len(memory)
    run(agent, CORRIDORS, trials=2, max_steps=4)
    assert len(memory) > first


def test_learn_false_leaves_the_memory_alone() -> None:
    memory = Memory()
    run(learner(memory), CORRIDORS, trials=2, max_steps=4)
    before = memory.seq
    played = run(learner(memory), CORRIDORS, trials=2, max_steps=4, learn=False)
    assert memory.seq == before
    assert any(e.memory_ids for e in played.episodes)


def test_every_episode_is_credited_with_its_task() -> None:
    memory = Memory()
    played = run(learner(memory), CORRIDORS, trials=2, max_steps=4)
    credits = memory.credits()
    assert [(c.episode, c.task) for c in credits] == [(e.id, e.task.name) for e in played.episodes]


def test_a_configuration_is_described_without_addresses_and_secrets() -> None:
    import dataclasses

    from agentkit.agent import describe

    @dataclasses.dataclass
    class Judge:
        rule: Callable[[int], int]
        api_key: str = "sk-secret-1"
        max_tokens: int = 5
        server_password: str = 'it"s secret-2'

    text = describe(Judge(rule=lambda x: x))
    assert text is not None
    assert "0x" not in text
    assert "secret-" not in text
    assert "max_tokens=5" in text
    assert describe(describe) == "agentkit.agent.describe"
    assert describe(Judge) == f"{__name__}.{Judge.__qualname__}"
    assert describe(None) is None


def test_a_run_is_shown_in_a_few_lines() -> None:
    played = run(Samples(), CORRIDORS, max_steps=3)
    assert str(played).splitlines()[0].startswith("agent: 6 episodes; success by trial: ")
    assert Run("empty", (), ":memory:").trials == 0
    assert issubclass(InvalidValue, AgentkitError)
    assert Learned().records == 0


def test_the_page_on_running_is_true(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "running.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile(block, "docs/running.md", "exec"), {})
