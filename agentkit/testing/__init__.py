"""Tools for tests of agents, environments, models and memories.

`ScriptedLLM` answers from a list or a callable, `HashingEmbedder` embeds without a model. `check_env`, `check_llm` and
`check_memory` are the contracts as tests: run them on what you plug in.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkit.llm.scripted import ScriptedLLM
    from agentkit.memory.embed import HashingEmbedder
    from agentkit.testing.envcheck import Report, Violation, check_env
    from agentkit.testing.memorycheck import check_memory
    from agentkit.testing.models import check_llm

_HOMES = {
    "HashingEmbedder": "agentkit.memory.embed",
    "Report": "agentkit.testing.envcheck",
    "ScriptedLLM": "agentkit.llm.scripted",
    "Violation": "agentkit.testing.envcheck",
    "check_env": "agentkit.testing.envcheck",
    "check_llm": "agentkit.testing.models",
    "check_memory": "agentkit.testing.memorycheck",
}
__all__ = ["HashingEmbedder", "Report", "ScriptedLLM", "Violation", "check_env", "check_llm", "check_memory"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentkit.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
