"""Models behind one protocol: `get_llm` builds one by name, and wrappers (`instrument`, `Recorded`) are models too.

Everything here is imported when it is first asked for, so that ``import agentkit.llm`` loads no model library.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from agentkit import registry
from agentkit.errors import InvalidValue, MissingExtra, UnknownName
from agentkit.llm.base import LLM, ScoringLLM

if TYPE_CHECKING:
    from agentkit.llm.hashing import request_hash
    from agentkit.llm.local import LocalLLM
    from agentkit.llm.meter import Call, Ledger, instrument, metered
    from agentkit.llm.recorded import Recorded
    from agentkit.llm.scripted import ScriptedLLM

_HOMES = {
    "Call": "meter",
    "Ledger": "meter",
    "LocalLLM": "local",
    "Recorded": "recorded",
    "ScriptedLLM": "scripted",
    "instrument": "meter",
    "metered": "meter",
    "request_hash": "hashing",
}
_EXTRAS = {"torch": "local", "transformers": "local", "gguf": "local", "llguidance": "local", "peft": "train"}

__all__ = [
    "LLM",
    "Call",
    "Ledger",
    "LocalLLM",
    "Recorded",
    "ScoringLLM",
    "ScriptedLLM",
    "get_llm",
    "instrument",
    "metered",
    "request_hash",
]


def get_llm(name: str, **options: Any) -> LLM:  # Any: each backend documents its own options
    """The model called ``name``, which is ``"<backend>/<model>"``; ``options`` go to the backend.

    ``"local/smollm2-135m"``, ``"local/<hub id, folder or .gguf file>"``, ``"openai/<model>"``,
    ``"litellm/<provider>/<model>"``. Raises `UnknownName` with the nearest backends, and `MissingExtra` with the pip
    command where a library is not installed.
    """
    if not isinstance(name, str):
        raise InvalidValue(f"the model is {name!r}; it must be a name, such as 'local/smollm2-135m'.")
    backend, _, model = name.partition("/")
    known = registry.names("llms")
    if backend not in known:
        raise UnknownName.among("model backend", backend, known, "A model's name is '<backend>/<model>'.")
    try:
        build: Any = registry.get("llms", backend)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _EXTRAS:
            raise MissingExtra.of(missing, _EXTRAS[missing]) from error
        raise
    needs_model = next(iter(inspect.signature(build).parameters.values())).default is inspect.Parameter.empty
    if needs_model and not model and "model" not in options:
        raise InvalidValue(f"{name!r} names no model; write '{backend}/<model>'.")
    llm: LLM = build(model, **options) if model else build(**options)
    return llm


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"agentkit.llm.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
