"""The journal mode is set while another process holds the file."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from agentkit.memory.write_ahead import write_ahead


def test_it_waits_for_whoever_holds_the_file(tmp_path: Path) -> None:
    held, waited = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(tmp_path / "m.db", isolation_level=None)) as first:
            first.execute("begin exclusive")
            first.execute("create table t (x)")
            held.set()
            waited.wait(0.3)
            first.execute("commit")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with closing(sqlite3.connect(tmp_path / "m.db", timeout=0.01)) as second:
        write_ahead(second)
        assert second.execute("pragma journal_mode").fetchone() == ("wal",)
        assert second.execute("select count(*) from t").fetchone() == (0,)
    thread.join()


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "m.db", isolation_level=None)) as first,
        closing(sqlite3.connect(tmp_path / "m.db", timeout=0.01)) as second,
    ):
        first.execute("begin exclusive")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_ahead(second, patience_s=0.05)
