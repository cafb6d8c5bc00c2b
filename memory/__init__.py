"""What an agent remembers: an append-only log in SQL, exact kNN recall over it, credit, and a library of skills.

Worth using alone: of agentkit this package imports its errors and two more small modules. It loads SQLAlchemy, FAISS
and any model only when a store is opened or an embedder is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if __name__ != "agentkit.memory":
    raise ImportError(
        f"this package is agentkit.memory, but it was imported as {__name__!r}. Write `import agentkit.memory`; if you "
        "meant a package of your own with this name, put its folder before agentkit's checkout on sys.path."
    )

if TYPE_CHECKING:
    from agentkit.memory.embed import Embedder, HashingEmbedder, load_embedder
    from agentkit.memory.records import Diff, Recalled, Record, Where
    from agentkit.memory.rendering import render
    from agentkit.memory.scoring import Scorer, Weighted
    from agentkit.memory.skill import Skill
    from agentkit.memory.skills import SkillLibrary
    from agentkit.memory.store import Memory, stored_embedder
    from agentkit.memory.view import View
    from agentkit.memory.writes import Transaction

_EXPORTS = {
    "Diff": "records",
    "Embedder": "embed",
    "HashingEmbedder": "embed",
    "Memory": "store",
    "Recalled": "records",
    "Record": "records",
    "Scorer": "scoring",
    "Skill": "skill",
    "SkillLibrary": "skills",
    "Transaction": "writes",
    "View": "view",
    "Weighted": "scoring",
    "Where": "records",
    "load_embedder": "embed",
    "render": "rendering",
    "stored_embedder": "store",
}

__all__ = [
    "Diff",
    "Embedder",
    "HashingEmbedder",
    "Memory",
    "Recalled",
    "Record",
    "Scorer",
    "Skill",
    "SkillLibrary",
    "Transaction",
    "View",
    "Weighted",
    "Where",
    "load_embedder",
    "render",
    "stored_embedder",
]


def __getattr__(name: str) -> object:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
