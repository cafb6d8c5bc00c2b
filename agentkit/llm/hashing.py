"""The key of a request: a hash of all that can change its answer."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict

from agentkit.types import Request


@functools.lru_cache(maxsize=4096)
def request_hash(model: str, request: Request, kind: str = "generate") -> str:
    """SHA-256 (64 hexadecimal digits) of the canonical JSON of a request.

    ``model`` is the model's `identity` (its name with the revision or digest of its weights), ``kind`` is
    ``"generate"`` or ``"score"``.
    """
    return hashlib.sha256(canonical(model, request, kind).encode()).hexdigest()


def canonical(model: str, request: Request, kind: str = "generate") -> str:
    """The text that `request_hash` hashes: JSON with sorted keys and no spaces."""
    value = {"kind": kind, "model": model, "request": asdict(request)}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict)


def identity(llm: object, request: Request | None = None) -> str:
    """What names a model in hashes: its ``identity`` where it has one, else its ``name``.

    A model whose weights may differ between requests (adapters) has a method ``identity_of(request)``.
    """
    identity_of = getattr(llm, "identity_of", None)
    if request is not None and identity_of is not None:
        return str(identity_of(request))
    return str(getattr(llm, "identity", "") or getattr(llm, "name", ""))
