"""Two bits a dimension: a small stand-in for the vectors, scanned to find candidates among many rows.

A vector is rotated at random, after which its coordinates are close to normal whatever they were before, and each
coordinate is rounded to one of the four levels that lose least for a normal distribution (Max 1960, table I). Two
coordinates make a nibble, which is what FAISS's fast-scan kernel reads (André et al. 2015, "Cache locality is not
enough"): its product quantizer is given the levels instead of being trained. The candidates it finds are scored again
from the vectors themselves.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.memory.knn import one_thread

Vectors = npt.NDArray[np.float32]
Packed = npt.NDArray[np.uint8]

BLOCK = 32  # rows that the kernel reads at once, and that are stored together
_LEVELS = np.array([-1.5104, -0.4528, 0.4528, 1.5104], np.float32)
_BATCH = 16384


class Coder:
    """The rounding: a rotation, and the mean and deviation of each rotated coordinate. It is made from a sample, saved,
    and the same for every row of a file."""

    def __init__(self, mean: Vectors, deviation: Vectors, rotation: Vectors) -> None:
        self.mean, self.deviation, self.rotation = mean, deviation, rotation
        self.dim = len(mean)
        self.width = self.dim + self.dim % 2  # a nibble takes two coordinates; an odd one is paired with nothing
        self.row_bytes = (self.width // 2 + 1) // 2

    @classmethod
    def of(cls, sample: Vectors) -> Coder:
        """The coder for vectors like these, ``(N, D)``."""
        dim = sample.shape[1]
        rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0].astype(np.float32)
        rotated = sample @ rotation
        return cls(rotated.mean(axis=0), np.maximum(rotated.std(axis=0), 1e-6), rotation)

    def rotated(self, vectors: Vectors) -> Vectors:
        """``(N, D) -> (N, width)``."""
        return np.ascontiguousarray(np.pad(vectors @ self.rotation, ((0, 0), (0, self.width - self.dim))))

    def encode(self, vectors: Vectors) -> Packed:
        """The codes of vectors as the kernel reads them, ``(N, D) float32 -> (ceil(N / 32), 32 * row_bytes) uint8``."""
        import faiss

        index, parts = self._empty(), []
        for low in range(0, len(vectors), _BATCH):
            index.reset()
            with one_thread():
                index.add(self.rotated(vectors[low : low + _BATCH]))
            parts.append(faiss.AlignedTable_to_array(index.codes).reshape(-1, BLOCK * self.row_bytes))
        return np.concatenate(parts)

    def index(self, packed: Packed) -> Any:
        """A FAISS index that scans these codes."""
        import faiss

        index = self._empty()
        faiss.copy_array_to_AlignedTable(packed.reshape(-1), index.codes)
        index.ntotal = index.ntotal2 = BLOCK * len(packed)
        return index

    def _empty(self) -> Any:
        import faiss

        index: Any = faiss.IndexPQFastScan(self.width, self.width // 2, 4, faiss.METRIC_INNER_PRODUCT, BLOCK)
        mean = np.pad(self.mean, (0, self.width - self.dim))
        deviation = np.pad(self.deviation, (0, self.width - self.dim))
        levels = mean[:, None] + deviation[:, None] * _LEVELS  # (width, 4)
        centroids = np.empty((self.width // 2, 16, 2), np.float32)
        centroids[:, :, 0] = np.tile(levels[0::2], (1, 4))
        centroids[:, :, 1] = np.repeat(levels[1::2], 4, axis=1)
        faiss.copy_array_to_vector(centroids.ravel(), index.pq.centroids)
        index.is_trained = True
        return index


class Codes:
    """The codes of whole blocks of rows, in one part for each thread. ``packed`` is what `Coder.encode` gives."""

    def __init__(self, coder: Coder, packed: Packed, parts: int, pool: Executor | None) -> None:
        self.coder = coder
        size = max(1, -(-len(packed) // parts))
        starts = range(0, len(packed), size)

        def one(low: int) -> tuple[int, Any]:
            return low * BLOCK, coder.index(packed[low : low + size])

        self._parts = list(map(one, starts) if pool is None else pool.map(one, starts))

    def candidates(self, query: Vectors, k: int, pool: Executor | None) -> npt.NDArray[np.int64]:
        """About the k rows nearest to ``query``, in no order."""
        rotated = self.coder.rotated(query[None])

        def one(part: tuple[int, Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
            low, index = part
            with one_thread():
                scores, rows = index.search(rotated, min(k, int(index.ntotal)))
            return scores[0], rows[0] + low

        found = list(pool.map(one, self._parts)) if pool is not None and len(self._parts) > 1 else map(one, self._parts)
        scores, rows = (np.concatenate(column) for column in zip(*found, strict=True))
        if len(rows) > k:
            rows = rows[np.argpartition(scores, len(scores) - k)[len(scores) - k :]]
        return np.asarray(rows, np.int64)
