"""Intervals, by the bootstrap. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentkit.errors import InvalidValue


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its interval at ``level``. Bounds are None where they are undefined."""

    estimate: float
    low: float | None
    high: float | None
    level: float = 0.95

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.estimate:+.2f} (one lifetime: no interval)"
        return f"{self.estimate:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of ``a - b``, both (lifetimes, tasks) and paired, with a percentile bootstrap interval.

    Lifetimes and tasks are both resampled, with replacement and independently (Owen 2007, "The pigeonhole bootstrap",
    section 4): the interval speaks of other seeds and of other tasks like these. It is a little wider than need be.
    With one lifetime there is no interval.

    Raises `InvalidValue` where the shapes differ or a value is not finite.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape:
        raise InvalidValue(f"the arms are not paired: their shapes are {first.shape} and {second.shape}")
    difference = first - second
    if difference.ndim != 2 or difference.size == 0:
        raise InvalidValue(f"the shape is {difference.shape}; it must be (lifetimes, tasks), neither of them 0")
    if not np.isfinite(difference).all():
        raise InvalidValue("a value is NaN or infinite; what is undefined has no mean")
    if not 0 < level < 1:
        raise InvalidValue(f"level is {level}; it must lie between 0 and 1")
    estimate = float(difference.mean())
    lifetimes, tasks = difference.shape
    if lifetimes < 2:
        return Interval(estimate, None, None, level)
    rng = np.random.default_rng(seed)
    # A resample weighs each lifetime and each task by how often it was drawn.
    rows = rng.multinomial(lifetimes, np.full(lifetimes, 1 / lifetimes), size=resamples) / lifetimes
    columns = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=resamples) / tasks
    means = np.einsum("rl,lt,rt->r", rows, difference, columns, optimize=True)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)


def mean_interval(x: npt.ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of ``x``, (lifetimes, tasks), with the interval of `paired_difference`."""
    values = np.asarray(x, float)
    return paired_difference(values, np.zeros_like(values), level=level, resamples=resamples, seed=seed)
