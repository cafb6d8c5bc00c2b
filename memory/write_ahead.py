"""SQLite's write-ahead log, asked for by several processes at once."""

from __future__ import annotations

import sqlite3
import time

PATIENCE_S = 60.0  # how long a connection waits for another's write


def write_ahead(connection: sqlite3.Connection, patience_s: float = PATIENCE_S) -> None:
    """Set the journal mode to WAL. For this one statement SQLite does not wait for a process that holds the file."""
    last = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                raise
        time.sleep(0.01)
