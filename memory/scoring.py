"""Ordering what a recall found by more than relevance, and keeping it from being ten times the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agentkit.memory.backend import Hits
from agentkit.memory.credit import Credit

Scores = npt.NDArray[np.float64]


class Scorer(Protocol):
    """Orders candidates."""

    def pool(self, k: int) -> int:
        """How many candidates, the nearest first, it wants for a recall of k."""

    def __call__(self, hits: Hits, credits: Sequence[Credit], seq: int) -> Scores:
        """A score for each hit, the higher the better. ``seq`` is the sequence number that the recall reads."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """A weighted sum of relevance, recency, importance and utility.

    Relevance, recency and importance are scaled to [0, 1] over the candidates, as in Park et al. (2023, "Generative
    Agents", section 4.1); utility, which has a zero that means something, is added as it is. Recency halves every
    ``half_life`` events of the log, or seconds when ``by_time`` is True (counted back from the newest candidate, so
    that the same memory always gives the same answer). The candidates are the ``candidates`` nearest, ten for each
    that is asked for when None.
    """

    relevance: float = 1.0
    recency: float = 0.0
    importance: float = 0.0
    utility: float = 0.0
    half_life: float = 1000.0
    by_time: bool = False
    candidates: int | None = None

    def pool(self, k: int) -> int:
        return self.candidates if self.candidates is not None else max(100, 10 * k)

    def __call__(self, hits: Hits, credits: Sequence[Credit], seq: int) -> Scores:
        age = hits.time.max() - hits.time if self.by_time else (seq - hits.version).astype(np.float64)
        recency = 0.5 ** (age / self.half_life)
        total = np.zeros(len(hits))
        for weight, values in (
            (self.relevance, hits.relevance),
            (self.recency, recency),
            (self.importance, hits.importance),
        ):
            if weight:
                total += weight * _scaled(values)
        if self.utility:
            total += self.utility * np.array([c.utility for c in credits])
        return total


RELEVANCE = Weighted()
GENERATIVE_AGENTS = Weighted(relevance=1.0, recency=1.0, importance=1.0)
EARNED = Weighted(relevance=1.0, utility=1.0)


def _scaled(values: Scores) -> Scores:
    low, high = values.min(), values.max()
    return np.ones(len(values)) if high == low else (values - low) / (high - low)


def diverse(
    scores: Scores, vectors: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], k: int, diversity: float
) -> tuple[npt.NDArray[np.int64], Scores]:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): k candidates chosen one by one, each for its score
    less its likeness to those chosen before, ``(1 - diversity) score - diversity max cosine``. Returns their places and
    these values, which never rise."""
    chosen: list[int] = []
    values: list[float] = []
    likeness = np.zeros(len(scores))
    free = np.ones(len(scores), np.bool_)
    exact = vectors.astype(np.float64)
    for _ in range(min(k, len(scores))):
        marginal = (1.0 - diversity) * scores - diversity * likeness
        marginal[~free] = -np.inf
        place = int(np.lexsort((ids, -marginal))[0])
        chosen.append(place)
        values.append(float(marginal[place]))
        free[place] = False
        likeness = np.maximum(likeness, (exact * exact[place]).sum(axis=1))
    return np.array(chosen, np.int64), np.array(values)
