"""One answer from several: by majority, by likelihood, and with as many samples as it takes.

Pure functions of answers; who samples them is another matter (`agentkit.policy.consistent`,
`agentkit.critic.ensemble`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar

import numpy as np

from agentkit.errors import InvalidValue

K = TypeVar("K", bound=Hashable)
Aggregate = Literal["mean", "min", "product"]


def majority(answers: Sequence[K]) -> tuple[K, float]:
    """The most frequent answer and its share; of equally frequent ones the first (Wang et al. 2023,
    "Self-Consistency", section 2, the unweighted vote)."""
    if not answers:
        raise InvalidValue("There are no answers to vote among.")
    winner, count = Counter(answers).most_common(1)[0]
    return winner, count / len(answers)


def soft(answers: Sequence[K], logprobs: Sequence[Sequence[float]], aggregate: Aggregate = "mean") -> tuple[K, float]:
    """The answer whose tokens are likeliest, and that likelihood (Wang et al. 2024, "Soft Self-Consistency Improves
    Language Model Agents", section 2): each sample is scored by the mean, the least, or the product of its tokens'
    probabilities, and the best score wins; no two answers need to be the same.

    ``logprobs[i]`` are the natural-log probabilities of the tokens of answer i.
    """
    if not answers or len(answers) != len(logprobs):
        raise InvalidValue(f"{len(answers)} answers have {len(logprobs)} lists of log-probabilities.")
    scores = [likelihood(tokens, aggregate) for tokens in logprobs]
    best = int(np.argmax(scores))
    return answers[best], scores[best]


def likelihood(logprobs: Sequence[float], aggregate: Aggregate = "mean") -> float:
    """The likelihood of one answer from those of its tokens; 0 for an answer of no tokens."""
    if not logprobs:
        return 0.0
    probabilities = np.exp(np.asarray(logprobs, float))
    if aggregate == "mean":
        return float(probabilities.mean())
    return float(probabilities.min() if aggregate == "min" else probabilities.prod())


def settled(answers: Sequence[Hashable], confidence: float = 0.95) -> bool:
    """Whether the majority so far would stay one (Aggarwal et al. 2023, "Let's Sample Step by Step", section 3, the
    Beta criterion): whether the leading answer is more frequent than the second with probability ``confidence``.

    With counts v1 >= v2 of the two most frequent answers and a uniform prior, the share of the first is
    Beta(v1 + 1, v2 + 1) distributed, and the criterion is P(share > 1/2) > ``confidence``.
    """
    counts = [count for _, count in Counter(answers).most_common(2)]
    if not counts:
        return False
    first, second = counts[0], counts[1] if len(counts) > 1 else 0
    return beta_above_half(first + 1, second + 1) > confidence


def beta_above_half(a: int, b: int) -> float:
    """P(X > 1/2) of X ~ Beta(a, b) with whole a, b: the chance of fewer than a heads in a + b - 1 fair tosses."""
    tosses = a + b - 1
    return float(sum(math.comb(tosses, heads) for heads in range(a)) / 2**tosses)
