"""CLIN (Majumder et al. 2023, "CLIN: A Continually Learning Language Agent for Rapid Task Adaptation and
Generalization").

Section 3, part by part::

    controller + executor    policy       the next goal, then an action that the world admits (section 3.1)
    memory generator         reflector    a new list of causal abstractions after each trial (section 3.2)
    memory                   recall       the latest list of this task, shown to the controller
    meta-memory              consolidate  one list from the best trials of all tasks (section 3.3)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from agentkit.agent import Agent
from agentkit.agents.learning import Consolidating
from agentkit.agents.memories import Reading, RecallLessons
from agentkit.critic.base import Critic
from agentkit.llm.base import LLM
from agentkit.memory import Memory, Recalled, Where
from agentkit.policy.base import Policy
from agentkit.policy.goal import GoalThenAct
from agentkit.reflection.causal import CausalReflector, MetaMemory
from agentkit.types import View

Setting = Literal["adapt", "environment", "task"]


def clin(
    llm: LLM,
    memory: Memory | None = None,
    *,
    setting: Setting = "adapt",
    policy: Policy | None = None,
    critic: Critic | None = None,
    name: str = "clin",
) -> Agent:
    """A CLIN agent, in one of the paper's three settings (section 4).

    ``"adapt"``: the same task in the same world, trial after trial. ``"environment"`` and ``"task"``: a meta-memory
    made of earlier tasks is where a task not met before begins; from its second trial on it has a memory of its own.
    """
    return Consolidating(
        llm,
        policy or GoalThenAct(),
        memory=memory,
        critic=critic,
        reflector=CausalReflector(),
        recall=RecallCausal(setting),
        consolidators=() if setting == "adapt" else (MetaMemory(about=setting),),
        name=name,
    )


@dataclass(frozen=True)
class RecallCausal:
    """The memory of this task; where it has none yet, the meta-memory of the setting."""

    setting: Setting

    def __call__(self, view: View, memory: Reading) -> View:
        own = RecallLessons(last=1, kinds=("causal",))(view, memory)
        if own.lessons or self.setting == "adapt":
            return own
        metas = [r for r in memory.records(Where(kinds=("meta",))) if r.data.get("about") == self.setting]
        return replace(view, lessons=tuple(Recalled(record, 1.0, 1.0) for record in metas[-1:]))
