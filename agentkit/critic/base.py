"""Who judges an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agentkit.llm.base import LLM
from agentkit.types import Episode, Judgement, StopReason


class Critic(Protocol):
    """Judges an episode once it is over. It must not be told more than a user of the agent would know."""

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The judgement of ``episode``; ``llm`` is the agent's model, for critics that ask one."""
        ...


@dataclass(frozen=True)
class EnvironmentCritic:
    """Takes the environment's word: its ``success``, and its last ``score`` where it gives one in [0, 1]."""

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The environment's own judgement. Breakdowns (model, budget, environment) are said to be such."""
        if episode.success:
            return Judgement(True, 1.0, f"Solved in {len(episode.steps)} steps.")
        last = next((s.score for s in reversed(episode.steps) if s.score is not None), 0.0)
        why = {
            StopReason.STEP_LIMIT: "The steps ran out before the goal was reached.",
            StopReason.FAILURE: "The episode ended without success.",
            StopReason.INVALID: "The answers could not be read as actions.",
        }.get(episode.stop_reason, f"The episode broke off: {episode.stop_reason}.")
        return Judgement(False, min(max(float(last), 0.0), 1.0), why)
