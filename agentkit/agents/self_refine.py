"""Self-Refine (Madaan et al. 2023, "Self-Refine: Iterative Refinement with Self-Feedback")."""

from __future__ import annotations

from agentkit.agent import Agent
from agentkit.llm.base import LLM
from agentkit.policy.base import Policy
from agentkit.policy.generate import Direct
from agentkit.policy.refine import SelfRefine


def self_refine(
    llm: LLM, *, rounds: int = 3, multiline: bool = False, policy: Policy | None = None, name: str = "self-refine"
) -> Agent:
    """An agent that gives itself feedback on each answer, and refines it up to ``rounds`` times, before it acts."""
    return Agent(llm, SelfRefine(policy=policy or Direct(), rounds=rounds, multiline=multiline), name=name)
