"""The SQLite file of a store before it is opened: whether it is one, whether it is whole, and whose it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from agentkit.memory.errors import NotAStore, StoreError, StoreFull

APPLICATION_ID = 0x41474B4D  # "AGKM": how `file` and this module know the format
MAGIC = b"SQLite format 3\x00"


def check_file(path: Path) -> None:
    """Raise unless ``path`` is absent, a new empty file, or a whole SQLite file. Nothing is written."""
    if not path.exists():
        if not path.parent.is_dir():
            raise NotAStore(f"{path.parent} is not a folder. Make it first, or give another path for the memory.")
        return
    if not path.is_file():
        raise NotAStore(f"{path} is not a file. Give the path of a memory file, or of one that is to be made.")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(100)
    if size == 0:
        if Path(f"{path}-index").exists():
            raise NotAStore(f"{path} is empty, but its index is beside it: it was truncated. Restore it from a copy.")
        return
    if not head.startswith(MAGIC):
        raise NotAStore(f"{path} is not a memory: it is no SQLite database. Nothing was written; give another path.")
    page = int.from_bytes(head[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(head[28:32], "big")
    wal = Path(f"{path}-wal")
    if size < page * pages and not (wal.exists() and wal.stat().st_size):
        raise NotAStore(
            f"{path} is truncated: {size:,} bytes of {page * pages:,}. Nothing was written; restore it from a copy,"
            " or save what is readable with `sqlite3 FILE .recover`."
        )


class translated:  # a class, because a generator costs ten times as much, which an add would notice
    """Database errors as errors of this package."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, DBAPIError | sqlite3.Error):
            return
        path, said = self.path, str(error.orig if isinstance(error, DBAPIError) else error)
        if "full" in said or "disk I/O error" in said:
            raise StoreFull(
                f"{path}: {said}. Nothing of this write was stored, all before it is there. Make room, then repeat it."
            ) from error
        if "malformed" in said or "not a database" in said:
            raise NotAStore(f"{path} is damaged: {said}. Restore it from a copy; nothing was overwritten.") from error
        raise StoreError(f"{path}: {said}") from error


def stored_embedder(path: str) -> tuple[str, int]:
    """The name and size of the embedder that a store was made with. Nothing is written."""
    file = Path(path)
    if not file.exists() or not file.stat().st_size:
        raise NotAStore(f"there is no memory at {path}.")
    check_file(file)
    with translated(path), closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        if scalar(connection.execute("PRAGMA application_id")) != APPLICATION_ID:
            raise NotAStore(f"{path} is an SQLite database of something else.")
        meta = {row[0]: row[1] for row in connection.execute("SELECT key, value FROM meta")}
    return meta["embedder"], int(meta["dim"])


def scalar(cursor: sqlite3.Cursor) -> Any:
    return cursor.fetchone()[0]
