"""The state that searches need, derived from the log: spans, vectors, and codes when there are many vectors.

It is built by applying the rows of the log in order, so that equal logs give equal rows. It can be saved beside the
log: the vectors in a file that only grows, everything else in one that is replaced whole. What is saved says up to
which event it goes (the watermark); the rest is applied from the log. Nothing saved is trusted that disagrees with the
log: a saved index that is missing, damaged, of another store or ahead of the log is built anew.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from agentkit.memory import knn
from agentkit.memory.codes import Coder, Codes
from agentkit.memory.errors import NotAStore
from agentkit.memory.events import FOREVER, lineage, seen
from agentkit.memory.records import Where
from agentkit.memory.spans import COLUMNS, Spans

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
TailRow = Sequence[Any]  # a row of `agentkit.memory.rows`, of which the first twelve are used

FORMAT = 1
_MAGIC = b"agentkit memory index\n"
APPROXIMATE = 200_000  # rows above which a search may go through the codes
_CANDIDATES = 80  # codes give this many candidates for each record that is asked for, and at least _LEAST
_LEAST = 800
_USUAL = 384  # the numbers a vector for which these two were measured
_UNSAVED = 8192  # rows, or a sixteenth of all, that may be unsaved before the index is saved
_DEAD = 0.3  # share of ended rows that makes a save compact
_SAMPLES = 8  # rows compared with the log when a saved index is opened
_COPY = 16384


@dataclass(frozen=True, slots=True)
class State:
    """What a search holds on to while others write: nothing in it is changed in a way that a read as of its number
    could see."""

    mask: npt.NDArray[np.bool_]
    columns: Mapping[str, npt.NDArray[Any]]
    blocks: Sequence[tuple[int, Vectors]]
    codes: Callable[[Executor | None], Codes] | None
    coded: int


class Index:
    """The state in memory as of ``applied``. The caller holds a lock around every method but `search`.

    ``path`` is that of the log, None for an index that is not saved. ``store`` is the log's own id.
    """

    def __init__(self, dim: int, path: str | None, store: str, threads: int) -> None:
        self.dim, self.path, self.store, self.threads = dim, path, store, threads
        self.applied = 0
        self.spans = Spans()
        self.rollbacks: list[tuple[int, int]] = []
        self.tokens: dict[str, list[int]] = {}
        self.generation = ""
        self._base: Vectors = np.empty((0, dim), np.float32)  # rows that are saved: a read-only map of the file
        self._tail: Vectors = np.empty((0, dim), np.float32)  # the rows after them
        self._coder: Coder | None = None
        self._coded = 0
        self._codes_map: npt.NDArray[np.uint8] | None = None
        self._codes: Codes | None = None
        self._cold = 0  # ended spans that the layout has put behind the living

    # --- applying the log

    def apply(self, rows: Sequence[TailRow]) -> None:
        """Bring the state to the last of ``rows``, which follow ``applied`` in order."""
        pending: list[TailRow] = []
        for row in rows:
            seq, op, id_ = row[:3]
            if op == "add":
                pending.append(row)
                continue
            if op in ("edit", "remove", "rollback"):
                self._add_spans(pending)
                pending = []
            if op in ("edit", "remove"):
                old = self.spans.row_of(id_)
                if old is None:
                    raise NotAStore(f"event {seq} of {self.path} changes record {id_}, which is not there.")
                self.spans.end(old, seq)
                if op == "edit":
                    self._add_spans([row])
            elif op == "rollback":
                self._roll_back(seq, id_)
                self.rollbacks.append((seq, id_))
            elif op == "token":
                self.tokens.setdefault(row[10], []).append(seq)
        self._add_spans(pending)
        if rows:
            self.applied = int(rows[-1][0])

    def _add_spans(self, rows: Sequence[TailRow]) -> None:
        if not rows:
            return
        codes = self.spans.codes
        columns = list(zip(*rows, strict=True))[:12]
        seqs, _, ids, kinds, spaces, tasks, episodes, outcomes, importances, times, _, vectors = columns
        self._extend(np.frombuffer(b"".join(vectors), np.float32).reshape(len(rows), self.dim))
        self.spans.append(
            {
                "version": seqs,
                "id": ids,
                "born": seqs,
                "died": FOREVER,
                "kind": codes(kinds),
                "namespace": codes(spaces),
                "task": codes(tasks),
                "episode": codes(episodes),
                "outcome": [np.nan if x is None else x for x in outcomes],
                "importance": importances,
                "time": times,
            },
            len(rows),
        )

    def _extend(self, block: Vectors) -> None:
        used, count = self.spans.n - len(self._base), len(block)
        if used + count > len(self._tail):
            grown = np.empty((max(256, used + count, 2 * used), self.dim), np.float32)
            grown[:used] = self._tail[:used]
            self._tail = grown
        self._tail[used : used + count] = block

    def _roll_back(self, seq: int, target: int) -> None:
        spans = self.spans
        before = np.flatnonzero(spans.alive(target))
        now = np.flatnonzero(spans.alive(seq - 1))
        versions = spans.columns["version"]
        spans.end(now[~np.isin(versions[now], versions[before])], seq)
        back = before[~np.isin(versions[before], versions[now])]
        back = back[np.argsort(versions[back], kind="stable")]
        if len(back):
            self._extend(self.take(back))
            rows = {name: spans.columns[name][back] for name in COLUMNS}
            spans.append({**rows, "born": seq, "died": FOREVER}, len(back))

    def has_token(self, token: str) -> bool:
        parts = lineage(self.applied, self.rollbacks)
        return any(seen(number, parts) for number in self.tokens.get(token, ()))

    # --- reading

    def take(self, rows: Rows) -> Vectors:
        """The vectors of rows, ``(N, D)``."""
        result = np.empty((len(rows), self.dim), np.float32)
        saved = rows < len(self._base)
        result[saved] = self._base[rows[saved]]
        result[~saved] = self._tail[rows[~saved] - len(self._base)]
        return result

    def state(self, where: Where | None, seq: int) -> State:
        """What is needed to search as of ``seq``."""
        mask = self.spans.mask(where, seq)
        used = len(mask) - len(self._base)
        blocks = [(0, self._base), (len(self._base), self._tail[:used])]
        codes = self._load_codes if self._coded >= APPROXIMATE else None
        return State(mask, self.spans.columns, [b for b in blocks if len(b[1])], codes, self._coded)

    @staticmethod
    def search(
        state: State, query: Vectors, k: int, exact: bool | None, pool: Executor | None
    ) -> tuple[Rows, npt.NDArray[np.float64]]:
        """The best k rows and their cosines; through the codes when ``exact`` is not True and there are very many."""
        ids = state.columns["id"]
        selected = int(np.count_nonzero(state.mask)) if state.codes is not None and exact is not True else 0
        if state.codes is not None and (exact is False or selected > APPROXIMATE / 2):
            # A short vector has few bits of code, which say little, and costs little to score.
            wanted = max(_LEAST, _CANDIDATES * k) * max(1, _USUAL // len(query))
            share = max(selected / len(state.mask), 0.05)
            found = state.codes(pool).candidates(query, int(wanted / share), pool)
            found = np.sort(found[state.mask[found]])
            # A filter can hide just those rows that are near the query; then too few are left to be sure.
            if len(found) >= wanted // 4 or exact is False:
                mask = np.zeros(len(state.mask), np.bool_)
                mask[found] = True
                mask[state.coded :] = state.mask[state.coded :]
                return knn.exact(state.blocks, mask, ids, query, k, pool)
        return knn.exact(state.blocks, state.mask, ids, query, k, pool)

    # --- saving

    @property
    def unsaved(self) -> int:
        return self.spans.n - len(self._base)

    def due(self) -> bool:
        """Whether so much is unsaved that opening the store would take long."""
        return self.path is not None and self.unsaved > max(_UNSAVED, len(self._base) // 16)

    def save(self, fingerprint: Callable[[int], str]) -> bool:
        """Write the index beside the log; False when another process has laid the files out anew, and this index must
        be opened again before it can be saved. ``fingerprint`` of an event says which event it is."""
        assert self.path is not None
        with self._locked():
            saved = self._header()
            if saved is not None and saved["generation"] != self.generation and self.generation:
                return False
            if saved is not None and self.generation and saved["watermark"] >= self.applied:
                return True
            dead = self.spans.deaths - self._cold
            if not self.generation or saved is None or dead > max(_UNSAVED, _DEAD * (self.spans.n - self._cold)):
                self._lay_out()
            else:
                if self._coder is None and saved["coded"]:  # another process was the first to need codes
                    with open(f"{self.path}-index", "rb") as file:
                        head = self._read_head(file)
                        self._read_columns(file, head)
                        self._take_coder(file, head)
                self._write_rows(int(saved["rows"]))
            self._write_codes()
            self._write_index(fingerprint(self.applied))
            self._map()
            for stale in Path(self.path).parent.glob(f"{Path(self.path).name}-*-*"):
                if stale.name.rpartition("-")[0] in self._names() and not stale.name.endswith(self.generation):
                    stale.unlink(missing_ok=True)
        return True

    def _names(self) -> set[str]:
        name = Path(str(self.path)).name
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
            for low in range(start, self.spans.n, _COPY):
                rows = np.arange(low, min(self.spans.n, low + _COPY))
                _write(handle, self.take(rows).tobytes(), low * size)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _write_codes(self) -> None:
        n = self.spans.n
        if n < APPROXIMATE:
            return
        if self._coder is None:
            sample = np.random.default_rng(0).choice(n, min(n, 20_000), replace=False)
            self._coder = Coder.of(self.take(np.sort(sample)))
        size = self._coder.row_bytes
        handle = os.open(self._file("codes"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            for low in range(self._coded, n, _COPY):
                rows = np.arange(low, min(n, low + _COPY))
                _write(handle, self._coder.encode(self.take(rows)).tobytes(), low * size)
            os.fsync(handle)
        finally:
            os.close(handle)
        self._coded = n
        self._map_codes()

    def _take_coder(self, file: BinaryIO, head: Mapping[str, Any]) -> None:
        mean, deviation = (np.fromfile(file, np.float32, self.dim) for _ in range(2))
        rotation = np.fromfile(file, np.float32, self.dim * self.dim).reshape(self.dim, self.dim)
        self._coder, self._coded = Coder(mean, deviation, rotation), int(head["coded"])

    @staticmethod
    def _read_columns(file: BinaryIO, head: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        columns, crc = {}, 0
        for name, dtype in COLUMNS.items():
            columns[name] = np.fromfile(file, dtype, head["rows"])
            crc = zlib.crc32(columns[name].data, crc)
        if crc != head["checksum"]:
            raise ValueError("its columns are damaged")
        return columns

    def _map_codes(self) -> None:
        assert self._coder is not None
        shape = (self._coded, self._coder.row_bytes)
        self._codes_map, self._codes = np.memmap(self._file("codes"), np.uint8, "r", shape=shape), None

    def _load_codes(self, pool: Executor | None) -> Codes:
        codes, mapped = self._codes, self._codes_map
        if codes is None:
            assert self._coder is not None
            assert mapped is not None
            codes = self._codes = Codes(self._coder, mapped, self.threads, pool)
        return codes

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
        return ""


class SpansOnly(Index):
    """The spans alone, to compare those of another index with: vectors are taken in and dropped."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, None, "", 1)

    def _extend(self, block: Vectors) -> None:
        pass

    def take(self, rows: Rows) -> Vectors:
        return np.empty((0, self.dim), np.float32)

    def difference(self, other: Index) -> str:
        """What differs between the spans of two indexes as of the same event, empty when nothing does."""
        if self.spans.n != other.spans.n:
            return f"it has {other.spans.n} spans, the log has {self.spans.n}"
        if self.rollbacks != other.rollbacks or self.tokens != other.tokens:
            return "its rollbacks or tokens are not those of the log"
        # Words are numbered in the order in which batches brought them, which may differ.
        number = {word: code for code, word in enumerate(self.spans.words)}
        words = np.array([number.get(word, -1) for word in other.spans.words], np.int32)
        mine, others = (
            np.lexsort((x.spans.columns["born"][: x.spans.n], x.spans.columns["version"][: x.spans.n]))
            for x in (self, other)
        )
        for name in COLUMNS:
            a, b = self.spans.columns[name][mine], other.spans.columns[name][others]
            if a.dtype == np.int32 and len(b):
                if b.min() < 0 or b.max() >= len(words):
                    return f"its column {name!r} names words that it does not have"
                b = words[b]
            if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                return f"its column {name!r} is not that of the log"
        return ""


def _write(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count
