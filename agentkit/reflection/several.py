"""Several reflectors as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.llm.base import LLM
from agentkit.reflection.base import Reflector
from agentkit.types import Episode, Judgement, Lesson


@dataclass(frozen=True)
class Several:
    """The lessons of each reflector, in their order, each text once."""

    parts: tuple[Reflector, ...]

    def reflect(
        self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: LLM | None
    ) -> Sequence[Lesson]:
        """All lessons. Each part is shown the ``earlier`` ones alone, not those of the parts before it."""
        found: dict[str, Lesson] = {}
        for part in self.parts:
            for lesson in part.reflect(episode, judgement, earlier, llm):
                found.setdefault(lesson.text, lesson)
        return list(found.values())
