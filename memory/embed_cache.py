"""Vectors kept by the hash of their text, so that no text is embedded twice: one SQLite file for all embedders."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from agentkit.errors import AgentkitError, ContractError
from agentkit.memory.embed import Embedder, Vectors
from agentkit.memory.write_ahead import PATIENCE_S, write_ahead

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    embedder TEXT NOT NULL, hash BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (embedder, hash)
) WITHOUT ROWID
"""
_ROWS = 500  # a query's share of the variables that any SQLite allows


class CacheError(AgentkitError, OSError):
    """The file of cached vectors cannot be read or written."""


class CachedEmbedder:
    """An embedder that asks ``inner`` only for texts it has not seen. Same name, same vectors, bit for bit.

    Threads and processes may share the file. A text's hash is kept, never the text.
    """

    def __init__(self, inner: Embedder, path: str | os.PathLike[str]) -> None:
        self.inner = inner
        self.path = Path(path).expanduser()
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: transactions are begun and ended below, where they are seen.
            self._db = sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
            write_ahead(self._db)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from error

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def dim(self) -> int:
        return self.inner.dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        """``(N, D) float32``, unit length. The texts that are missing go to the inner embedder in one call."""
        hashes = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest() for text in texts]
        found = self._read(list(dict.fromkeys(hashes)))
        missing = {digest: text for digest, text in zip(hashes, texts, strict=True) if digest not in found}
        with self._lock:
            self.misses += len(missing)
            self.hits += len(texts) - len(missing)
        if missing:
            vectors = np.ascontiguousarray(self.inner.embed(list(missing.values())), "<f4")
            if vectors.shape != (len(missing), self.dim):
                raise ContractError(
                    f"{self.name} embedded {len(missing)} texts to {vectors.shape}, not to {len(missing), self.dim}"
                )
            found |= dict(zip(missing, vectors, strict=True))
            self._write(missing, vectors)
        out = np.empty((len(texts), self.dim), np.float32)
        for row, digest in enumerate(hashes):
            out[row] = found[digest]
        return out

    def _read(self, hashes: list[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        width = 4 * self.dim
        try:
            with self._lock:
                for start in range(0, len(hashes), _ROWS):
                    part = hashes[start : start + _ROWS]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT hash, vector FROM vectors WHERE embedder = ? AND hash IN ({marks})"  # noqa: S608
                    for digest, blob in self._db.execute(query, (self.name, *part)):
                        if len(blob) == width:
                            found[digest] = np.frombuffer(blob, "<f4")
        except sqlite3.Error as error:
            raise self._broken(error) from error
        return found

    def _write(self, missing: dict[bytes, str], vectors: Vectors) -> None:
        rows = [(self.name, digest, vector.tobytes()) for digest, vector in zip(missing, vectors, strict=True)]
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> CachedEmbedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _broken(self, error: Exception) -> CacheError:
        return CacheError(
            f"the cache of vectors {str(self.path)!r} cannot be used: {error}. It holds nothing that cannot be "
            "computed again: delete the file, name another, or go without"
        )
