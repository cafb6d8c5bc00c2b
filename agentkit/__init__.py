"""Language agents with reflective memory.

``import agentkit`` is cheap: each public name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkit.agent import Agent, Learned
    from agentkit.agents.reflexion import reflexion
    from agentkit.bench.ablate import ablate
    from agentkit.bench.compare import Comparison, compare
    from agentkit.envs import make
    from agentkit.errors import AgentkitError
    from agentkit.llm import Ledger, Recorded, ScriptedLLM, get_llm
    from agentkit.memory import Memory, Record, Where
    from agentkit.runlog import RunLog
    from agentkit.runner import Run, run
    from agentkit.types import Action, Episode, Judgement, Lesson, Message, Request, Step, StopReason, Task, View

_HOMES = {
    "Action": "types",
    "Agent": "agent",
    "AgentkitError": "errors",
    "Comparison": "bench.compare",
    "Episode": "types",
    "Judgement": "types",
    "Learned": "agent",
    "Ledger": "llm",
    "Lesson": "types",
    "Memory": "memory",
    "Message": "types",
    "Record": "memory",
    "Recorded": "llm",
    "Request": "types",
    "Run": "runner",
    "RunLog": "runlog",
    "ScriptedLLM": "llm",
    "Step": "types",
    "StopReason": "types",
    "Task": "types",
    "View": "types",
    "Where": "memory",
    "ablate": "bench.ablate",
    "compare": "bench.compare",
    "get_llm": "llm",
    "make": "envs",
    "reflexion": "agents.reflexion",
    "run": "runner",
}

__version__ = "0.1.0"
__all__ = [
    "Action",
    "Agent",
    "AgentkitError",
    "Comparison",
    "Episode",
    "Judgement",
    "Learned",
    "Ledger",
    "Lesson",
    "Memory",
    "Message",
    "Record",
    "Recorded",
    "Request",
    "Run",
    "RunLog",
    "ScriptedLLM",
    "Step",
    "StopReason",
    "Task",
    "View",
    "Where",
    "ablate",
    "compare",
    "get_llm",
    "make",
    "reflexion",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"agentkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
