"""A memory: records that are added, recalled, credited, edited, removed, and rolled back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, cpu_count, fspath
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.address import database
from agentkit.errors import InvalidValue
from agentkit.memory import jsonl, upkeep
from agentkit.memory.backend import Backend, Vector
from agentkit.memory.credit import CreditLog
from agentkit.memory.embed import Embedder, HashingEmbedder, load_embedder
from agentkit.memory.events import Conflict, Event
from agentkit.memory.reads import Reads
from agentkit.memory.records import Record, Where
from agentkit.memory.scoring import Scorer
from agentkit.memory.view import Query, View
from agentkit.memory.writes import Op, Transaction, events_of

__all__ = ["Memory", "Query", "Scorer", "Transaction", "View", "stored_embedder"]

_EDITABLE = frozenset(Record.__dataclass_fields__) - {"id", "seq"}


class Memory(Reads):
    """An append-only log of records with kNN recall, read as of any sequence number.

    ``where`` is the path of an SQLite file (made when absent), ``":memory:"`` for one that is not kept, or a
    ``postgresql://`` URL. All methods can be called from many threads; several processes may open the same store.
    ``embedder``, or its name (see `load_embedder`), turns record keys and queries into vectors; name and size are in
    the store, and opening it with another raises `EmbedderMismatch`. ``clock`` gives the time of records that have
    none. ``threads`` scan at once.
    ``quarantine`` is how many deviations below zero the utility of a record must be for `recall` to leave it out (2.33
    is one in a hundred by chance); None leaves none out. ``reembed`` True computes every vector of the store anew when
    it was made with another embedder.

    Raises `NotAStore`, `NewerSchema` or `EmbedderMismatch`, and then has written nothing.
    """

    def __init__(
        self,
        where: str | PathLike[str] = ":memory:",
        *,
        embedder: Embedder | str | None = None,
        clock: Callable[[], float] = time.time,
        threads: int | None = None,
        quarantine: float | None = 2.33,
        reembed: bool = False,
    ) -> None:
        if not isinstance(where, str | PathLike):
            raise InvalidValue(f"a memory is at {where!r}; give a path, ':memory:' or a postgresql:// URL.")
        named = load_embedder(embedder) if isinstance(embedder, str) else embedder
        if named is not None and not hasattr(named, "embed"):
            raise InvalidValue(f"the embedder is {named!r}; it needs a name, a dim and embed(texts).")
        self.embedder: Embedder = named or HashingEmbedder()
        self._where = database(fspath(where))
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

    def __repr__(self) -> str:
        return f"Memory({self._where!r})"

    def verify(self, *, repair: bool = True) -> list[str]:
        """Compare the whole index with the log, and check the log's own file: what is wrong, empty when nothing is.
        A wrong index is built anew when ``repair`` is True. Takes as long as reading the whole log."""
        return self._backend.verify(repair)

    def at(self, seq: int | None = None) -> View:
        """The memory as of ``seq``, now when None: all reads, no writes."""
        return View(self, self._check_seq(seq))

    def export_jsonl(self, path: str | PathLike[str], *, as_of: int | None = None, vectors: bool = False) -> int:
        """Write records and credits as JSON lines; the number of records. See `agentkit.memory.jsonl`."""
        return jsonl.export_jsonl(self, path, as_of=as_of, vectors=vectors)

    def import_jsonl(self, path: str | PathLike[str]) -> list[int]:
        """Add what `export_jsonl` wrote, in one commit; the new ids. See `agentkit.memory.jsonl`."""
        return jsonl.import_jsonl(self, path)

    # --- writing

    def add(self, record: Record, vector: npt.ArrayLike | None = None) -> int:
        """Store a record and return its id. It is durable, and the next recall sees it, when this returns.

        ``vector``, ``(D,)``, is used instead of embedding the record's key.
        """
        return self.add_many([record], None if vector is None else np.asarray(vector, np.float32)[None, :])[0]

    def add_many(self, records: Iterable[Record], vectors: npt.ArrayLike | None = None) -> list[int]:
        """Store records in one atomic commit, and return their ids. ``vectors`` is ``(N, D)``."""
        records, now = list(records), float(self._clock())
        for record in records:
            _check_record(record)
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


def _open(where: str, embedder: Embedder, threads: int, reembed: Callable[[list[str]], Vector] | None) -> Backend:
    if _is_postgres(where):
        from agentkit.memory.postgres import PostgresBackend

        return PostgresBackend(where, embedder=embedder.name, dim=embedder.dim, reembed=reembed)
    _check_path(where)
    from agentkit.memory.sqlite import SqliteBackend

    return SqliteBackend(where, embedder=embedder.name, dim=embedder.dim, threads=threads, reembed=reembed)


def stored_embedder(where: str | PathLike[str]) -> tuple[str, int]:
    """The name and size of the embedder that the store at ``where`` was made with. Raises `NotAStore`."""
    path = fspath(where)
    if _is_postgres(path):
        from agentkit.memory import postgres

        return postgres.stored_embedder(path)
    _check_path(path)
    from agentkit.memory import sqlite_file

    return sqlite_file.stored_embedder(path)


def _check_record(record: object) -> None:
    if not isinstance(record, Record) or not isinstance(record.text, str):
        raise InvalidValue(f"a memory keeps records of texts, and not {record!r}: agentkit.Record(kind, text).")


def _check_path(where: str) -> None:
    if "://" in where:
        raise InvalidValue(
            f"{database(where)!r} is not the path of a file. A memory is an SQLite file, ':memory:' or a postgresql:// "
            "URL."
        )


def _is_postgres(where: str) -> bool:
    return where.startswith(("postgresql:", "postgresql+", "postgres:"))
