"""The reads of a memory, each as of a sequence number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.errors import InvalidValue
from agentkit.memory.backend import Backend, Vector
from agentkit.memory.credit import Credit, CreditLog, Entry, Ledger
from agentkit.memory.embed import Embedder
from agentkit.memory.errors import UnknownRecord
from agentkit.memory.records import Diff, Recalled, Record, Where
from agentkit.memory.scoring import Scorer, diverse
from agentkit.memory.view import Query


class Reads:
    """What `agentkit.memory.store.Memory` reads."""

    embedder: Embedder
    _backend: Backend
    _credits: CreditLog
    _z: float | None

    @property
    def seq(self) -> int:
        """The number of the last event. It is a snapshot: give it to ``as_of``, `at`, `rollback` or `diff`."""
        return self._backend.seq()

    def recall(
        self,
        query: Query,
        k: int = 5,
        *,
        where: Where | None = None,
        as_of: int | None = None,
        scorer: Scorer | None = None,
        diversity: float = 0.0,
        quarantined: bool = False,
        exact: bool | None = None,
    ) -> list[Recalled]:
        """The k records nearest to ``query`` (a text, or a vector ``(D,)``) among those that ``where`` allows, the best
        first; equal scores are ordered by id.

        ``scorer`` orders them by more than relevance (`agentkit.memory.scoring`); ``diversity`` in [0, 1] trades the
        score against likeness to what was chosen before. Records that credit has found harmful (`quarantined`) are left
        out unless ``quarantined`` is True. ``exact`` False allows a search through codes, which may miss a neighbour,
        True forbids it; None allows it above 100,000 records of a store of 200,000.
        """
        seq = self._check_seq(as_of)
        _check_where(where)
        if not isinstance(k, int | np.integer):
            raise InvalidValue(f"k is {k!r}; it must be a whole number.")
        if not 0.0 <= diversity <= 1.0:
            raise InvalidValue(f"diversity is {diversity}; it must be between 0 and 1.")
        if not quarantined and (bad := self._harmful(seq)):
            where = replace(where or Where(), exclude_ids={*(where.exclude_ids if where else ()), *bad})
        pool = k if scorer is None else max(k, scorer.pool(k))
        if diversity:
            pool = max(pool, 4 * k, 40)
        hits = self._backend.search(self._vector(query), pool, where, seq, exact)
        credits = self.credit_of(hits.id.tolist(), as_of=seq)
        scores = hits.relevance
        if len(hits) and (scorer is not None or diversity):
            if scorer is not None:
                scores = scorer(hits, credits, seq)
            if diversity:
                vectors = self._backend.vectors(hits.version.tolist())
                order, scores = diverse(scores, vectors, hits.id, k, diversity)
            else:
                order = np.lexsort((hits.id, -scores))[:k]
                scores = scores[order]
            hits, credits = hits.take(order), [credits[i] for i in order]
        records = self._backend.fetch(hits.version.tolist())
        return [
            Recalled(record, float(score), float(relevance), credit.utility)
            for record, score, relevance, credit in zip(records, scores, hits.relevance, credits, strict=True)
        ]

    def recall_within(
        self,
        query: Query,
        episodes: int = 3,
        k: int = 3,
        *,
        where: Where | None = None,
        as_of: int | None = None,
    ) -> list[tuple[Recalled, list[Recalled]]]:
        """Recall in two stages (Lampinen et al. 2021, "Towards mental time travel: a hierarchical memory"): first the
        episodes whose own records (kind ``"episode"``) are nearest, then the k nearest steps inside each."""
        seq = self._check_seq(as_of)
        vector = self._vector(query)
        base = where or Where()
        found = self.recall(vector, episodes, where=replace(base, kinds=("episode",)), as_of=seq)
        return [
            (item, self.recall(vector, k, where=replace(base, kinds=("step",), episode=item.record.episode), as_of=seq))
            for item in found
        ]

    def novelty(self, text: Query, k: int = 10, *, where: Where | None = None, as_of: int | None = None) -> float:
        """How far ``text`` is from what is remembered: the mean cosine distance, in [0, 2], to its k nearest records.

        1 when nothing is remembered. This is the kNN intrinsic reward of episodic exploration (Badia et al. 2020,
        "Never Give Up", section 2, without its kernel).
        """
        hits = self._backend.search(self._vector(text), k, where, self._check_seq(as_of), None)
        return float(np.mean(1.0 - hits.relevance)) if len(hits) else 1.0

    def get(self, id_: int, *, as_of: int | None = None) -> Record:
        """The record with this id. Raises `UnknownRecord`."""
        seq = self._check_seq(as_of)
        version = self._backend.find([id_], seq).get(id_)
        if version is None:
            raise UnknownRecord(f"there is no record {id_} at sequence number {seq}.")
        return self._backend.fetch([version])[0]

    def records(self, where: Where | None = None, *, as_of: int | None = None) -> list[Record]:
        """All records that ``where`` allows, by id."""
        _check_where(where)
        return self._backend.fetch(self._backend.select(where, self._check_seq(as_of)).version.tolist())

    def count(self, where: Where | None = None, *, as_of: int | None = None) -> int:
        """How many records ``where`` allows."""
        _check_where(where)
        return self._backend.count(where, self._check_seq(as_of))

    def columns(self, where: Where | None = None, *, as_of: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """All that ``where`` allows as columns, by id, without reading any text: id, version, kind, namespace, task,
        episode, outcome (NaN for none), importance and time, ``(N,)`` each."""
        return self._backend.columns(where, self._check_seq(as_of))

    def utility(self, id_: int, *, as_of: int | None = None) -> float:
        """What credit says of a record: 0 where nothing is known, above for useful, below for harmful ones."""
        return self.credit_of([id_], as_of=as_of)[0].utility

    def credit_of(self, ids: Sequence[int], *, as_of: int | None = None) -> list[Credit]:
        """Utility, its deviation and the number of uses, for each id."""
        seq = self._check_seq(as_of)
        ledger = self._ledger(seq)
        return [ledger.of(i, seq) for i in ids]

    def quarantined(self, *, as_of: int | None = None) -> list[tuple[Record, Credit]]:
        """The records that credit has found harmful, the worst first, with what is known of them. `recall` leaves them
        out. One comes back when later episodes speak for it, or when it is rolled back."""
        seq = self._check_seq(as_of)
        versions = self._backend.find(sorted(self._harmful(seq)), seq)
        credits = {c.id: c for c in self.credit_of(list(versions), as_of=seq)}
        pairs = [(r, credits[r.id]) for r in self._backend.fetch(list(versions.values()))]
        return sorted(pairs, key=lambda pair: (pair[1].utility, pair[0].id))

    def _harmful(self, seq: int) -> frozenset[int]:
        return frozenset() if self._z is None else self._ledger(seq).harmful(seq, self._z)

    def diff(self, a: int, b: int) -> Diff:
        """What changed from sequence number ``a`` to ``b`` (either may be the later one)."""
        self._check_seq(a), self._check_seq(b)
        before, after = self._backend.select(None, a), self._backend.select(None, b)
        old = dict(zip(before.id.tolist(), before.version.tolist(), strict=True))
        new = dict(zip(after.id.tolist(), after.version.tolist(), strict=True))
        edited = [i for i in old if i in new and old[i] != new[i]]
        fetch = self._backend.fetch
        earlier = set(self._ledger(a).upto(a))
        return Diff(
            added=tuple(fetch([new[i] for i in new if i not in old])),
            removed=tuple(fetch([old[i] for i in old if i not in new])),
            edited=tuple(zip(fetch([old[i] for i in edited]), fetch([new[i] for i in edited]), strict=True)),
            credited=tuple((e.episode, e.outcome) for e in self._ledger(b).upto(b) if e not in earlier),
        )

    def batches(
        self, seq: int, size: int, *, where: Where | None = None, vectors: bool = False
    ) -> Iterator[tuple[list[Record], Vector | None]]:
        """The records as of ``seq`` by id, at most ``size`` at a time, with their vectors when asked for."""
        versions = self._backend.select(where, self._check_seq(seq)).version.tolist()
        for low in range(0, len(versions), size):
            part = versions[low : low + size]
            yield self._backend.fetch(part), self._backend.vectors(part) if vectors else None

    def credits(self, *, as_of: int | None = None) -> list[Entry]:
        """The credits that count, in log order."""
        seq = self._check_seq(as_of)
        return self._ledger(seq).upto(seq)

    def _vector(self, query: Query) -> Vector:
        if isinstance(query, str):
            return np.asarray(self._embed([query])[0])
        try:
            vector = np.asarray(query, np.float32)
        except (TypeError, ValueError):
            vector = np.empty((0, 0), np.float32)
        if vector.ndim != 1:
            raise InvalidValue(f"the query is {query!r}; it must be a text, or a vector of shape (D,).")
        return np.asarray(self._unit(vector[None, :], 1)[0])

    def _check_seq(self, seq: int | None) -> int:
        now = self._backend.seq()
        if seq is None:
            return now
        if not 0 <= seq <= now:
            raise InvalidValue(f"there is no sequence number {seq}: this memory is at {now}.")
        return seq

    def _ledger(self, seq: int) -> Ledger:
        return self._credits.ledger(seq, self._backend.marks)

    def _embed(self, texts: Sequence[str]) -> Vector:
        return self._unit(np.asarray(self.embedder.embed(texts), np.float32), len(texts))

    def _unit(self, block: Vector, count: int) -> Vector:
        """The rows scaled to unit length; rows of zeros stay."""
        if block.shape != (count, self.embedder.dim):
            raise InvalidValue(
                f"vectors have the shape {block.shape}; ({count}, {self.embedder.dim}) is needed: a row a record, of"
                " the embedder's size."
            )
        norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        if np.abs(norms - 1.0).max(initial=0.0) < 1e-6:
            return np.ascontiguousarray(block)
        if not np.isfinite(norms).all():  # squares of float32 do not overflow float64
            raise InvalidValue("a vector holds NaN or infinity; vectors must be finite.")
        norms[norms == 0] = 1.0
        return np.ascontiguousarray(block / norms[:, None], np.float32)


def _check_where(where: object) -> None:
    if where is not None and not isinstance(where, Where):
        raise InvalidValue(f"where is {where!r}; give agentkit.Where(kinds=…, task=…).")
