"""ExpeL (Zhao et al. 2024, "ExpeL: LLM Agents Are Experiential Learners").

Section 4, part by part::

    experience gathering (4.1)    Reflexion on the training tasks; every attempt is kept
    insight extraction (4.2)      pairs of a failure and a success, and lists of successes; ADD, AGREE, EDIT, REMOVE
    task inference (4.3)          all insights, and the successful attempts at the tasks nearest to this one
"""

from __future__ import annotations

from typing import Literal

from agentkit.agent import Agent, Recall
from agentkit.agents.learning import Consolidating
from agentkit.agents.memories import RecallEpisodes, RecallInsights, RecallLessons, Recalls, RememberEpisodes
from agentkit.critic.base import Critic
from agentkit.llm.base import LLM
from agentkit.memory import Memory
from agentkit.policy.base import Policy
from agentkit.policy.generate import ReAct
from agentkit.reflection.insights import Insights
from agentkit.reflection.verbal import VerbalReflector


def expel(
    llm: LLM,
    memory: Memory | None = None,
    *,
    phase: Literal["gather", "apply", "online"] = "online",
    k: int = 3,
    policy: Policy | None = None,
    critic: Critic | None = None,
    insights: Insights | None = None,
    name: str = "expel",
) -> Agent:
    """An ExpeL agent.

    ``"gather"`` is the paper's training phase: own reflections are shown, and insights are extracted, but not shown.
    ``"apply"`` is its test phase: insights and the ``k`` nearest successes are shown, and nothing new is learned (run
    it with ``learn=False``, or its attempts are kept as well). ``"online"`` does all of it at once, for streams of
    tasks.
    """
    gathering: list[Recall] = [RecallLessons(last=3, kinds=("reflection",))]
    applying: list[Recall] = [RecallEpisodes("near", k=k, successes_only=True), RecallInsights()]
    recalls = {"gather": gathering, "apply": applying, "online": [*applying, *gathering]}[phase]
    return Consolidating(
        llm,
        policy or ReAct(),
        memory=memory,
        critic=critic,
        remember=RememberEpisodes(),
        reflector=None if phase == "apply" else VerbalReflector(),
        recall=Recalls(tuple(recalls)),
        consolidators=() if phase == "apply" else (insights or Insights(),),
        name=name,
    )
