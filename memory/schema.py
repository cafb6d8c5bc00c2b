"""The tables of a store, as numbered migrations.

A store's version is the number of the last migration that was applied to it. Each migration runs in one transaction
together with the change of the number, so that a process killed in the middle leaves the version before. Migrations
that have been released are never edited: a change of the tables is a new one at the end of `MIGRATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Execute = Callable[[str], object]


def _version_1(execute: Execute, types: Mapping[str, str]) -> None:
    """The log and the table that says what the store is. ``{vector}`` holds D float32, little-endian."""
    execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    execute(
        """CREATE TABLE log (
            seq {seq} PRIMARY KEY,
            op TEXT NOT NULL,
            id BIGINT,
            kind TEXT,
            namespace TEXT,
            task TEXT,
            episode TEXT,
            step INTEGER,
            outcome {real},
            importance {real},
            time {real},
            text TEXT,
            key TEXT,
            data TEXT,
            vector {vector}
        )""".format(**types)
    )


def _version_2(execute: Execute, _types: Mapping[str, str]) -> None:
    """Credits, tokens and rollbacks are few beside the records, and are read alone whenever a store is opened."""
    execute("CREATE INDEX log_marks ON log (seq) WHERE op IN ('credit', 'token', 'rollback')")


MIGRATIONS: tuple[Callable[[Execute, Mapping[str, str]], None], ...] = (_version_1, _version_2)
CURRENT = len(MIGRATIONS)
SQLITE_TYPES = {"seq": "INTEGER", "real": "REAL", "vector": "BLOB"}
POSTGRES_TYPES = {"seq": "BIGINT", "real": "DOUBLE PRECISION", "vector": "BYTEA"}
# PostgreSQL keeps the spans, and with them the vectors, in a table of its own; the log's column stays empty there.
POSTGRES_SPANS = (
    """CREATE TABLE spans (
        version BIGINT NOT NULL,
        id BIGINT NOT NULL,
        born BIGINT NOT NULL,
        died BIGINT NOT NULL,
        kind TEXT NOT NULL,
        namespace TEXT NOT NULL,
        task TEXT NOT NULL,
        episode TEXT NOT NULL,
        outcome DOUBLE PRECISION,
        importance DOUBLE PRECISION NOT NULL,
        time DOUBLE PRECISION NOT NULL,
        vector vector({dim})
    )""",
    "CREATE INDEX spans_version ON spans (version)",
    "CREATE INDEX spans_id ON spans (id)",
    "CREATE INDEX spans_task ON spans (task)",
    "CREATE INDEX spans_episode ON spans (episode)",
)
