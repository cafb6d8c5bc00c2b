"""At random: the floor under every comparison."""

from __future__ import annotations

from agentkit.agent import Agent
from agentkit.policy.simple import Random


def random(*, name: str = "random") -> Agent:
    """An agent that draws among the admissible actions."""
    return Agent(None, Random(), name=name)
