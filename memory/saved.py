"""The index saved beside the log, so that a store opens without reading all of it.

The vectors are in a file that only grows, and so are their codes; everything else is in one that is replaced whole.
What is saved says up to which event it goes (the watermark); the rest is applied from the log. Nothing saved is trusted
that disagrees with the log: a saved index that is missing, damaged, of another store or ahead of the log is built anew.

A generation is one layout of the rows. Compaction starts a new one: the living first, so that scans of the present do
not touch what has ended. Processes of the same generation append the same bytes at the same places.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from agentkit.memory import index
from agentkit.memory.codes import BLOCK, Coder, Codes
from agentkit.memory.events import FOREVER
from agentkit.memory.index import Index, Rows
from agentkit.memory.spans import COLUMNS, Spans

FORMAT = 2
_MAGIC = b"agentkit memory index\n"
_UNSAVED = 16384  # rows, or a sixteenth of all, that may be unsaved before the index is saved
_DEAD, _FEW = 0.3, 8192  # the share of ended rows that makes a save compact, and a number that never does
_BLOCKS = 512  # blocks of codes checked at a time
_SAMPLES = 8  # rows compared with the log when a saved index is opened
_COPY = 16384


class SavedIndex(Index):
    """An index with its files. ``path`` is that of the log, None for an index that is not saved; ``store`` is the log's
    own id; ``threads`` scan at once."""

    def __init__(self, dim: int, path: str | None, store: str, threads: int) -> None:
        super().__init__(dim, path or ":memory:")
        self.saving, self.store, self.threads = path is not None, store, threads
        self.generation = ""
        self._coder: Coder | None = None
        self._codes_map: npt.NDArray[np.uint8] | None = None
        self._codes: tuple[npt.NDArray[np.uint8], Codes] | None = None
        self._cold = 0  # ended spans that the layout has put behind the living

    # --- saving

    @property
    def unsaved(self) -> int:
        return self.spans.n - len(self._base)

    def due(self) -> bool:
        """Whether so much is unsaved that opening the store would take long."""
        return self.saving and self.unsaved > max(_UNSAVED, len(self._base) // 16)

    def save(self, fingerprint: Callable[[int], str]) -> bool:
        """Write the index beside the log; False when another process has laid the files out anew, and this index must
        be opened again before it can be saved. ``fingerprint`` of an event says which event it is."""
        with self._locked():
            saved = self._header()
            if saved is not None and saved["generation"] != self.generation and self.generation:
                return False
            if saved is not None and self.generation and saved["watermark"] >= self.applied:
                return True
            dead = self.spans.deaths - self._cold
            if not self.generation or saved is None or dead > max(_FEW, _DEAD * (self.spans.n - self._cold)):
                self._lay_out()
            else:
                if self._coder is None and saved["coded"]:  # another process was the first to need codes
                    with open(f"{self.path}-index", "rb") as file:
                        self._take_coder(file, saved)
                self._write_rows(int(saved["rows"]))
            self._write_codes()
            self._write_index(fingerprint(self.applied))
            self._map()
            for stale in Path(self.path).parent.glob(f"{Path(self.path).name}-*-*"):
                if stale.name.rpartition("-")[0] in self._names() and not stale.name.endswith(self.generation):
                    stale.unlink(missing_ok=True)
        return True

    def _names(self) -> set[str]:
        name = Path(self.path).name
        return {f"{name}-vectors", f"{name}-codes"}

    def _file(self, what: str) -> str:
        return f"{self.path}-{what}-{self.generation}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _lay_out(self) -> None:
        """Start a generation: the living spans first, then those that have ended."""
        n = self.spans.n
        living = self.spans.columns["died"][:n] == FOREVER
        order = np.concatenate([np.flatnonzero(living), np.flatnonzero(~living)])
        generation = secrets.token_hex(4)
        path = Path(f"{self.path}-vectors-{generation}")
        try:
            with path.open("wb") as file:
                for low in range(0, n, _COPY):
                    file.write(self.take(order[low : low + _COPY]).data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        spans = Spans()
        spans.load({name: self.spans.columns[name][order] for name in COLUMNS}, self.spans.words)
        self.generation, self.spans, self._cold = generation, spans, spans.deaths
        self._coder, self._coded, self._codes, self._codes_map = None, 0, None, None
        self._map()

    def _write_rows(self, start: int) -> None:
        size = self.dim * 4
        handle = os.open(self._file("vectors"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            saved = len(self._base)
            _write(handle, self._tail[start - saved : self.spans.n - saved], start * size)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _write_codes(self) -> None:
        n = self.spans.n - self.spans.n % BLOCK
        if n < index.APPROXIMATE:
            return
        if self._coder is None:
            sample = np.random.default_rng(0).choice(n, min(n, 20_000), replace=False)
            self._coder = Coder.of(self.take(np.sort(sample)))
        size = self._coder.row_bytes
        handle = os.open(self._file("codes"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            for low in range(self._coded, n, _COPY):
                rows = np.arange(low, min(n, low + _COPY))
                _write(handle, self._coder.encode(self.take(rows)), low * size)
            os.fsync(handle)
        finally:
            os.close(handle)
        self._coded = n
        self._map_codes()

    def _take_coder(self, file: BinaryIO, head: Mapping[str, Any]) -> None:
        file.seek(-4 * self.dim * (self.dim + 2), os.SEEK_END)
        mean, deviation = (np.fromfile(file, np.float32, self.dim) for _ in range(2))
        rotation = np.fromfile(file, np.float32, self.dim * self.dim).reshape(self.dim, self.dim)
        self._coder, self._coded = Coder(mean, deviation, rotation), int(head["coded"])

    @staticmethod
    def _read_columns(file: BinaryIO, head: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """The columns after the head, which the file is at: mapped, and copied page by page where they are changed."""
        columns: dict[str, npt.NDArray[Any]] = {}
        crc, place = 0, file.tell()
        for name, dtype in COLUMNS.items():
            column = (
                np.asarray(np.memmap(file, dtype, "c", place, head["rows"])) if head["rows"] else np.empty(0, dtype)
            )
            columns[name], crc, place = column, zlib.crc32(column.data, crc), place + column.nbytes
        if crc != head["checksum"]:
            raise ValueError("its columns are damaged")
        return columns

    def _map_codes(self) -> None:
        assert self._coder is not None
        shape = (self._coded // BLOCK, BLOCK * self._coder.row_bytes)
        self._codes_map, self._codes = np.memmap(self._file("codes"), np.uint8, "r", shape=shape), None

    def _codes_loader(self) -> Callable[[Executor | None], Codes]:
        coder, mapped = self._coder, self._codes_map  # those of this layout, whatever is saved before they are loaded
        assert coder is not None
        assert mapped is not None

        def load(pool: Executor | None) -> Codes:
            kept = self._codes
            if kept is None or kept[0] is not mapped:
                kept = mapped, Codes(coder, mapped, self.threads, pool)
                if self._codes_map is mapped:
                    self._codes = kept
            return kept[1]

        return load

    def _write_index(self, fingerprint: str) -> None:
        columns = {name: np.ascontiguousarray(self.spans.columns[name][: self.spans.n]) for name in COLUMNS}
        crc = 0
        for column in columns.values():
            crc = zlib.crc32(column.data, crc)
        coder = self._coder
        head = {
            "format": FORMAT,
            "store": self.store,
            "generation": self.generation,
            "watermark": self.applied,
            "fingerprint": fingerprint,
            "dim": self.dim,
            "rows": self.spans.n,
            "cold": self._cold,
            "coded": self._coded,
            "words": self.spans.words,
            "rollbacks": self.rollbacks,
            "tokens": self.tokens,
            "checksum": crc,
        }
        text = json.dumps(head).encode()
        text += b" " * (-(len(_MAGIC) + 12 + len(text)) % 8)  # the mapped columns after it are aligned
        target = Path(f"{self.path}-index")
        partial = Path(f"{self.path}-index.part")
        with partial.open("wb") as file:
            file.write(_MAGIC + len(text).to_bytes(8, "little") + zlib.crc32(text).to_bytes(4, "little") + text)
            for column in columns.values():
                file.write(column.data)
            if coder is not None:
                for part in (coder.mean, coder.deviation, coder.rotation):
                    file.write(np.ascontiguousarray(part, np.float32).data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)

    def _map(self) -> None:
        """Read the saved rows from the file from now on."""
        n = self.spans.n
        if n:
            self._base = np.asarray(np.memmap(self._file("vectors"), np.float32, "r", shape=(n, self.dim)))
            self._tail = np.empty((0, self.dim), np.float32)

    # --- opening

    def _header(self) -> dict[str, Any] | None:
        """The head of the saved index, None when there is none that belongs to this store."""
        try:
            with open(f"{self.path}-index", "rb") as file:
                head = self._read_head(file)
        except (OSError, ValueError):
            return None
        return head if head["store"] == self.store and head["dim"] == self.dim else None

    @staticmethod
    def _read_head(file: BinaryIO) -> dict[str, Any]:
        start = file.read(len(_MAGIC) + 12)
        if len(start) < len(_MAGIC) + 12 or not start.startswith(_MAGIC):
            raise ValueError("not an index")
        text = file.read(int.from_bytes(start[-12:-4], "little"))
        if zlib.crc32(text) != int.from_bytes(start[-4:], "little"):
            raise ValueError("the head is damaged")
        head: dict[str, Any] = json.loads(text)
        if head["format"] != FORMAT:
            raise ValueError("another format")
        return head

    def open(self, last: int, fingerprint: Callable[[int], str], vector: Callable[[int], bytes]) -> str:
        """Take over the saved index if it agrees with the log, whose last event is ``last``. Otherwise returns why
        not, and this index must not be used. ``vector`` gives the bytes of a version's vector from the log."""
        try:
            with self._locked(), open(f"{self.path}-index", "rb") as file:
                head = self._read_head(file)
                if head["store"] != self.store or head["dim"] != self.dim:
                    return "it belongs to another store"
                if head["watermark"] > last or fingerprint(head["watermark"]) != head["fingerprint"]:
                    return "it is ahead of the log"
                columns = self._read_columns(file, head)
                self.generation = head["generation"]
                if os.path.getsize(self._file("vectors")) < head["rows"] * self.dim * 4:
                    return "its vectors are truncated"
                self.spans.load(columns, head["words"])
                self._map()
                if head["coded"]:
                    self._take_coder(file, head)
                    assert self._coder is not None
                    if os.path.getsize(self._file("codes")) < self._coded * self._coder.row_bytes:
                        return "its codes are truncated"
                    self._map_codes()
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except (OSError, ValueError, KeyError) as error:
            return f"it cannot be read ({error})"
        self.rollbacks = [(a, b) for a, b in head["rollbacks"]]
        self.tokens, self.applied, self._cold = head["tokens"], head["watermark"], head["cold"]
        return self.disagreement(np.unique(np.linspace(0, self.spans.n - 1, _SAMPLES).astype(int)), vector)

    def disagreement(self, rows: Sequence[int] | Rows, vector: Callable[[int], bytes]) -> str:
        """Which of these rows differs from the log, empty when none does."""
        if not self.spans.n:
            return ""
        for row in rows:
            version = int(self.spans.columns["version"][row])
            if self.take(np.array([row]))[0].tobytes() != vector(version):
                return f"the vector of event {version} is not that of the log"
        blocks = np.unique(np.asarray(rows) // BLOCK)
        return self._codes_disagreement(blocks[blocks < self._coded // BLOCK])

    def _codes_disagreement(self, blocks: Rows) -> str:
        """Which of these blocks of codes is not that of its vectors, empty when none is. A few coordinates at the edge
        between two levels may be rounded the other way."""
        for low in range(0, len(blocks), _BLOCKS):
            some = blocks[low : low + _BLOCKS]
            assert self._coder is not None
            assert self._codes_map is not None
            wanted = self._coder.encode(self.take((some[:, None] * BLOCK + np.arange(BLOCK)).ravel()))
            wrong = np.mean(wanted != self._codes_map[some], axis=1) > 0.05
            if wrong.any():
                return f"the codes of block {some[wrong][0]} are not those of its vectors"
        return ""


def _write(handle: int, block: npt.NDArray[Any], offset: int) -> None:
    view = memoryview(block.reshape(-1).view(np.uint8).data)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count
