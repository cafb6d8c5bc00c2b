"""What can go wrong with a store. Each error says what was found and what to do about it."""

from __future__ import annotations

from agentkit.errors import AgentkitError


class StoreError(AgentkitError, RuntimeError):
    """A store that cannot be read or written."""


class NotAStore(StoreError, ValueError):
    """A file or database that holds something else, or is damaged. It is left as it was found."""


class NewerSchema(StoreError):
    """A store written by a later version of agentkit. It is left as it was found."""

    @classmethod
    def of(cls, where: str, version: int, known: int) -> NewerSchema:
        """For the store at ``where``, whose schema is ``version``."""
        return cls(
            f"{where} has schema version {version}; this agentkit knows versions up to {known}."
            " Run: pip install --upgrade agentkit"
        )


class EmbedderMismatch(StoreError, ValueError):
    """The vectors of a store were made by another embedder than the one it is opened with."""

    @classmethod
    def of(cls, where: str, stored: tuple[str, int], given: tuple[str, int]) -> EmbedderMismatch:
        """For the store at ``where``; embedders are (name, dim)."""
        return cls(
            f"{where} was made with the embedder {stored[0]!r} ({stored[1]} numbers a vector), and is opened with"
            f" {given[0]!r} ({given[1]}). Open it with the first, or give reembed=True to compute every vector anew"
            " with the second."
        )


class EmbeddedAnew(StoreError):
    """Another process has embedded the store anew since it was opened here."""

    @classmethod
    def of(cls, where: str) -> EmbeddedAnew:
        """For the store at ``where``."""
        return cls(
            f"{where} was embedded anew by another process since it was opened here. Close it and open it again with"
            " the new embedder."
        )


class StoreFull(StoreError, OSError):
    """No room for a write. Nothing of it was stored, and all that was acknowledged before is there."""


class UnknownRecord(AgentkitError, KeyError):
    """No record has this id at this sequence number."""


class ReadOnly(AgentkitError, TypeError):
    """A write through a view of the past."""
