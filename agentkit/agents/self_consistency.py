"""Self-consistency: plain (Wang et al. 2023), soft (Wang et al. 2024), adaptive (Aggarwal et al. 2023)."""

from __future__ import annotations

from typing import Literal

from agentkit.agent import Agent
from agentkit.llm.base import LLM
from agentkit.policy.base import Policy
from agentkit.policy.consistent import Consistent
from agentkit.policy.generate import ReAct
from agentkit.votes import Aggregate


def self_consistency(
    llm: LLM,
    *,
    how: Literal["majority", "soft", "adaptive"] = "majority",
    samples: int = 10,
    confidence: float = 0.95,
    aggregate: Aggregate = "mean",
    policy: Policy | None = None,
    name: str = "self-consistency",
) -> Agent:
    """An agent that samples each action several times and takes the one the samples agree on.

    ``"majority"`` votes; ``"soft"`` takes the likeliest (the model must score); ``"adaptive"`` stops sampling when the
    majority is settled with ``confidence``.
    """
    return Agent(llm, Consistent(policy or ReAct(), samples, how, confidence, aggregate), name=name)
