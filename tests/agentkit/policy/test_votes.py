"""The votes, against numbers from elsewhere."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import InvalidValue
from agentkit.votes import beta_above_half, likelihood, majority, settled, soft


def test_majority_takes_the_first_of_equals() -> None:
    assert majority(["b", "a", "a", "b"]) == ("b", 0.5)
    with pytest.raises(InvalidValue):
        majority([])


def test_soft_scores_each_sample_by_its_tokens() -> None:
    logs = [[math.log(0.9), math.log(0.1)], [math.log(0.4), math.log(0.4)]]
    for aggregate, winner, score in (("mean", "a", 0.5), ("min", "b", 0.4), ("product", "b", 0.16)):
        chosen, value = soft(["a", "b"], logs, aggregate)  # type: ignore[arg-type]
        assert chosen == winner
        assert value == pytest.approx(score)
    assert likelihood([]) == 0.0


@pytest.mark.parametrize(("a", "b", "p"), [(1, 1, 0.5), (2, 1, 0.75), (5, 1, 0.96875), (4, 2, 0.8125), (1, 3, 0.125)])
def test_beta_tail(a: int, b: int, p: float) -> None:
    # Closed forms of the incomplete beta integral: for b = 1 it is 1 - 2**-a.
    assert beta_above_half(a, b) == pytest.approx(p)


def test_when_it_is_settled() -> None:
    assert not settled([])
    assert not settled(["a"] * 3)
    assert settled(["a"] * 4)
    assert not settled(["a"] * 4 + ["b"])


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_tail_is_symmetric_and_a_probability(a: int, b: int) -> None:
    assert beta_above_half(a, b) + beta_above_half(b, a) == pytest.approx(1)
