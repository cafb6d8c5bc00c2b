"""A memory as of one sequence number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from agentkit.memory.credit import Credit
from agentkit.memory.records import Recalled, Record, Where
from agentkit.memory.scoring import Scorer

if TYPE_CHECKING:
    from agentkit.memory.store import Memory

Query: TypeAlias = str | npt.NDArray[np.floating[Any]]


class View:
    """A memory as of one sequence number: every read of `Memory`, none of its writes."""

    def __init__(self, memory: Memory, seq: int) -> None:
        self.memory = memory
        self.seq = seq

    def __len__(self) -> int:
        return self.memory.count(as_of=self.seq)

    def __repr__(self) -> str:
        return f"{self.memory!r}.at({self.seq})"

    def recall(
        self,
        query: Query,
        k: int = 5,
        *,
        where: Where | None = None,
        scorer: Scorer | None = None,
        diversity: float = 0.0,
        quarantined: bool = False,
        exact: bool | None = None,
    ) -> list[Recalled]:
        """See `Memory.recall`."""
        return self.memory.recall(
            query,
            k,
            where=where,
            as_of=self.seq,
            scorer=scorer,
            diversity=diversity,
            quarantined=quarantined,
            exact=exact,
        )

    def recall_within(
        self, query: Query, episodes: int = 3, k: int = 3, *, where: Where | None = None
    ) -> list[tuple[Recalled, list[Recalled]]]:
        """See `Memory.recall_within`."""
        return self.memory.recall_within(query, episodes, k, where=where, as_of=self.seq)

    def novelty(self, text: Query, k: int = 10, *, where: Where | None = None) -> float:
        """See `Memory.novelty`."""
        return self.memory.novelty(text, k, where=where, as_of=self.seq)

    def get(self, id_: int) -> Record:
        """See `Memory.get`."""
        return self.memory.get(id_, as_of=self.seq)

    def records(self, where: Where | None = None) -> list[Record]:
        """See `Memory.records`."""
        return self.memory.records(where, as_of=self.seq)

    def count(self, where: Where | None = None) -> int:
        """See `Memory.count`."""
        return self.memory.count(where, as_of=self.seq)

    def utility(self, id_: int) -> float:
        """See `Memory.utility`."""
        return self.memory.utility(id_, as_of=self.seq)

    def credit_of(self, ids: Sequence[int]) -> list[Credit]:
        """See `Memory.credit_of`."""
        return self.memory.credit_of(ids, as_of=self.seq)
