"""Policies that ask no model: at random, and the same as in an earlier attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agentkit.errors import ContractError
from agentkit.llm.base import LLM
from agentkit.policy.base import Policy
from agentkit.types import Action, View


@dataclass(frozen=True)
class Random:
    """An admissible action, each as likely as any other."""

    def act(self, view: View, llm: LLM | None) -> Action:
        """The action drawn with ``view.seed``."""
        if not view.admissible:
            raise ContractError(
                f"{view.task.env_id} named no admissible actions, and nothing else can be drawn at random."
            )
        drawn = int(np.random.default_rng(view.seed).integers(len(view.admissible)))
        return Action(view.admissible[drawn], logprob=-float(np.log(len(view.admissible))))


@dataclass(frozen=True)
class Resume:
    """Does again what a remembered record of kind ``"way"`` did, as long as the world shows what it showed then; after
    that, or where it differs, ``policy`` acts.

    The record's data hold ``"actions"`` and ``"observations"`` (what was seen before each): the whole of a solved
    attempt, or the part of a failed one before its first mistake.
    """

    policy: Policy

    def act(self, view: View, llm: LLM | None) -> Action:
        """The remembered action of this step, or the policy's."""
        ways = [found for found in view.memories if found.record.kind == "way"]
        for found in ways:
            actions, seen = list(found.record.data["actions"]), list(found.record.data["observations"])
            step = len(view.history)
            before = [s.action.text for s in view.history]
            if step < len(actions) and before == actions[:step] and seen[step] == view.observation:
                return Action(actions[step], memory_ids=(found.record.id,))
        if ways:
            view = replace(view, memories=tuple(found for found in view.memories if found.record.kind != "way"))
        return self.policy.act(view, llm)
