"""Naive in-context learning: every earlier episode, whole, in the context. The baseline to beat.

Many memory systems do not beat it (Wang et al. 2024, "Agent Workflow Memory", and streaming benchmarks since compare
with it); its cost grows with every episode.
"""

from __future__ import annotations

from agentkit.agent import Agent
from agentkit.agents.memories import RecallEpisodes, RememberEpisodes
from agentkit.critic.base import Critic
from agentkit.llm.base import LLM
from agentkit.memory import Memory
from agentkit.policy.base import Policy
from agentkit.policy.generate import ReAct


def icl(
    llm: LLM,
    memory: Memory | None = None,
    *,
    policy: Policy | None = None,
    critic: Critic | None = None,
    successes_only: bool = False,
    memory_tokens: int = 100_000,
    name: str = "icl",
) -> Agent:
    """An agent that reads all its episodes, the newest first, as far as ``memory_tokens`` go.

    A ``policy`` of your own has its own budget of tokens.
    """
    return Agent(
        llm,
        policy or ReAct(memory_tokens=memory_tokens),
        memory=memory,
        critic=critic,
        remember=RememberEpisodes(observation_chars=None),
        recall=RecallEpisodes("all", k=None, newest_first=True, successes_only=successes_only),
        name=name,
    )
