"""Exact k nearest neighbours by inner product, deterministic to the last tie.

Candidates come from float32 arithmetic, whose rounding depends on how the rows are laid out; the order of the result
does not. Every row whose float32 score is within rounding error of the k-th is scored again in float64, row by row, and
equal scores are ordered by id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CHUNK = 65536  # rows a scan takes at a time: the unit of parallel work, and of the choice between gather and scan
_GATHER = 0.01  # below this share of a chunk's rows, gathering them costs less than scanning past the others
_SMALL = 2048  # rows up to which gathering is always cheaper
_SPARE = 16  # candidates beyond k, so that near ties at the end are nearly always settled in one pass


def margin(dim: int) -> float:
    """Twice a bound on the float32 rounding error of an inner product of unit vectors (Higham 2002, section 3.1): a row
    that belongs among the k best cannot score further below the k-th than that."""
    return dim * float(np.finfo(np.float32).eps)


def rescore(vectors: Vectors, query: npt.NDArray[np.float32]) -> Scores:
    """Cosines in float64, ``(N, D) and (D,) -> (N,)``; a row's score depends on that row alone."""
    products = np.ascontiguousarray(vectors).astype(np.float64)
    products *= query.astype(np.float64)
    cosines: Scores = np.clip(products.sum(axis=1), -1.0, 1.0)
    return cosines


def scan(
    vectors: Vectors, mask: Mask | None, query: npt.NDArray[np.float32], k: int
) -> tuple[Rows, npt.NDArray[np.float32], bool]:
    """The k best rows of one chunk by float32 score, in no order, and whether these are all the rows that ``mask``
    selects."""
    n = len(vectors)
    selected = n if mask is None else int(np.count_nonzero(mask))
    if selected == 0:
        return np.empty(0, np.int64), np.empty(0, np.float32), True
    if mask is not None and selected < n:
        low = int(mask.argmax())
        high = n - int(mask[::-1].argmax())
        if selected == high - low:  # all of a stretch, as in a read of the past
            rows, scores, complete = scan(vectors[low:high], None, query, k)
            return rows + low, scores, complete
    if selected == n:
        mask = None
    if mask is not None and (selected < _GATHER * n or n <= _SMALL or selected <= max(k, 64)):
        chosen = np.flatnonzero(mask)
        rows, scores = _top(vectors[chosen], query, k, None)
        return chosen[rows], scores, len(rows) == selected
    rows, scores = _top(vectors, query, k, mask)
    return rows, scores, len(rows) == selected


def _top(vectors: Vectors, query: Vectors, k: int, mask: Mask | None) -> tuple[Rows, Vectors]:
    import faiss

    n, dim = vectors.shape
    k = min(k, n)
    scores, rows = np.empty(k, np.float32), np.empty(k, np.int64)
    selector = None
    if mask is not None:
        bits = np.packbits(mask, bitorder="little")
        selector = faiss.IDSelectorBitmap(n, faiss.swig_ptr(bits))
    search: Any = faiss.knn_inner_product  # a SWIG overload set, which its stubs give only in part
    pointer = faiss.swig_ptr
    with one_thread():
        search(pointer(query), pointer(vectors), dim, 1, n, k, pointer(scores), pointer(rows), selector)
    found = rows >= 0
    return rows[found], scores[found]


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS uses this thread alone. Its own threads wait for each other by spinning, which on a busy machine takes ten
    times as long as the work; chunks are spread over threads here instead. The setting is the calling thread's own."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def exact(
    blocks: Sequence[tuple[int, Vectors]],
    mask: Mask | None,
    ids: Rows,
    query: npt.NDArray[np.float32],
    k: int,
    pool: Executor | None = None,
) -> tuple[Rows, Scores]:
    """The k rows with the highest inner product with ``query`` among those that ``mask`` selects, the best first.

    ``blocks`` are (first row, ``(n, D) float32`` contiguous); ``ids`` orders equal scores. Returns rows and scores.
    """
    chunks = [(start + low, block[low : low + CHUNK]) for start, block in blocks for low in range(0, len(block), CHUNK)]
    chunks = [c for c in chunks if mask is None or mask[c[0] : c[0] + len(c[1])].any()]
    if k <= 0 or not chunks:
        return np.empty(0, np.int64), np.empty(0)

    def one(chunk: tuple[int, Vectors]) -> tuple[Rows, npt.NDArray[np.float32], bool]:
        start, vectors = chunk
        return scan(vectors, None if mask is None else mask[start : start + len(vectors)], query, k + _SPARE)

    parallel = pool is not None and len(chunks) > 1
    results = list(pool.map(one, chunks)) if parallel and pool is not None else [one(c) for c in chunks]
    scores = np.concatenate([s for _, s, _ in results])
    rows = np.concatenate([r + c[0] for (r, _, _), c in zip(results, chunks, strict=True)])
    slack = margin(len(query))
    if len(scores) > k:
        kth = float(np.partition(scores, len(scores) - k)[len(scores) - k])
        more = []
        for (found, near, complete), (start, vectors) in zip(results, chunks, strict=True):
            if not complete and len(near) and near.min() >= kth - slack:
                # Ties run past what was fetched (the same text stored many times): look at the whole chunk.
                everything = vectors @ query >= kth - slack
                if mask is not None:
                    everything &= mask[start : start + len(vectors)]
                everything[found] = False
                more.append(np.flatnonzero(everything) + start)
        rows = np.concatenate([rows[scores >= kth - slack], *more])
    return best(blocks, rows, ids, query, k)


def best(
    blocks: Sequence[tuple[int, Vectors]], rows: Rows, ids: Rows, query: npt.NDArray[np.float32], k: int
) -> tuple[Rows, Scores]:
    """The k of ``rows`` with the highest inner product with ``query``, the best first, and their scores in float64."""
    final = np.empty(len(rows))
    for start, block in blocks:
        inside = (rows >= start) & (rows < start + len(block))
        if inside.any():
            final[inside] = rescore(block[rows[inside] - start], query)
    order = np.lexsort((ids[rows], -final))[:k]
    return rows[order], final[order]
