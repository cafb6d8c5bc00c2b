"""The log in an SQLite file: the truth on disk, the columns and vectors that searches need in memory.

A commit is durable (WAL, ``synchronous=FULL``) before it is acknowledged. Writers of all processes take turns
(``BEGIN IMMEDIATE``), so that numbers are given in commit order. What other processes wrote is read from the log before
each search.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import QueuePool, StaticPool

from agentkit.memory import knn
from agentkit.memory.backend import Hits, Mark, Vector
from agentkit.memory.errors import EmbeddedAnew, UnknownRecord
from agentkit.memory.events import Conflict, Event
from agentkit.memory.index import Index, SpansOnly
from agentkit.memory.records import Record, Where
from agentkit.memory.rows import CONTENT, INDEXED, LAST, MARKS, ROW, marks_of, record_of, row_of
from agentkit.memory.saved import SavedIndex
from agentkit.memory.spans import COLUMNS
from agentkit.memory.sqlite_file import check_file, translated
from agentkit.memory.sqlite_schema import exclusive, prepare
from agentkit.memory.write_ahead import PATIENCE_S

_CONTENT = ", ".join(CONTENT)
_INSERT = f"INSERT INTO log ({', '.join(ROW)}) VALUES ({', '.join('?' * len(ROW))})"  # noqa: S608
_TAIL = f"SELECT {', '.join(INDEXED)} FROM log WHERE seq > ? AND seq <= ? ORDER BY seq"  # noqa: S608
_RECORDS_KEPT = 4096
_APPLIED = 8192  # events read from the log at a time
_WORTH_SAVING = 1000  # records; fewer are read from the log as fast as from an index
_PROGRESS = 50_000  # events; more are shown being read
_BEHIND = 64  # adds that wait until they are read: together they cost the index a fifth of what they cost one by one
_BATCH = 500  # SQL parameters a statement, well below SQLite's limit


class SqliteBackend:
    """See `agentkit.memory.backend.Backend`. ``path`` is a file, or ``":memory:"`` for a memory that is not kept."""

    def __init__(
        self, path: str, *, embedder: str, dim: int, threads: int, reembed: Callable[[list[str]], Vector] | None = None
    ) -> None:
        self.path = path
        self.dim = dim
        self._kept = path != ":memory:"
        if self._kept:
            check_file(Path(path))
        # An in-memory database is one connection: everything that touches it takes the lock.
        self._lock = threading.RLock()
        self._engine = create_engine(
            "sqlite://" if not self._kept else f"sqlite:///{path}",
            poolclass=QueuePool if self._kept else StaticPool,
            connect_args={"check_same_thread": False, "timeout": PATIENCE_S},
            isolation_level="AUTOCOMMIT",
        )
        event.listen(self._engine, "connect", self._configure)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._records: OrderedDict[int, Record] = OrderedDict()
        self._behind: list[tuple[Any, ...]] = []  # rows committed here that the index does not have yet, all adds
        self._patience = 0  # after a save that failed, rows to wait for before the next
        try:
            with translated(path):
                # The writer's statements go to the driver itself: at a fifth of a millisecond an add, layers count.
                self._checked_out = self._engine.connect()
                self._writer = cast(sqlite3.Connection, self._checked_out.connection.dbapi_connection)
                self._store = prepare(self._writer, path, embedder, dim, reembed)
                self._index = self._open_index()
        except BaseException:
            self._engine.dispose()
            raise

    def _configure(self, connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        if self._kept:
            cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    # --- opening

    def _open_index(self) -> SavedIndex:
        """The index as of the last event: the saved one where it agrees with the log, and the rest from the log."""
        path = self.path if self._kept else None
        index = SavedIndex(self.dim, path, self._store, self._threads)
        last = self._same_store(self._writer.execute(LAST).fetchone())
        if self._kept and Path(f"{path}-index").exists() and index.open(last, self._fingerprint, self._vector_bytes):
            index = SavedIndex(self.dim, path, self._store, self._threads)
        self._index = index
        ahead = last - index.applied
        if ahead < _PROGRESS:
            self._catch_up(saving=True)
            return self._index
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"indexing {self.path}", total=ahead)
            self._catch_up(saving=True, report=lambda done: progress.update(task, completed=done))
        return self._index

    def _fingerprint(self, seq: int) -> str:
        row = self._writer.execute(
            "SELECT op, id, time, text, outcome, vector FROM log WHERE seq = ?", (seq,)
        ).fetchone()
        return "" if row is None else hashlib.sha256(repr(tuple(row)).encode()).hexdigest()

    def _vector_bytes(self, version: int) -> bytes:
        row = self._writer.execute("SELECT vector FROM log WHERE seq = ?", (version,)).fetchone()
        return b"" if row is None else bytes(row[0] or b"")

    # --- connections

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated(self.path):
            if self._kept:
                with self._engine.connect() as connection:
                    yield connection
            else:
                with self._lock:
                    yield self._checked_out

    # --- writing

    def append(self, events: Sequence[Event], token: str = "", base: int | None = None) -> list[int] | None:
        if token:
            events = [*events, Event("token", text=token)]
        if not events:
            return []
        plain = not token and len(events) <= _BEHIND and all(e.op == "add" for e in events)
        with self._lock, translated(self.path):
            with exclusive(self._writer):
                last = self._same_store(self._writer.execute(LAST).fetchone())
                if not plain or last != self._index.applied + len(self._behind):
                    self._catch_up()
                if token and self._index.has_token(token):
                    return None
                if base is not None and base != last:
                    raise Conflict
                seqs = list(range(last + 1, last + 1 + len(events)))
                rows = self._rows(events, seqs)
                if len(rows) == 1:
                    self._writer.execute(_INSERT, rows[0])
                else:
                    self._writer.executemany(_INSERT, rows)
            self._behind += rows
            if not plain or len(self._behind) > _BEHIND:
                self._apply()
                if self._index.due():
                    self._save()
        return seqs[:-1] if token else seqs

    def _rows(self, events: Sequence[Event], seqs: list[int]) -> list[tuple[Any, ...]]:
        """The events as rows of the log, checked against the state they are appended to."""
        rows: list[tuple[Any, ...]] = []
        given: dict[int, int] = {}  # provisional id -> id
        gone: set[int] = set()
        for seq, item in zip(seqs, events, strict=True):
            id_ = given.get(item.id, item.id)
            if item.op == "add":
                if item.id < 0:
                    given[item.id] = seq
                id_ = seq
            elif item.op in ("edit", "remove"):
                row = None if id_ in gone else self._index.spans.row_of(id_)
                if row is None and id_ not in given.values():
                    raise UnknownRecord(f"there is no record {id_} at sequence number {seq - 1}.")
                if item.base and row is not None and self._index.spans.columns["version"][row] != item.base:
                    raise Conflict
                if item.op == "remove":
                    gone.add(id_)
            rows.append(row_of(item, seq, id_, given))
        return rows

    # --- the state in memory

    def seq(self) -> int:
        with self._reading() as connection:
            last = self._same_store(connection.exec_driver_sql(LAST).one())
        if last > self._index.applied:
            with self._lock, translated(self.path):
                self._catch_up()
        return self._index.applied

    def _same_store(self, row: Sequence[Any]) -> int:
        if row[1] != self._store:
            raise EmbeddedAnew.of(self.path)
        return int(row[0])

    def _catch_up(self, *, saving: bool = False, report: Callable[[int], object] | None = None) -> None:
        """Apply what was committed since; the caller holds the lock."""
        self._apply()
        start = self._index.applied
        last = self._same_store(self._writer.execute(LAST).fetchone())
        while (low := self._index.applied) < last:  # a save may have opened another index
            rows = self._writer.execute(_TAIL, (low, min(last, low + _APPLIED))).fetchall()
            self._index.apply(rows)
            if saving and self._index.due():
                self._save()
            if report is not None:
                report(low + len(rows) - start)

    def _apply(self) -> None:
        """Apply what was committed here. `seq`, with which every read begins, sees that the index is behind."""
        if self._behind:
            rows, self._behind = self._behind, []  # first: what is interrupted is read from the log
            self._index.apply(rows)

    def _save(self) -> None:
        """Save the index; the caller holds the lock. What cannot be saved is in the log all the same."""
        if self._index.spans.n < self._patience:
            return
        try:
            if not self._index.save(self._fingerprint):
                self._index = self._open_index()
                self._index.save(self._fingerprint)
            self._patience = 0
        except OSError as error:
            self._patience = self._index.spans.n * 9 // 8
            warnings.warn(
                f"the index of {self.path} could not be saved ({error}). Every record is stored; opening will take"
                " longer until it can be.",
                RuntimeWarning,
                stacklevel=4,
            )

    def has_token(self, token: str) -> bool:
        self.seq()
        with self._lock:
            return self._index.has_token(token)

    # --- reading

    def search(self, query: Vector, k: int, where: Where | None, seq: int, exact: bool | None) -> Hits:
        with self._lock:
            state = self._index.state(where, seq)
            if self._pool is None and len(state.mask) > knn.CHUNK and self._threads > 1:
                self._pool = ThreadPoolExecutor(self._threads, "agentkit-memory")
        rows, scores = Index.search(state, query, k, exact, self._pool)
        return self._hits(state.columns, rows, scores)

    @staticmethod
    def _hits(
        columns: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.int64], relevance: npt.NDArray[np.float64]
    ) -> Hits:
        return Hits(
            columns["version"][rows],
            columns["id"][rows],
            relevance,
            columns["importance"][rows],
            columns["time"][rows],
        )

    def select(self, where: Where | None, seq: int) -> Hits:
        with self._lock:
            rows, columns = np.flatnonzero(self._index.spans.mask(where, seq)), self._index.spans.columns
        rows = rows[np.argsort(columns["id"][rows], kind="stable")]
        return self._hits(columns, rows, np.zeros(len(rows)))

    def columns(self, where: Where | None, seq: int) -> dict[str, npt.NDArray[Any]]:
        with self._lock:
            mask, columns, words = (
                self._index.spans.mask(where, seq),
                self._index.spans.columns,
                self._index.spans.words,
            )
            names = np.array([*words, ""], dtype=object)
        rows = np.flatnonzero(mask)
        rows = rows[np.argsort(columns["id"][rows], kind="stable")]
        taken = {name: columns[name][rows] for name in COLUMNS if name not in ("born", "died")}
        return {name: names[column] if column.dtype == np.int32 else column for name, column in taken.items()}

    def count(self, where: Where | None, seq: int) -> int:
        with self._lock:
            return int(np.count_nonzero(self._index.spans.mask(where, seq)))

    def find(self, ids: Sequence[int], seq: int) -> dict[int, int]:
        found = {}
        with self._lock:
            for id_ in ids:
                row = self._index.spans.row_at(id_, seq)
                if row is not None:
                    found[id_] = int(self._index.spans.columns["version"][row])
        return found

    def fetch(self, versions: Sequence[int]) -> list[Record]:
        kept = self._records
        found: dict[int, Record] = {}
        for version in versions:
            record = kept.get(version)
            if record is not None:
                found[version] = record
        missing = [v for v in dict.fromkeys(versions) if v not in found]
        if missing:
            with self._reading() as connection:
                for low in range(0, len(missing), _BATCH):
                    part = tuple(missing[low : low + _BATCH])
                    marks = ",".join("?" * len(part))
                    sql = f"SELECT {_CONTENT} FROM log WHERE seq IN ({marks})"  # noqa: S608 - only question marks
                    for row in connection.exec_driver_sql(sql, part):
                        found[row[0]] = record_of(row)
            if len(missing) <= _RECORDS_KEPT // 4:
                with self._lock:
                    kept.update((v, found[v]) for v in missing)
                    while len(kept) > _RECORDS_KEPT:
                        kept.popitem(last=False)
        return [found[v] for v in versions]

    def vectors(self, versions: Sequence[int]) -> Vector:
        found: dict[int, bytes] = {}
        with self._reading() as connection:
            for low in range(0, len(versions), _BATCH):
                part = tuple(versions[low : low + _BATCH])
                sql = f"SELECT seq, vector FROM log WHERE seq IN ({','.join('?' * len(part))})"  # noqa: S608 - only marks
                found.update((row[0], row[1]) for row in connection.exec_driver_sql(sql, part))
        return np.frombuffer(b"".join(found[v] for v in versions), np.float32).reshape(len(versions), self.dim)

    def marks(self, after: int, upto: int) -> Iterator[Mark]:
        with self._reading() as connection:
            return marks_of(connection.exec_driver_sql(MARKS, (after, upto)).all())

    def verify(self, repair: bool) -> list[str]:
        with self._lock, translated(self.path):
            problems = [f"{self.path}: {row[0]}" for row in self._writer.execute("PRAGMA integrity_check(10)")]
            problems = [p for p in problems if not p.endswith(": ok")]
            if problems:  # the log itself: nothing here can repair it
                return problems
            self._catch_up()
            fresh = SpansOnly(self.dim)
            for low in range(0, self._index.applied, _APPLIED):
                upto = min(self._index.applied, low + _APPLIED)
                fresh.apply(self._writer.execute(_TAIL, (low, upto)).fetchall())
            wrong = fresh.difference(self._index) or self._index.disagreement(
                range(self._index.spans.n), self._vector_bytes
            )
            if not wrong:
                return []
            if repair:
                self._index = SavedIndex(self.dim, self.path if self._kept else None, self._store, self._threads)
                self._catch_up()
                if self._kept:
                    self._save()
            return [f"the index of {self.path} is wrong: {wrong}"]

    def close(self) -> None:
        with self._lock:
            self._apply()
            if self._kept and self._index.unsaved > _WORTH_SAVING:
                self._save()
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None
            self._checked_out.close()
            self._engine.dispose()
