"""A memory: records that are added, recalled, credited, edited, removed, and rolled back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike, cpu_count, fspath
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.errors import InvalidValue
from agentkit.memory import jsonl, upkeep
from agentkit.memory.backend import Backend, Vector
from agentkit.memory.credit import Credit, CreditLog, Entry, Ledger
from agentkit.memory.embed import Embedder, HashingEmbedder
from agentkit.memory.errors import UnknownRecord
from agentkit.memory.events import Conflict, Event
from agentkit.memory.records import Diff, Recalled, Record, Where
from agentkit.memory.scoring import Scorer, diverse
from agentkit.memory.view import Query, View
from agentkit.memory.writes import Op, Transaction, events_of

__all__ = ["Memory", "Query", "Scorer", "Transaction", "View", "stored_embedder"]

_EDITABLE = frozenset(Record.__dataclass_fields__) - {"id", "seq"}


class Memory:
    """An append-only log of records with kNN recall, read as of any sequence number.

    ``where`` is the path of an SQLite file (made when absent), ``":memory:"`` for one that is not kept, or a
    ``postgresql://`` URL. All methods can be called from many threads; several processes may open the same store.
    ``embedder`` turns record keys and queries into vectors; its name and size are in the store, and opening it with
    another raises `EmbedderMismatch`. ``clock`` gives the time of records that have none. ``threads`` scan at once.
    ``quarantine`` is how many deviations below zero the utility of a record must be for `recall` to leave it out (2.33
    is one in a hundred by chance); None leaves none out. ``reembed`` True computes every vector of the store anew when
    it was made with another embedder.

    Raises `NotAStore`, `NewerSchema` or `EmbedderMismatch`, and then has written nothing.
    """

    def __init__(
        self,
        where: str | PathLike[str] = ":memory:",
        *,
        embedder: Embedder | None = None,
        clock: Callable[[], float] = time.time,
        threads: int | None = None,
        quarantine: float | None = 2.33,
        reembed: bool = False,
    ) -> None:
        self.embedder: Embedder = embedder or HashingEmbedder()
        self._clock = clock
        self._backend: Backend = _open(
            fspath(where), self.embedder, threads or min(8, cpu_count() or 1), self._embed if reembed else None
        )
        self._here = threading.local()
        self._credits = CreditLog()
        self._z = quarantine
        self._closed = False

    # --- life

    def close(self) -> None:
        """Save the index and let go of the store. A closed memory can be closed again."""
        if not self._closed:
            self._closed = True
            self._backend.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count()

    def verify(self, *, repair: bool = True) -> list[str]:
        """Compare the whole index with the log, and check the log's own file: what is wrong, empty when nothing is.
        A wrong index is built anew when ``repair`` is True. Takes as long as reading the whole log."""
        return self._backend.verify(repair)

    # --- writing

    def add(self, record: Record, vector: npt.ArrayLike | None = None) -> int:
        """Store a record and return its id. It is durable, and the next recall sees it, when this returns.

        ``vector``, ``(D,)``, is used instead of embedding the record's key.
        """
        return self.add_many([record], None if vector is None else np.asarray(vector, np.float32)[None, :])[0]

    def add_many(self, records: Iterable[Record], vectors: npt.ArrayLike | None = None) -> list[int]:
        """Store records in one atomic commit, and return their ids. ``vectors`` is ``(N, D)``."""
        records, now = list(records), float(self._clock())
        block: Vector | None = None
        if vectors is not None:
            block = self._unit(np.asarray(vectors, np.float32), len(records))
        tx = self._transaction
        if tx is not None:
            ids = []
            for i, record in enumerate(records):
                id_ = tx.provisional()
                event = Event("add", id=id_, record=record, vector=None if block is None else block[i], time=now)
                tx.ops.append(Op("add", id_=id_, event=event))
                ids.append(id_)
            return ids
        if block is None:
            block = self._embed([r.key or r.text for r in records])
        seqs = self._backend.append(
            [Event("add", record=r, vector=v, time=now) for r, v in zip(records, block, strict=True)]
        )
        assert seqs is not None  # only a token can make it None
        return seqs

    def edit(self, id_: int, **changes: Any) -> None:  # the fields of Record, each of its own type
        """Change fields of a record, which keeps its id. A changed ``text`` or ``key`` is embedded again.

        Raises `UnknownRecord`, and `InvalidValue` for a field that `Record` does not have.
        """
        unknown = changes.keys() - _EDITABLE
        if unknown:
            raise InvalidValue(f"a record has no field {sorted(unknown)}. Its fields: {', '.join(sorted(_EDITABLE))}.")
        self._write([Op("edit", id_=id_, changes=changes)])

    def add_unless_known(self, record: Record, similarity: float = 0.95) -> tuple[int, bool]:
        """Store a record unless one of the same kind, namespace and task is at least so similar (cosine): the id of the
        new or the known one, and whether it is new. Two writers cannot both add the same."""
        if self._transaction is not None:
            raise InvalidValue("add_unless_known reads what it must not miss, so it cannot be inside a transaction.")
        vector = self._embed([record.key or record.text])[0]
        where = Where(kinds=(record.kind,), namespace=record.namespace, task=record.task)
        while True:
            seq = self._backend.seq()
            near = self._backend.search(vector, 1, where, seq, True)
            if len(near) and near.relevance[0] >= similarity:
                return int(near.id[0]), False
            event = Event("add", record=record, vector=vector, time=float(self._clock()))
            try:
                seqs = self._backend.append([event], base=seq)
            except Conflict:  # something was written since the search
                continue
            assert seqs is not None
            return seqs[0], True

    def merge(self, ids: Iterable[int], **changes: Any) -> int:
        """Make one record of several. See `agentkit.memory.upkeep.merge`."""
        return upkeep.merge(self, ids, **changes)

    def forget(
        self, capacity: int, policy: upkeep.Policy, *, where: Where | None = None, seed: int = 0, dry_run: bool = False
    ) -> list[int]:
        """Remove records until ``capacity`` of those that ``where`` allows are left; the removed ids. ``policy`` is
        ``"oldest"``, ``"least_useful"``, ``"reservoir"`` or ``"most_redundant"`` (`agentkit.memory.upkeep.victims`).
        With ``dry_run`` nothing is removed."""
        ids = upkeep.victims(self, capacity, policy, where, seed=seed)
        if ids and not dry_run:
            self.remove(ids, reason=f"forgotten: {policy}, capacity {capacity}")
        return ids

    def consolidate(
        self,
        reflect: Callable[[Sequence[Record]], Iterable[Record]],
        *,
        where: Where | None = None,
        group: Callable[[Record], str] = lambda record: record.task,
        least: int = 3,
    ) -> list[int]:
        """Learn lessons from groups of records, keeping the evidence. See `agentkit.memory.upkeep.consolidate`."""
        return upkeep.consolidate(self, reflect, where, group=group, least=least)

    def remove(self, ids: int | Iterable[int], *, reason: str = "") -> None:
        """Remove records. Reads as of earlier numbers still see them. Raises `UnknownRecord`, and then removes none."""
        ids = [ids] if isinstance(ids, int) else list(dict.fromkeys(ids))
        self._write([Op("remove", id_=i, event=Event("remove", id=i, text=reason)) for i in ids])

    def credit(
        self,
        ids: Iterable[int],
        outcome: float,
        *,
        episode: str = "",
        task: str = "",
        eligible: Iterable[int] | None = None,
    ) -> None:
        """Report an episode: which records were in its prompts, and what came of it, by convention in [0, 1].

        Report the episodes that used no record too: they are what the others are compared with. ``task`` groups
        episodes that are comparable. ``eligible`` are the records that could have been used, where that is known.
        See `agentkit.memory.credit` for what is made of it.
        """
        data: dict[str, list[int]] = {"ids": sorted(set(ids))}
        if eligible is not None:
            data["eligible"] = sorted(set(eligible))
        event = Event("credit", outcome=float(outcome), episode=episode, task=task, data=data)
        self._write([Op("credit", event=event)])

    def rollback(self, seq: int) -> None:
        """Make the memory what it was at ``seq``. The rollback is an event itself: reads as of the numbers between
        still see what was there, and a rollback can be rolled back."""
        if self._transaction is not None:
            raise InvalidValue("a rollback inside a transaction would hide what the transaction writes. Do it outside.")
        self._check_seq(seq)
        self._backend.append([Event("rollback", id=seq)])

    @contextmanager
    def transaction(self, token: str = "") -> Iterator[Transaction]:
        """All that this thread writes inside is committed at the end, at once, or not at all if an error leaves it.

        With a ``token`` that was committed before (and not rolled back since), what is written inside is left out and
        ``done`` is True: work that is repeated after a crash is stored once. Reads inside see the memory without what
        was written inside. `add` inside returns provisional ids, negative, which `edit`, `remove` and `credit` inside
        accept. No lock is held until the end.
        """
        if self._transaction is not None:
            raise InvalidValue("this thread is already in a transaction; transactions do not nest.")
        tx = Transaction(token, bool(token) and self._backend.has_token(token))
        self._here.transaction = tx
        try:
            yield tx
        finally:
            self._here.transaction = None
        if not tx.done:
            self._commit(tx)

    @property
    def _transaction(self) -> Transaction | None:
        return getattr(self._here, "transaction", None)

    def _write(self, ops: list[Op]) -> None:
        if self._transaction is not None:
            self._transaction.ops.extend(ops)
        else:
            tx = Transaction("", False)
            tx.ops = ops
            self._commit(tx)

    def _commit(self, tx: Transaction) -> None:
        while True:
            events = events_of(tx.ops, self._backend, self._embed, float(self._clock()))
            try:
                seqs = self._backend.append(events, tx.token)
            except Conflict:  # another writer edited a record that is edited here: make the edit from its version
                continue
            if seqs is None:  # another process committed the token since this transaction began
                tx.done = True
                return
            tx.ids = {e.id: seq for e, seq in zip(events, seqs, strict=True) if e.op == "add" and e.id < 0}
            return

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

    # --- reading

    @property
    def seq(self) -> int:
        """The number of the last event. It is a snapshot: give it to ``as_of``, `at`, `rollback` or `diff`."""
        return self._backend.seq()

    def at(self, seq: int | None = None) -> View:
        """The memory as of ``seq``, now when None: all reads, no writes."""
        return View(self, self._check_seq(seq))

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
        True forbids it; None allows it above 100,000 records.
        """
        seq = self._check_seq(as_of)
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
        return self._backend.fetch(self._backend.select(where, self._check_seq(as_of)).version.tolist())

    def count(self, where: Where | None = None, *, as_of: int | None = None) -> int:
        """How many records ``where`` allows."""
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

    def export_jsonl(self, path: str | PathLike[str], *, as_of: int | None = None, vectors: bool = False) -> int:
        """Write records and credits as JSON lines; the number of records. See `agentkit.memory.jsonl`."""
        return jsonl.export_jsonl(self, path, as_of=as_of, vectors=vectors)

    def import_jsonl(self, path: str | PathLike[str]) -> list[int]:
        """Add what `export_jsonl` wrote, in one commit; the new ids. See `agentkit.memory.jsonl`."""
        return jsonl.import_jsonl(self, path)

    def _vector(self, query: Query) -> Vector:
        if isinstance(query, str):
            return np.asarray(self._embed([query])[0])
        return np.asarray(self._unit(np.asarray(query, np.float32)[None, :], 1)[0])

    def _check_seq(self, seq: int | None) -> int:
        now = self._backend.seq()
        if seq is None:
            return now
        if not 0 <= seq <= now:
            raise InvalidValue(f"there is no sequence number {seq}: this memory is at {now}.")
        return seq

    def _ledger(self, seq: int) -> Ledger:
        return self._credits.ledger(seq, self._backend.marks)


def _open(where: str, embedder: Embedder, threads: int, reembed: Callable[[list[str]], Vector] | None) -> Backend:
    if _is_postgres(where):
        from agentkit.memory.postgres import PostgresBackend

        return PostgresBackend(where, embedder=embedder.name, dim=embedder.dim, reembed=reembed)
    if "://" in where:
        raise InvalidValue(
            f"{where!r} is not the path of a file. A memory is an SQLite file, ':memory:' or a postgresql:// URL."
        )
    from agentkit.memory.sqlite import SqliteBackend

    return SqliteBackend(where, embedder=embedder.name, dim=embedder.dim, threads=threads, reembed=reembed)


def stored_embedder(where: str | PathLike[str]) -> tuple[str, int]:
    """The name and size of the embedder that the store at ``where`` was made with. Raises `NotAStore`."""
    path = fspath(where)
    if _is_postgres(path):
        from agentkit.memory import postgres

        return postgres.stored_embedder(path)
    from agentkit.memory import sqlite

    return sqlite.stored_embedder(path)


def _is_postgres(where: str) -> bool:
    return where.startswith(("postgresql:", "postgresql+", "postgres:"))
