"""An SQLite file made a store of the current schema: created, migrated, or embedded anew. Nothing is written to a file
that is something else."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentkit.memory.backend import Vector
from agentkit.memory.errors import EmbedderMismatch, NewerSchema, NotAStore
from agentkit.memory.schema import CURRENT, MIGRATIONS, SQLITE_TYPES
from agentkit.memory.sqlite_file import APPLICATION_ID, scalar
from agentkit.memory.write_ahead import write_ahead

Reembed = Callable[[list[str]], Vector]


def prepare(db: sqlite3.Connection, path: str, embedder: str, dim: int, reembed: Reembed | None) -> str:
    """Check the file behind ``db``, bring it to the current schema, and return the store's own id."""
    kept = path != ":memory:"
    version, tables = _version(db)
    if version > CURRENT:
        raise NewerSchema.of(path, version, CURRENT)
    if version == 0 and tables:
        raise NotAStore(
            f"{path} is an SQLite database of something else (tables: {', '.join(sorted(tables)[:5])})."
            " Nothing was written; give another path."
        )
    if version and reembed is None:
        _check_embedder(db, path, embedder, dim)
    if kept and not version:
        db.execute("PRAGMA page_size=8192")  # four records a page; takes effect only in a new file
    if kept and scalar(db.execute("PRAGMA journal_mode")) != "wal":
        write_ahead(db)
    if version < CURRENT:
        with exclusive(db):
            version, _ = _version(db)  # another process may have been first
            for number in range(version + 1, CURRENT + 1):
                MIGRATIONS[number - 1](db.execute, SQLITE_TYPES)
            if version == 0:
                db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                db.execute("INSERT INTO meta VALUES ('embedder', ?)", (embedder,))
                db.execute("INSERT INTO meta VALUES ('dim', ?)", (str(dim),))
                db.execute("INSERT INTO meta VALUES ('store', ?)", (secrets.token_hex(8),))
            db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(CURRENT),))
    if reembed is not None:
        _reembed(db, embedder, dim, reembed)
    _check_embedder(db, path, embedder, dim)
    return str(scalar(db.execute("SELECT value FROM meta WHERE key = 'store'")))


@contextmanager
def exclusive(db: sqlite3.Connection) -> Iterator[None]:
    """A write transaction, one at a time among all processes."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> tuple[int, set[str]]:
    tables = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if scalar(db.execute("PRAGMA application_id")) != APPLICATION_ID or "meta" not in tables:
        return 0, tables
    return int(scalar(db.execute("SELECT value FROM meta WHERE key = 'schema'"))), tables


def _check_embedder(db: sqlite3.Connection, path: str, embedder: str, dim: int) -> None:
    if (stored := _embedder(db)) != (embedder, dim):
        raise EmbedderMismatch.of(path, stored, (embedder, dim))


def _embedder(db: sqlite3.Connection) -> tuple[str, int]:
    meta = {row[0]: row[1] for row in db.execute("SELECT key, value FROM meta")}
    return meta["embedder"], int(meta["dim"])


def _reembed(db: sqlite3.Connection, embedder: str, dim: int, embed: Reembed) -> None:
    """Replace every vector of the log, those of the past too, in one transaction. The store gets a new id of its own,
    by which saved indexes and other processes see that the vectors are others."""
    with exclusive(db):
        if _embedder(db) == (embedder, dim):
            return
        last = 0
        while True:
            rows = db.execute(
                "SELECT seq, coalesce(key, text) FROM log WHERE seq > ? AND op IN ('add', 'edit') ORDER BY seq"
                " LIMIT 1024",
                (last,),
            ).fetchall()
            if not rows:
                break
            block = embed([row[1] for row in rows])
            updates = [(vector.tobytes(), row[0]) for vector, row in zip(block, rows, strict=True)]
            db.executemany("UPDATE log SET vector = ? WHERE seq = ?", updates)
            last = rows[-1][0]
        for key, value in (("embedder", embedder), ("dim", str(dim)), ("store", secrets.token_hex(8))):
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
