"""Retry: another attempt at what failed, and nothing learned from the failure.

The fair baseline of agents that get several trials: a task that was solved is not tried anew, which is done here by
doing the same again (the published evaluations count it as solved from then on).
"""

from __future__ import annotations

from agentkit.agent import Agent
from agentkit.agents.memories import RecallWays, RememberWays
from agentkit.critic.base import Critic
from agentkit.llm.base import LLM
from agentkit.memory import Memory
from agentkit.policy.base import Policy
from agentkit.policy.generate import ReAct
from agentkit.policy.simple import Resume


def retry(
    llm: LLM,
    memory: Memory | None = None,
    *,
    policy: Policy | None = None,
    critic: Critic | None = None,
    name: str = "retry",
) -> Agent:
    """An agent that tries again until it succeeds, and then repeats what succeeded. Without ``memory`` it only
    tries."""
    return Agent(
        llm,
        Resume(policy or ReAct()),
        memory=memory,
        critic=critic,
        remember=RememberWays(),
        recall=RecallWays(),
        name=name,
    )
