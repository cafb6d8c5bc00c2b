"""`check_env` finds each way to break the contract, and nothing in what keeps it."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest

import agentkit.envs
from agentkit.envs.code import CodeEnv
from agentkit.envs.code_tasks import CodeTask
from agentkit.errors import AgentkitError, ContractError, InvalidValue, UnknownName
from agentkit.testing import check_env
from tests.envs import broken_worlds


def code_world() -> CodeEnv:
    return CodeEnv([CodeTask(name="f", prompt="Add one.", entry_point="f", hidden=("assert f(1) == 2",))])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agentkit.testing.envcheck._CHILD_SECONDS", 0.5)


def test_any_seeds_will_do() -> None:
    report = check_env("agentkit/Taxi-v0", seeds=(17, 4, 2**31))
    assert report.ok
    assert not [s for s in report.skipped if "process" in s]


def test_a_good_world_passes_with_nothing_left_out() -> None:
    report = check_env(broken_worlds.Good)
    assert str(report) == "Good: keeps the contract"


@pytest.mark.parametrize(
    ("world", "rule"),
    [
        (broken_worlds.WrongSpace, "spaces"),
        (broken_worlds.DefaultCharset, "spaces"),
        (broken_worlds.OutOfSpace, "step"),
        (broken_worlds.NoGoal, "goal"),
        (broken_worlds.NoSuccess, "success"),
        (broken_worlds.SuccessOfAnotherType, "success"),
        (broken_worlds.RawScore, "score"),
        (broken_worlds.RefusesWhatItLists, "admissible"),
        (broken_worlds.Raises, "hostile"),
        (broken_worlds.WritesFiles, "hostile"),
        (broken_worlds.WritesFilesAlways, "hostile"),
        (broken_worlds.GlobalRandom, "global-random"),
        (broken_worlds.HashSeed, "other-process"),
        (broken_worlds.ProcessOfItsOwn, "other-process"),
        (broken_worlds.SharedState, "shared-state"),
        (broken_worlds.Remembers, "same-seed"),
        (broken_worlds.LeavesAProcess, "close"),
    ],
)
def test_each_broken_rule_is_named_with_a_remedy(world: type[gymnasium.Env[str, str]], rule: str) -> None:
    report = check_env(world, raises=False)
    try:
        found = [v for v in report.violations if v.rule == rule]
        assert found, str(report)
        assert all(v.where and v.problem and v.remedy for v in found)
    finally:
        if child := broken_worlds.LeavesAProcess.child:
            child.communicate()


def test_all_violations_are_told_at_once() -> None:
    class Several(broken_worlds.NoGoal, broken_worlds.NoSuccess):
        pass

    with pytest.raises(ContractError) as caught:
        check_env(Several)
    assert isinstance(caught.value, TypeError)
    assert "[goal]" in str(caught.value)
    assert "[success]" in str(caught.value)


def test_what_cannot_be_checked_is_said() -> None:
    report = check_env(broken_worlds.Good())
    assert report.ok
    assert any("shared-state" in line for line in report.skipped)


def test_another_environment_may_hold_the_same_sandbox() -> None:
    """What the checked one started in it ends with it; what the other one had warm stays."""
    held = code_world()
    try:
        held.reset(seed=0)
        held.step("def f(x):\n    return x + 1")
        warm = held._lease.sandbox.warm()
        assert warm
        assert check_env(code_world, steps=3).skipped == ()
        assert held._lease.sandbox.warm() <= warm
        two = code_world(), code_world()
        for env in two:
            env.reset(seed=0)
            env.step("def f(x):\n    return x + 1")
        kept = held._lease.sandbox.warm() & warm
        for env in two:
            env.close()
        assert held._lease.sandbox.warm() == kept
        held.reset(seed=0)
        assert held.step("def f(x):\n    return x + 1")[4]["success"] is True
    finally:
        held.close()


def test_a_wrong_id_and_too_few_seeds_are_told() -> None:
    with pytest.raises(UnknownName, match="FrozenLake-v0"):
        agentkit.envs.make("agentkit/FrozenLak-v0")
    with pytest.raises(InvalidValue):
        check_env("agentkit/FrozenLake-v0", seeds=(1, 1))
    assert not check_env("agentkit/FrozenLak-v0", raises=False).ok


def test_errors_are_agentkits_own() -> None:
    with pytest.raises(AgentkitError):
        check_env(broken_worlds.NoGoal)
