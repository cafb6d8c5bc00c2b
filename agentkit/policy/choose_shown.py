"""Choose among the admissible actions with whole memories and skills in the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentkit.dialogue import configuration, show
from agentkit.llm.base import LLM
from agentkit.policy.choose import Choose
from agentkit.types import Action, View


@dataclass(frozen=True, repr=False)
class ChooseShown(Choose):
    """`Choose`, whose prompt also shows recalled episodes and skills, as many as fit ``memory_tokens``.

    With none of either the prompt is that of `Choose` to the letter. Recalled steps still tilt the choice
    (``experience``), and are not shown.
    """

    prompt: str = "choose_shown"
    memory_tokens: int = 600

    def act(self, view: View, llm: LLM | None) -> Action:
        """The action sampled with ``view.seed``."""
        steps = tuple(m for m in view.memories if m.record.kind == "step")
        told = [m for m in view.memories if m.record.kind != "step"]
        _, ids = show([*told, *view.skills], self.memory_tokens)
        memories = tuple(m for m in told if m.record.id in ids)
        skills = tuple(s for s in view.skills if s.record.id in ids)
        action = super().act(replace(view, memories=(*steps, *memories), skills=skills), llm)
        return replace(action, memory_ids=tuple(dict.fromkeys((*action.memory_ids, *ids))))

    def __repr__(self) -> str:
        return configuration(self)
