"""How a judgement becomes lessons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentkit.llm.base import LLM
from agentkit.types import Episode, Judgement, Lesson


class Reflector(Protocol):
    """Draws lessons from a judged episode."""

    def reflect(
        self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: LLM | None
    ) -> Sequence[Lesson]:
        """The new lessons; ``earlier`` are the texts of those already held of the same task, oldest first."""
        ...
