"""Things found by name: one table of ``name -> "module:attr"`` a kind, and an entry-point group so that other packages
add theirs.

A distribution adds a thing by declaring an entry point in the group ``agentkit.<kind>``, for example::

    [project.entry-points."agentkit.agents"]
    my_agent = "my_package:make_agent"
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from agentkit.errors import InvalidValue, UnknownName

TABLES: dict[str, dict[str, str]] = {
    "llms": {
        "litellm": "agentkit.llm.litellm:LiteLLM",
        "local": "agentkit.llm.local:LocalLLM",
        "openai": "agentkit.llm.openai:OpenAILLM",
        "scripted": "agentkit.llm.scripted:ScriptedLLM",
    },
    "embedders": {
        "hashing": "agentkit.memory.embed:HashingEmbedder",
        "minilm": "agentkit.memory.embed_minilm:minilm",
    },
    "agents": {
        "clin": "agentkit.agents.clin:clin",
        "expel": "agentkit.agents.expel:expel",
        "icl": "agentkit.agents.icl:icl",
        "random": "agentkit.agents.random:random",
        "react": "agentkit.agents.react:react",
        "reflexion": "agentkit.agents.reflexion:reflexion",
        "retry": "agentkit.agents.retry:retry",
        "self-consistency": "agentkit.agents.self_consistency:self_consistency",
        "self-refine": "agentkit.agents.self_refine:self_refine",
        "voyager": "agentkit.agents.voyager:voyager",
    },
    "policies": {
        "call": "agentkit.policy.call:FunctionCall",
        "choose": "agentkit.policy.choose:Choose",
        "choose-listed": "agentkit.policy.generate:ChooseListed",
        "choose-shown": "agentkit.policy.choose_shown:ChooseShown",
        "consistent": "agentkit.policy.consistent:Consistent",
        "direct": "agentkit.policy.generate:Direct",
        "goal-then-act": "agentkit.policy.goal:GoalThenAct",
        "program": "agentkit.policy.program:Program",
        "random": "agentkit.policy.simple:Random",
        "react": "agentkit.policy.generate:ReAct",
        "resume": "agentkit.policy.simple:Resume",
        "self-refine": "agentkit.policy.refine:SelfRefine",
    },
    "critics": {
        "checklist": "agentkit.critic.judge:ChecklistJudge",
        "ensemble": "agentkit.critic.ensemble:Ensemble",
        "environment": "agentkit.critic.base:EnvironmentCritic",
        "rubric": "agentkit.critic.judge:RubricJudge",
        "self-consistent": "agentkit.critic.ensemble:SelfConsistent",
        "steps": "agentkit.critic.judge:StepJudge",
        "unit-tests": "agentkit.critic.unit_tests:UnitTests",
    },
    "reflectors": {
        "causal": "agentkit.reflection.causal:CausalReflector",
        "hindsight": "agentkit.reflection.verbal:Hindsight",
        "several": "agentkit.reflection.several:Several",
        "trace": "agentkit.reflection.trace:TraceReflector",
        "verbal": "agentkit.reflection.verbal:VerbalReflector",
    },
}
_ONE = {"llms": "model", "policies": "policy"}


def register(kind: str, name: str, target: str) -> None:
    """Add ``name`` to the table of ``kind``; ``target`` is ``"module:attr"`` and is imported only when asked for."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise InvalidValue(f"{target!r} does not say where {name!r} is; write 'module:attribute'.")
    _table(kind)[name] = target


def names(kind: str) -> list[str]:
    """All names of ``kind``, those of installed entry points included."""
    return sorted({*_table(kind), *(e.name for e in entry_points(group=f"agentkit.{kind}"))})


def get(kind: str, name: str) -> object:
    """The thing called ``name``. Raises `UnknownName` with the nearest names."""
    target = _table(kind).get(name)
    if target is None:
        for entry in entry_points(group=f"agentkit.{kind}"):
            if entry.name == name:
                return entry.load()
        raise UnknownName.among(_ONE.get(kind, kind.removesuffix("s")), name, names(kind))
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _table(kind: str) -> dict[str, str]:
    if kind not in TABLES:
        raise UnknownName.among("kind", kind, TABLES)
    return TABLES[kind]
