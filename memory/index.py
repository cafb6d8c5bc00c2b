"""The state that searches need, derived from the log: spans, vectors, and codes when there are many vectors.

It is built by applying the rows of the log in order, so that equal logs give equal rows. `agentkit.memory.saved` keeps
it beside the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.memory import knn
from agentkit.memory.codes import Codes
from agentkit.memory.errors import NotAStore
from agentkit.memory.events import lineage, seen
from agentkit.memory.records import Where
from agentkit.memory.spans import COLUMNS, Spans

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
TailRow = Sequence[Any]  # a row of `agentkit.memory.rows`, of which the first twelve are used

APPROXIMATE = 200_000  # rows above which a search may go through the codes
_CANDIDATES = 80  # codes give this many candidates for each record that is asked for, and at least _LEAST
_LEAST = 800
_USUAL = 384  # the numbers a vector for which these two were measured


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
    """The state in memory as of ``applied``. The caller holds a lock around every method but `search`. ``path`` is that
    of the log."""

    def __init__(self, dim: int, path: str) -> None:
        self.dim, self.path = dim, path
        self.applied = 0
        self.spans = Spans()
        self.rollbacks: list[tuple[int, int]] = []
        self.tokens: dict[str, list[int]] = {}
        self._base: Vectors = np.empty((0, dim), np.float32)  # rows that are saved: a read-only map of the file
        self._tail: Vectors = np.empty((0, dim), np.float32)  # the rows after them
        self._coded = 0  # rows that have codes

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
        columns = tuple(zip(*rows, strict=True))[:12]
        seqs, _, ids, kinds, spaces, tasks, episodes, outcomes, importances, times, _, vectors = columns
        self._extend(np.frombuffer(b"".join(vectors), np.float32).reshape(len(rows), self.dim))
        self.spans.append(
            {
                "version": seqs,
                "id": ids,
                "born": seqs,
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
            rows = {name: spans.columns[name][back] for name in COLUMNS if name != "died"}
            spans.append({**rows, "born": np.full(len(back), seq)}, len(back))

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
        codes = self._codes_loader() if self._coded >= APPROXIMATE // 2 else None
        return State(mask, self.spans.columns, [b for b in blocks if len(b[1])], codes, self._coded)

    def _codes_loader(self) -> Callable[[Executor | None], Codes]:
        raise NotImplementedError  # nothing is coded here

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
                rows, scores = knn.best(state.blocks, found, ids, query, k)
                after = [
                    (start + low, block[low:])
                    for start, block in state.blocks
                    if (low := max(0, state.coded - start)) < len(block)
                ]
                late, later = knn.exact(after, state.mask, ids, query, k, pool)
                rows, scores = np.concatenate([rows, late]), np.concatenate([scores, later])
                order = np.lexsort((ids[rows], -scores))[:k]
                return rows[order], scores[order]
        return knn.exact(state.blocks, state.mask, ids, query, k, pool)


class SpansOnly(Index):
    """The spans alone, to compare those of another index with: vectors are taken in and dropped."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, "")

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
