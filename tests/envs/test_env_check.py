"""`check_env` finds each way to break the contract, and nothing in what keeps it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

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


# What a newcomer may write: the rule, the place and words of the remedy that the report must name.
MISTAKES: list[tuple[Any, str, str, str]] = [
    (
        broken_worlds.NeedsArgument,
        "make",
        "the constructor (broken_worlds.py, line",
        "give each argument a default value",
    ),
    (broken_worlds.ConstructorRaises, "make", "the constructor (broken_worlds.py, line", "called with no arguments"),
    (broken_worlds.NoEnvironment, "make", "the constructor", "class NoEnvironment(gymnasium.Env)"),
    (broken_worlds.makes_a_class, "make", "the constructor (broken_worlds.py, line", "return Good()"),
    (
        broken_worlds.ResetWithoutSeed,
        "reset",
        "reset (broken_worlds.py, line",
        "def reset(self, *, seed=None, options=None):",
    ),
    (broken_worlds.ResetWithoutOptions, "reset", "reset (broken_worlds.py, line", "seed=None, options=None):"),
    (broken_worlds.ResetNeedsMore, "reset", "reset (broken_worlds.py, line", "seed=None, options=None):"),
    (broken_worlds.ResetTakesAnything, "reset", "reset (broken_worlds.py, line", "seed=None, options=None):"),
    (broken_worlds.ResetReturnsText, "reset", "reset(seed=0) (broken_worlds.py, line", "a tuple of a text and a dict"),
    (
        broken_worlds.ResetReturnsNothing,
        "reset",
        "reset(seed=0) (broken_worlds.py, line",
        "a tuple of a text and a dict",
    ),
    (broken_worlds.ForgetsSuper, "gymnasium", "env_checker", "begin reset with super().reset(seed=seed)"),
    (broken_worlds.FourValues, "step", "step (broken_worlds.py, line", "a tuple of five"),
    (broken_worlds.StepNeedsMore, "step", "step (broken_worlds.py, line", "def step(self, action):"),
    (broken_worlds.NoStep, "step", "step", "def step(self, action):"),
    (broken_worlds.NoSpaces, "spaces", "observation_space", "self.observation_space = agentkit.envs.text_space()"),
    (broken_worlds.WrongSpace, "spaces", "observation_space", "TextAdapter"),
    (broken_worlds.RewardIsNothing, "step", "step (broken_worlds.py, line", "float(reward)"),
    (broken_worlds.Exits, "step", "step (broken_worlds.py, line", "info['feedback']"),
    (broken_worlds.CloseRaises, "close", "close (broken_worlds.py, line", "must not raise"),
    (broken_worlds.CloseRaisesAgain, "close", "close, called again", "must do nothing"),
    (broken_worlds.NumPyValues, "step", "step (broken_worlds.py, line", "bool(terminated)"),
    (broken_worlds.ListsNothing, "admissible", "reset(seed=0) (broken_worlds.py, line", "a list of texts"),
    (
        broken_worlds.Rooms,
        "admissible",
        "step('open chest') after reset(seed=0) and ['go north']",
        "in that very state",
    ),
    (broken_worlds.FarRoom, "admissible", "step('fly') after reset(seed=0)", "in that very state"),
]


@pytest.mark.parametrize(("world", "rule", "place", "remedy"), MISTAKES, ids=[w.__name__ for w, *_ in MISTAKES])
def test_a_newcomers_mistake_is_told_with_rule_place_and_remedy(world: Any, rule: str, place: str, remedy: str) -> None:
    report = check_env(world, raises=False)
    assert {v.rule for v in report.violations} == {rule}, str(report)  # that, and nothing that merely follows from it
    violation = report.violations[0]
    assert place in violation.where
    assert remedy in violation.remedy


def test_listed_actions_are_tried_along_the_episode_and_no_more_is_said() -> None:
    assert str(check_env(broken_worlds.RoomsMended)) == "RoomsMended: keeps the contract"


def test_trying_actions_costs_a_bounded_number_of_steps() -> None:
    steps = Counter[str]()

    class Counted(broken_worlds.RoomsMended):
        lists = {"hall": [f"look {i}" for i in range(200)], "attic": ["look"]}  # noqa: RUF012

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            steps["reset"] += 1
            return super().reset(seed=seed)

        def step(self, action: str) -> Any:
            steps["step"] += 1
            return super().step("look")

    check_env(Counted, steps=10, raises=False)
    assert steps.total() < 400


@pytest.mark.parametrize(
    ("entry_point", "where", "words"),
    [
        ("no_such_module:Guess", "the entry point", "there is no module 'no_such_module'"),
        ("tests.envs.broken_worlds:Goood", "the entry point", "Did you mean 'Good'"),
        ("tests.envs.broken_worlds", "the entry point", "it must be 'module:Class'"),
        ("tests.envs.broken_worlds:NeedsArgument", "the constructor", "missing a required argument: 'size'"),
        ("does_not_parse:Guess", "the module of mine/Wrong-v0", "SyntaxError"),
    ],
)
def test_an_id_that_cannot_be_made_says_why(
    entry_point: str, where: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "does_not_parse.py").write_text("def (")
    monkeypatch.syspath_prepend(str(tmp_path))
    gymnasium.register("mine/Wrong-v0", entry_point, disable_env_checker=True)
    try:
        report = check_env("mine/Wrong-v0", raises=False)
    finally:
        del gymnasium.registry["mine/Wrong-v0"]
    assert [v.rule for v in report.violations] == ["make"]
    assert report.violations[0].where.startswith(where)
    assert words in report.violations[0].problem
    assert report.violations[0].remedy


def test_an_id_that_is_not_registered_says_how_to_register_one() -> None:
    violation = check_env("mine/Guess-v0", raises=False).violations[0]
    assert (violation.rule, violation.where) == ("make", "the id")
    assert 'gymnasium.register("mine/Guess-v0", "guess:Guess")' in violation.remedy
    assert "entry-points" in violation.remedy


def test_a_package_that_lacks_its_own_is_raised_with_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lacks_one.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    gymnasium.register("mine/Lacks-v0", "lacks_one:World", disable_env_checker=True)
    try:
        with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
            check_env("mine/Lacks-v0")
    finally:
        del gymnasium.registry["mine/Lacks-v0"]
    assert any("mine/Lacks-v0" in note for note in caught.value.__notes__)


def test_it_can_be_run_from_a_shell() -> None:
    command = [sys.executable, "-m", "agentkit.testing.envcheck", "agentkit/Blackjack-v0"]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout) == (0, "agentkit/Blackjack-v0: keeps the contract\n")
    wrong = subprocess.run([*command[:-1], "mine/Guess-v0"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "How to mend it: register it first" in wrong.stdout


def test_arguments_go_to_a_class_and_to_the_other_process() -> None:
    assert str(check_env(broken_worlds.NeedsArgument, size=3)) == "NeedsArgument: keeps the contract"
    with pytest.raises(InvalidValue, match="give its class"):
        check_env(broken_worlds.Good(), size=3)


def test_what_check_env_itself_is_given_is_checked() -> None:
    subjects: list[Any] = [None, 7, pytest]
    for subject in subjects:
        with pytest.raises(InvalidValue, match="give an id, an environment, or a class or function"):
            check_env(subject)
    for wrong in ({"seeds": (-1, 2)}, {"seeds": ("a", "b")}, {"steps": 0}, {"options": 5}):
        with pytest.raises(InvalidValue, match="is needed"):
            check_env(broken_worlds.Good, **wrong)


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
