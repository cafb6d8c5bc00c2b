"""`check_env` finds each way to break the contract, and nothing in what keeps it."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest

import agentkit.envs
from agentkit.envs import registration
from agentkit.errors import AgentkitError, ContractError, InvalidValue, UnknownName
from agentkit.testing import check_env
from tests.envs import broken_worlds


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agentkit.testing.envcheck._CHILD_SECONDS", 0.5)


@pytest.mark.parametrize("id", [w.id for w in registration.WORLDS if w.entry_point.startswith("agentkit.envs.toytext")])
@pytest.mark.parametrize("seeds", [(0, 1), (17, 4, 2**31)])
def test_the_toy_worlds_keep_the_contract(id: str, seeds: tuple[int, ...]) -> None:
    report = check_env(id, seeds=seeds)
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


def test_a_wrong_id_and_too_few_seeds_are_told() -> None:
    with pytest.raises(UnknownName, match="FrozenLake-v0"):
        agentkit.envs.make("agentkit/FrozenLak-v0")
    with pytest.raises(InvalidValue):
        check_env("agentkit/FrozenLake-v0", seeds=(1, 1))
    assert not check_env("agentkit/FrozenLak-v0", raises=False).ok


def test_errors_are_agentkits_own() -> None:
    with pytest.raises(AgentkitError):
        check_env(broken_worlds.NoGoal)
