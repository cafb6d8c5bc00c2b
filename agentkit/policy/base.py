"""How what the agent sees becomes an action."""

from __future__ import annotations

from typing import Protocol

from agentkit.llm.base import LLM
from agentkit.types import Action, View


class Policy(Protocol):
    """Chooses an action. Many threads call it at once; whatever it samples, it samples with ``view.seed``."""

    def act(self, view: View, llm: LLM | None) -> Action:
        """The action for ``view``; ``llm`` is the agent's model."""
        ...
