"""The columns that filter: when each version of each record was alive, and what a `Where` asks about it.

A span is one version of a record over the sequence numbers at which it is current: ``born <= seq < died``. Spans are
appended; only ``died`` changes, from `FOREVER` to a number later than any read in progress, so that readers need no
lock. A rollback that brings a version back appends a span for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.memory.events import FOREVER
from agentkit.memory.records import Where

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

COLUMNS: Mapping[str, str] = {
    "version": "<i8",
    "id": "<i8",
    "born": "<i8",
    "died": "<i8",
    "kind": "<i4",
    "namespace": "<i4",
    "task": "<i4",
    "episode": "<i4",
    "outcome": "<f8",
    "importance": "<f8",
    "time": "<f8",
}
_MASKS = 8  # alive masks kept, so that reading again as of the same number costs nothing


class Spans:
    """Columns of equal length, one row a span. Strings are numbers of one vocabulary."""

    def __init__(self) -> None:
        self.n = 0
        self.deaths = 0
        self.columns: dict[str, npt.NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in COLUMNS.items()}
        self.words: list[str] = []
        self._codes: dict[str, int] = {}
        self._moved: dict[int, int] = {}  # id -> row of its latest span, for ids with more than one
        self._alive: dict[int, Mask] = {}

    def load(self, columns: Mapping[str, npt.NDArray[Any]], words: list[str]) -> None:
        """Take over saved columns."""
        self.columns = dict(columns)
        self.n = len(self.columns["born"])
        self.words = words
        self._codes = {word: code for code, word in enumerate(words)}
        self._alive = {}
        self.deaths = int(np.count_nonzero(self.columns["died"] != FOREVER))
        again = np.flatnonzero(self.columns["born"] != self.columns["id"])
        again = again[np.argsort(self.columns["born"][again], kind="stable")]
        self._moved = dict(zip(self.columns["id"][again].tolist(), again.tolist(), strict=True))

    def codes(self, words: Sequence[str]) -> list[int]:
        """The numbers of strings, given out when they are new."""
        known = self._codes
        for word in words:
            if word not in known:
                known[word] = len(self.words)
                self.words.append(word)
        return [known[word] for word in words]

    def append(self, rows: Mapping[str, Sequence[Any] | npt.NDArray[Any]], count: int) -> None:
        """Append ``count`` rows that have not ended; all other `COLUMNS` are given, strings as codes."""
        n = self.n
        if n + count > len(self.columns["born"]):
            size = max(1024, n + count, 2 * n)
            grown = {}
            for name, dtype in COLUMNS.items():
                grown[name] = np.empty(size, dtype)
                grown[name][:n] = self.columns[name][:n]
            self.columns = grown
        columns = self.columns
        if count == 1:  # an add of one record is mostly this: numpy takes a number five times as fast as a list
            for name, values in rows.items():
                columns[name][n] = values[0]
            columns["died"][n] = FOREVER
            if rows["id"][0] != rows["born"][0]:
                self._moved[int(rows["id"][0])] = n
        else:
            new = slice(n, n + count)
            for name, values in rows.items():
                columns[name][new] = values
            columns["died"][new] = FOREVER
            for row in np.flatnonzero(columns["id"][new] != columns["born"][new]).tolist():
                self._moved[int(columns["id"][n + row])] = n + row
        self.n += count

    def end(self, rows: npt.ArrayLike, seq: int) -> None:
        """These spans end: reads as of ``seq`` and later do not see them."""
        rows = np.atleast_1d(np.asarray(rows, np.int64))
        self.columns["died"][rows] = seq
        self.deaths += len(rows)

    def row_of(self, id_: int) -> int | None:
        """The row of a record's latest span, or None where there is none or it has ended."""
        row = self._moved.get(id_)
        if row is None:
            row = self._first(id_)
        return row if row is not None and self.columns["died"][row] == FOREVER else None

    def _first(self, id_: int) -> int | None:
        born = self.columns["born"][: self.n]
        row = int(np.searchsorted(born, id_))
        if not (row < self.n and self.columns["id"][row] == id_):
            # Compaction puts ended spans after the living ones, which leaves the column in two sorted parts.
            rows = np.flatnonzero(self.columns["id"][: self.n] == id_)
            return int(rows[-1]) if len(rows) else None
        return row

    def row_at(self, id_: int, seq: int) -> int | None:
        """The row of the span of a record that is alive at ``seq``."""
        latest = self.row_of(id_)
        if latest is not None and self.columns["born"][latest] <= seq:
            return latest
        rows = np.flatnonzero(self.columns["id"][: self.n] == id_)
        alive = rows[(self.columns["born"][rows] <= seq) & (self.columns["died"][rows] > seq)]
        return int(alive[0]) if len(alive) else None

    def alive(self, seq: int) -> Mask:
        """Which spans are current at ``seq``: ``(n,) bool``, not to be written to."""
        n = self.n
        mask = self._alive.get(seq)
        if mask is None or len(mask) != n:
            mask = (self.columns["born"][:n] <= seq) & (self.columns["died"][:n] > seq)
            while len(self._alive) >= _MASKS:
                self._alive.pop(next(iter(self._alive)), None)
            self._alive[seq] = mask
        return mask

    def mask(self, where: Where | None, seq: int) -> Mask:
        """Which spans a read as of ``seq`` may see: ``(n,) bool``, not to be written to."""
        alive = self.alive(seq)
        if where is None:
            return alive
        n = len(alive)
        parts: list[Mask] = []

        def column(name: str) -> npt.NDArray[Any]:
            return self.columns[name][:n]

        def equal(name: str, word: str) -> Mask:
            return np.asarray(column(name) == self._codes.get(word, -1))

        if where.kinds is not None:
            parts.append(self._among("kind", where.kinds, n))
        for name, word in (("namespace", where.namespace), ("task", where.task), ("episode", where.episode)):
            if word is not None:
                parts.append(equal(name, word))
        for name, word in (("task", where.exclude_task), ("episode", where.exclude_episode)):
            if word is not None:
                parts.append(~equal(name, word))
        if where.ids is not None:
            parts.append(np.isin(column("id"), np.fromiter(where.ids, np.int64)))
        if where.exclude_ids:
            parts.append(~np.isin(column("id"), np.fromiter(where.exclude_ids, np.int64)))
        if where.min_outcome is not None:  # NaN, no outcome, compares false
            parts.append(column("outcome") >= where.min_outcome)
        if where.max_outcome is not None:
            parts.append(column("outcome") <= where.max_outcome)
        if where.after is not None:
            parts.append(column("time") >= where.after)
        if where.before is not None:
            parts.append(column("time") < where.before)
        if not parts:
            return alive
        mask = alive & parts[0]
        for part in parts[1:]:
            mask &= part
        return mask

    def _among(self, name: str, words: Iterable[str], n: int) -> Mask:
        mask = np.zeros(n, np.bool_)
        for word in words:
            mask |= self.columns[name][:n] == self._codes.get(word, -1)
        return mask
