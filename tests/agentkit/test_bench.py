"""Statistics against reference values worked out otherwise, and comparisons of arms."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.agents.reflexion import reflexion
from agentkit.bench import curves
from agentkit.bench.compare import Comparison, compare
from agentkit.bench.statistics import Interval, mean_interval, paired_difference
from agentkit.errors import InvalidValue, UnknownName
from agentkit.llm import Ledger, ScriptedLLM
from agentkit.memory import Memory
from agentkit.types import Task
from tests.agentkit.corridor import prefers

TASKS = [Task("tests/Corridor-v0", seed=i) for i in range(3)]


def exact_quantile(values: list[tuple[float, int]], q: float) -> float:
    """The q-quantile of a distribution given as (value, how many of the equally likely outcomes)."""
    total, seen = sum(n for _, n in values), 0
    for value, n in sorted(values):
        seen += n
        if seen >= q * total:
            return value
    raise AssertionError


def every_resample(a: np.ndarray, b: np.ndarray) -> list[tuple[float, int]]:
    """The whole bootstrap distribution, by listing every draw of lifetimes and of tasks."""
    d = a - b
    counted: dict[float, int] = {}
    for rows in itertools.product(range(d.shape[0]), repeat=d.shape[0]):
        for columns in itertools.product(range(d.shape[1]), repeat=d.shape[1]):
            mean = sum(d[i, j] for i in rows for j in columns) / (len(rows) * len(columns))
            counted[round(float(mean), 12)] = counted.get(round(float(mean), 12), 0) + 1
    return list(counted.items())


def test_the_interval_is_that_of_the_whole_bootstrap_distribution() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random((4, 3)), rng.random((4, 3))
    everything = every_resample(a, b)
    found = paired_difference(a, b, resamples=200_000)
    assert found.estimate == pytest.approx(sum(a[i, j] - b[i, j] for i in range(4) for j in range(3)) / 12)
    assert found.low == pytest.approx(exact_quantile(everything, 0.025), abs=0.01)
    assert found.high == pytest.approx(exact_quantile(everything, 0.975), abs=0.01)
    narrow = paired_difference(a, b, level=0.5, resamples=200_000)
    assert narrow.low == pytest.approx(exact_quantile(everything, 0.25), abs=0.01)
    assert narrow.high == pytest.approx(exact_quantile(everything, 0.75), abs=0.01)


def test_pairing_matters() -> None:
    hard = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.4], [0.95, 0.0, 0.6]])
    found = paired_difference(hard + 0.05, hard)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert paired_difference(hard, hard[::-1]).low < 0 < paired_difference(hard, hard[::-1]).high  # type: ignore[operator]


def test_one_lifetime_has_no_interval() -> None:
    found = paired_difference([[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]])
    assert found == Interval(2 / 3, None, None)
    assert str(found) == "+0.67 (one lifetime: no interval)"
    assert mean_interval([[1.0, 0.0]]).low is None


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[1.0, 0.0]], [[1.0]], "not paired"),
        ([[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0]], "not paired"),
        ([1.0, 0.0], [1.0, 0.0], "shape"),
        ([[]], [[]], "shape"),
        ([[math.nan], [1.0]], [[1.0], [1.0]], "NaN"),
        ([[math.inf], [1.0]], [[1.0], [1.0]], "infinite"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: Any, b: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        paired_difference(a, b)


def test_a_level_lies_between_0_and_1() -> None:
    for level in (0.0, 1.0, 95, math.nan):
        with pytest.raises(InvalidValue, match="level"):
            paired_difference([[1.0], [0.0]], [[0.0], [0.0]], level=level)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_an_interval_holds_its_estimate_and_turns_with_the_arms(lifetimes: int, tasks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, (lifetimes, tasks)), rng.integers(0, 2, (lifetimes, tasks))
    one, other = paired_difference(a, b, resamples=2000), paired_difference(b, a, resamples=2000)
    assert one.low is not None
    assert one.high is not None
    assert other.low is not None
    assert -1 <= one.low <= one.high <= 1
    assert one.low - 0.15 <= one.estimate <= one.high + 0.15
    assert other.estimate == -one.estimate
    assert other.low == pytest.approx(-one.high, abs=1e-9)
    assert paired_difference(a, b, resamples=2000) == one


def test_an_interval_of_95_percent_covers_the_truth_about_that_often() -> None:
    """Lifetimes and tasks both differ: 300 experiments of 8 lifetimes on 8 tasks, whose true difference is 0.2."""
    rng = np.random.default_rng(11)
    covered = 0
    for experiment in range(300):
        difference = 0.2 + rng.normal(0, 0.1, (8, 1)) + rng.normal(0, 0.1, (1, 8)) + rng.normal(0, 0.2, (8, 8))
        found = paired_difference(difference, np.zeros((8, 8)), resamples=1000, seed=experiment)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.2 <= found.high
    assert 0.90 <= covered / 300 <= 1.0


# --- arms


def arms() -> dict[str, Any]:
    def with_memory(_lifetime: int) -> Any:
        return reflexion(ScriptedLLM(scorer=prefers), Memory())

    def retry(_lifetime: int) -> Any:
        return reflexion(ScriptedLLM(scorer=prefers))

    return {"with memory": with_memory, "retry": retry}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(arms(), TASKS, lifetimes=2, trials=3, max_steps=6, seed=1)


def test_arms_share_their_seeds_and_lifetimes_do_not(comparison: Comparison) -> None:
    seeds = {arm: [[e.seed for e in run.episodes] for run in runs] for arm, runs in comparison.runs.items()}
    assert seeds["with memory"] == seeds["retry"]
    assert seeds["retry"][0] != seeds["retry"][1]
    first = [[e.steps for e in runs[0].episodes if e.trial == 0] for runs in comparison.runs.values()]
    assert [[s.action.text for s in steps] for steps in first[0]] == [
        [s.action.text for s in steps] for steps in first[1]
    ]


def test_success_is_counted_by_hand(comparison: Comparison) -> None:
    for arm, runs in comparison.runs.items():
        solved = comparison.success(arm)
        assert solved.shape == (2, 3, 3)
        for lifetime, run in enumerate(runs):
            for e in run.episodes:
                assert solved[lifetime, TASKS.index(e.task), e.trial] == e.success
        assert comparison.by_trial(arm) == [float(solved[:, :, t].mean()) for t in range(3)]
    a, b = comparison.success("with memory"), comparison.success("retry")
    found = comparison.difference("with memory", "retry")
    assert found.estimate == pytest.approx(float(a[:, :, 1:].mean() - b[:, :, 1:].mean()))
    assert comparison.usage.calls == sum(r.usage.calls for runs in comparison.runs.values() for r in runs)


def test_an_unknown_arm_and_a_single_trial_are_told(comparison: Comparison) -> None:
    with pytest.raises(UnknownName, match="retry"):
        comparison.success("retri")
    single = compare(arms(), TASKS, trials=1, max_steps=2)
    with pytest.raises(InvalidValue, match="one trial only"):
        single.difference("with memory", "retry")
    with pytest.raises(InvalidValue):
        compare({}, TASKS)
    with pytest.raises(InvalidValue):
        compare(arms(), TASKS, lifetimes=0)


def test_a_comparison_that_is_played_again_from_its_log_is_the_same(comparison: Comparison, tmp_path: Path) -> None:
    budget = {"lifetimes": 2, "trials": 3, "max_steps": 6, "seed": 1, "log": tmp_path / "run.db"}
    again = [compare(arms(), TASKS, workers=w, **budget) for w in (4, 1)]  # type: ignore[arg-type]
    for other in again:
        for arm, runs in comparison.runs.items():
            assert [r.fingerprint() for r in other.runs[arm]] == [r.fingerprint() for r in runs]


def test_a_comparison_whose_budget_runs_out_ends_all_the_same() -> None:
    played = compare(arms(), TASKS, lifetimes=2, trials=2, budget=Ledger(seconds=0))
    assert played.by_trial("retry") == [0.0, 0.0]
    assert any("budget" in note for note in played.notes)


def test_curves_as_table_terminal_and_picture(comparison: Comparison, tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    console.print(curves.table(comparison, ["with memory", "retry"]))
    text = console.export_text()
    assert "3 tasks, 2 lifetimes" in text
    assert f"{comparison.by_trial('retry')[2]:.0%}" in text
    pytest.importorskip("plotext")
    assert "tasks solved" in curves.terminal(comparison, ["with memory", "retry"])
    many = Comparison({f"arm {i}": comparison.runs["retry"] for i in range(9)}, comparison.tasks)
    shown = curves.terminal(many, list(many.runs))
    assert all(arm in shown for arm in many.runs)
    pytest.importorskip("matplotlib")
    picture = curves.picture(comparison, ["with memory", "retry"], tmp_path / "deep" / "curve.png", title="A title")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
