"""ReAct (Yao et al. 2023, "ReAct: Synergizing Reasoning and Acting in Language Models")."""

from __future__ import annotations

from agentkit.agent import Agent
from agentkit.llm.base import LLM
from agentkit.policy.base import Policy
from agentkit.policy.generate import ReAct


def react(
    llm: LLM, *, instructions: str = "", examples: str = "", policy: Policy | None = None, name: str = "react"
) -> Agent:
    """A ReAct agent: thought, action, observation, and nothing kept from trial to trial (section 2).

    ``examples`` are the trajectories that the paper gives as few shots (one to six).
    """
    return Agent(llm, policy or ReAct(instructions=instructions, examples=examples), name=name)
