"""Reflexion (Shinn et al. 2023, "Reflexion: Language Agents with Verbal Reinforcement Learning"), with episodic memory.

Algorithm 1 of the paper, part by part::

    actor M_a        policy      chooses an action from what it sees and what it recalls
    evaluator M_e    critic      judges the trajectory
    reflector M_sr   reflector   turns trajectory and judgement into a lesson
    mem              memory      the lessons of this task's earlier trials, shown to the actor (the last three)

With a policy that writes (ReAct and the like) this is the paper: the model reflects in words on each failed trial, and
the actor sees, by ``strategy``, its last reflections, its last attempt, or both.

With the policy that chooses by likelihood (`agentkit.policy.choose`, the default) it goes beyond the paper, for models
too small to reflect: lessons are read off the trace, and the memory also keeps every step, of which the nearest to the
situation tilt the actor's choice: a small model does not follow the lessons it is shown, but it can be moved by what
happened.
"""

from __future__ import annotations

from typing import Literal

from agentkit.agent import Agent, Recall
from agentkit.agents.memories import RecallEpisodes, RecallLessons, Recalls, RememberEpisodes
from agentkit.critic.base import Critic, EnvironmentCritic
from agentkit.errors import InvalidValue
from agentkit.llm.base import LLM
from agentkit.memory import Memory
from agentkit.policy.base import Policy
from agentkit.policy.choose import Choose
from agentkit.recall import RecallSteps, RememberSteps
from agentkit.reflection.base import Reflector
from agentkit.reflection.trace import TraceReflector
from agentkit.reflection.verbal import VerbalReflector

Strategy = Literal["reflections", "last_attempt", "both"]


def reflexion(
    llm: LLM,
    memory: Memory | None = None,
    *,
    policy: Policy | None = None,
    critic: Critic | None = None,
    reflector: Reflector | None = None,
    strategy: Strategy = "reflections",
    lessons: int = 3,
    k: int = 64,
    name: str = "reflexion",
) -> Agent:
    """A Reflexion agent. Without ``memory`` the same agent merely retries, which is its control.

    ``lessons`` is how many reflections are shown. ``strategy`` is for policies that write, ``k`` (how many steps are
    recalled) for `Choose`.
    """
    if strategy not in ("reflections", "last_attempt", "both"):
        raise InvalidValue(f"strategy is {strategy!r}; it must be reflections, last_attempt or both.")
    policy = policy or Choose()
    critic = critic or EnvironmentCritic()
    if isinstance(policy, Choose):
        return Agent(
            llm,
            policy,
            critic=critic,
            reflector=reflector or TraceReflector(),
            memory=memory,
            recall=RecallSteps(k=k, lessons=lessons),
            remember=RememberSteps(),
            name=name,
        )
    shown: list[Recall] = []
    if strategy != "reflections":
        shown.append(RecallEpisodes("recent", k=1, task="same"))
    if strategy != "last_attempt":
        shown.append(RecallLessons(last=lessons))
    return Agent(
        llm,
        policy,
        critic=critic,
        reflector=None if strategy == "last_attempt" else reflector or VerbalReflector(),
        memory=memory,
        recall=Recalls(tuple(shown)),
        remember=None if strategy == "reflections" else RememberEpisodes(observation_chars=1000),
        name=name,
    )
