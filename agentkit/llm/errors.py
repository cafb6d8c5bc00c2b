"""What can go wrong with a model, each kind its own error.

Each `ModelError` ends an episode as ``model_error``, or the learning from it. `ReplayMiss` and `NetworkForbidden` are
none: no model failed, the run was set up wrongly, and it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from agentkit.errors import AgentkitError, InvalidValue, ModelError
from agentkit.types import Usage

_Error = TypeVar("_Error", bound=BaseException)


def paid(error: _Error, usages: Sequence[Usage]) -> _Error:
    """``error``, telling the meter what was paid for before it: its ``usage``."""
    error.usage = sum(usages, getattr(error, "usage", Usage()))  # type: ignore[attr-defined]
    return error


class AuthenticationFailed(ModelError):
    """No key, or a key that the server refuses."""


class UnknownModel(ModelError):
    """The server, the hub or the disk holds no model of that name."""


class ServerUnreachable(ModelError):
    """No answer over the network, after all retries: refused connections, broken ones, or timeouts."""


class RateLimited(ModelError):
    """The server still asks to slow down, after all retries."""


class ServerFailed(ModelError):
    """The server answers with errors of its own (5xx) or with something unreadable, after all retries."""


class RequestRefused(ModelError):
    """The server calls the request itself wrong or unwelcome (4xx). Sending it again would not help."""


class EmptyCompletion(ModelError):
    """The model answered with nothing, after all retries."""


class Unsupported(ModelError, NotImplementedError):
    """This backend cannot do what the request asks for."""


class ContextTooLong(ModelError, ValueError):
    """The prompt is longer than the model's context. The message gives both counts, in tokens."""

    @classmethod
    def of(cls, name: str, tokens: int, limit: int) -> ContextTooLong:
        """An error for a prompt of ``tokens`` where ``limit`` are allowed, the answer's included."""
        return cls(
            f"the prompt has {tokens} tokens, and {name} takes at most {limit} with at least one of them left for the "
            "answer. Shorten it, or build the model with overflow='truncate' to drop the oldest messages."
        )


class DownloadFailed(ModelError, OSError):
    """A model could not be fetched, or what came is not what was expected."""


class DamagedModel(ModelError, ValueError):
    """A model file cannot be read: cut short, overwritten, or of another format."""


class OutOfMemory(ModelError, MemoryError):
    """One request alone does not fit into the device's memory."""


class ReplayMiss(AgentkitError, LookupError):
    """A recording does not hold the request. The message says how the nearest stored one differs.

    It ends the run: a replay that went on without the answer would be another run.
    """


class NetworkForbidden(AgentkitError, PermissionError):
    """A model would be called over the network where that was switched off."""


__all__ = [
    "AuthenticationFailed",
    "ContextTooLong",
    "DamagedModel",
    "DownloadFailed",
    "EmptyCompletion",
    "InvalidValue",
    "ModelError",
    "NetworkForbidden",
    "OutOfMemory",
    "RateLimited",
    "ReplayMiss",
    "RequestRefused",
    "ServerFailed",
    "ServerUnreachable",
    "UnknownModel",
    "Unsupported",
    "paid",
]
