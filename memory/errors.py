"""What can go wrong with a store. Each error says what was found and what to do about it."""

from __future__ import annotations

from agentkit.errors import AgentkitError


class StoreError(AgentkitError, RuntimeError):
    """A store that cannot be read or written."""


class NotAStore(StoreError, ValueError):
    """A file or database that holds something else, or is damaged. It is left as it was found."""


class NewerSchema(StoreError):
    """A store written by a later version of agentkit. It is left as it was found."""


class EmbedderMismatch(StoreError, ValueError):
    """The vectors of a store were made by another embedder than the one it is opened with."""


class StoreFull(StoreError, OSError):
    """No room for a write. Nothing of it was stored, and all that was acknowledged before is there."""


class UnknownRecord(AgentkitError, KeyError):
    """No record has this id at this sequence number."""


class ReadOnly(AgentkitError, TypeError):
    """A write through a view of the past."""
