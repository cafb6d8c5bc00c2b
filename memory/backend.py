"""What a memory asks of the database that holds its log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agentkit.memory.events import Event
from agentkit.memory.records import Record, Where

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hits:
    """Versions that a search found, the best first: equal-length columns. ``version`` is the number of the event that
    made the version; ``relevance`` the cosine similarity."""

    version: npt.NDArray[np.int64]
    id: npt.NDArray[np.int64]
    relevance: npt.NDArray[np.float64]
    importance: npt.NDArray[np.float64]
    time: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, order: npt.NDArray[np.int64]) -> Hits:
        return Hits(
            self.version[order], self.id[order], self.relevance[order], self.importance[order], self.time[order]
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """A credit, token or rollback as it stands in the log."""

    seq: int
    op: str
    id: int
    episode: str
    task: str
    outcome: float | None
    text: str
    data: str


class Backend(Protocol):
    """A log with filtered nearest-neighbour search. Safe to use from many threads."""

    @property
    def dim(self) -> int: ...

    def seq(self) -> int:
        """The number of the last committed event, by any process; what it and all before it did can be read."""

    def append(self, events: Sequence[Event], token: str = "", base: int | None = None) -> list[int] | None:
        """Commit all events or none; their sequence numbers. With a ``token`` that was committed before, nothing is
        done and None returned. ``base`` is the number that must still be the last.
        Raises `Conflict`, `UnknownRecord` or `StoreFull`, and then nothing was written."""

    def has_token(self, token: str) -> bool: ...

    def search(self, query: Vector, k: int, where: Where | None, seq: int, exact: bool | None) -> Hits: ...

    def select(self, where: Where | None, seq: int) -> Hits:
        """Every version that ``where`` allows, in order of id, with a relevance of 0."""

    def find(self, ids: Sequence[int], seq: int) -> dict[int, int]:
        """id -> version, for those of ``ids`` that are alive at ``seq``."""

    def fetch(self, versions: Sequence[int]) -> list[Record]: ...

    def vectors(self, versions: Sequence[int]) -> Vector:
        """``(N, D) float32``, in the order of ``versions``."""

    def marks(self, after: int, upto: int) -> Iterator[Mark]: ...

    def columns(self, where: Where | None, seq: int) -> dict[str, npt.NDArray[Any]]:
        """id, version, kind, namespace, task, episode, outcome (NaN for none), importance, time, in order of id."""

    def count(self, where: Where | None, seq: int) -> int: ...

    def verify(self, repair: bool) -> list[str]:
        """What is wrong with the store. What can be made anew from the log is, when ``repair`` is True."""

    def close(self) -> None: ...
