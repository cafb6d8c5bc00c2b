"""Choosing the next token of one sequence: the same for the same logits and seed, whoever else is in the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen token and its natural-log probability at temperature 1, before any restriction."""

    token: int
    logprob: float


def generator(seed: int | None, sample: int) -> np.random.Generator:
    """The random numbers of sample number ``sample`` of a request; fresh ones where it has no seed."""
    entropy = None if seed is None else [seed & (2**64 - 1), sample]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def pick(
    logits: Tensor, temperature: float, top_p: float, rng: np.random.Generator, allowed: Tensor | None = None
) -> Pick:
    """Draw from ``logits``, (vocabulary,) float32. ``temperature`` 0 takes the most likely token.

    ``allowed`` is a bool (vocabulary,) mask. Exactly one random number is used for each token drawn at a temperature,
    so that a sequence's randomness depends on nothing but its seed and length.
    """
    with torch.inference_mode():
        log_total = torch.logsumexp(logits, 0)
        usable = logits if allowed is None else logits.masked_fill(~allowed, float("-inf"))
        if temperature <= 0:
            token = int(usable.argmax())
        else:
            weights = torch.softmax(usable / temperature, 0)
            if top_p < 1:
                weights = _nucleus(weights, top_p)
            token = _inverse_cdf(weights, rng.random())
        return Pick(token, float(logits[token] - log_total))


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The most likely tokens whose probabilities first reach ``top_p`` (Holtzman et al. 2020, section 3.1)."""
    values, order = torch.sort(weights, descending=True, stable=True)
    before = torch.cumsum(values, 0) - values
    kept = order[before < top_p]
    return torch.zeros_like(weights).index_copy_(0, kept, weights[kept])


def _inverse_cdf(weights: Tensor, uniform: float) -> int:
    """The index at which the cumulative sum of ``weights`` (not normalised) passes ``uniform`` of their total."""
    padded = torch.nn.functional.pad(weights, (0, -len(weights) % _CHUNK)).view(-1, _CHUNK)
    chunks = np.cumsum(padded.sum(1).double().cpu().numpy())
    target = uniform * chunks[-1]
    last = int(np.searchsorted(chunks, chunks[-1]))  # the last chunk that holds anything
    chunk = min(int(np.searchsorted(chunks, target, side="right")), last)
    rest = target - (chunks[chunk - 1] if chunk else 0.0)
    inside = padded[chunk].double().cpu().numpy()
    index = int(np.searchsorted(np.cumsum(inside), rest, side="right"))
    if index >= _CHUNK or inside[index] == 0:  # rounding left a remainder: the last token that can be drawn
        index = int(np.flatnonzero(inside)[-1])
    return chunk * _CHUNK + index
