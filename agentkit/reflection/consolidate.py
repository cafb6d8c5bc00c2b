"""Learning that looks at more than one episode: its protocol, and what it may change in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentkit.llm.base import LLM
from agentkit.memory import Memory, Record
from agentkit.memory import View as MemoryView
from agentkit.types import Episode, Judgement


@dataclass(frozen=True)
class Changes:
    """What is to be changed in memory: records added, fields edited by record id, ids removed."""

    added: tuple[Record, ...] = ()
    edited: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    removed: tuple[int, ...] = ()

    def apply(self, memory: Memory) -> int:
        """Make the changes; returns how many records they touch."""
        if self.added:
            memory.add_many(self.added)
        for id_, fields in self.edited.items():
            memory.edit(id_, **fields)
        if self.removed:
            memory.remove(self.removed)
        return len(self.added) + len(self.edited) + len(self.removed)


class Consolidator(Protocol):
    """Learns from all episodes of a round together, in the light of what memory holds."""

    def consolidate(
        self,
        episodes: Sequence[Episode],
        judgements: Mapping[str, Judgement],
        memory: Memory | MemoryView,
        llm: LLM | None,
    ) -> Changes:
        """The changes to make. ``memory`` is read as it was before the round; nothing is written here."""
        ...
