"""The values of the memory: what is remembered, what is asked for, and what comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

# Keys of Record.data that hold lists of record ids: what a lesson was learned from, and what was merged into a record.
REFERENCES = ("evidence", "merged")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing remembered.

    ``text`` is what is rendered into a prompt; ``key`` is what is embedded and searched (the text itself when empty).
    ``kind`` is ``"episode"``, ``"step"``, ``"lesson"``, ``"skill"`` or any other word. ``task`` names the task it came
    from, ``episode`` and ``step`` the place (provenance). ``outcome`` is what came of it, by convention in [0, 1].
    ``importance`` is in [0, 1]. ``data`` holds JSON values; what it has under ``"evidence"`` and ``"merged"`` are lists
    of record ids, which imports follow. ``time`` is in seconds since the epoch, and the time of
    writing when it is 0. ``id`` and ``seq`` are given by the store: 0 means not stored yet; ``id`` stays the same when
    the record is edited, ``seq`` is the sequence number of the event that made this version.
    """

    kind: str
    text: str
    key: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = ""
    task: str = ""
    outcome: float | None = None
    importance: float = 0.5
    episode: str = ""
    step: int | None = None
    time: float = 0.0
    id: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Recalled:
    """A record that a recall found: ``score`` orders the result, ``relevance`` is the cosine similarity in [-1, 1],
    ``utility`` what credit says of the record (0 where nothing is known)."""

    record: Record
    score: float
    relevance: float
    utility: float = 0.0


@dataclass(frozen=True, slots=True)
class Where:
    """Which records a read may see; every condition that is given must hold.

    ``exclude_task`` is the task guard (no record of this task), ``exclude_ids`` is leave-one-out. A string given for a
    collection means that one string. ``min_outcome`` and ``max_outcome`` leave out records without an outcome.
    ``after`` and ``before`` bound the time of a record: ``after <= time < before``.
    """

    kinds: Collection[str] | str | None = None
    namespace: str | None = None
    task: str | None = None
    episode: str | None = None
    exclude_task: str | None = None
    exclude_episode: str | None = None
    ids: Collection[int] | None = None
    exclude_ids: Collection[int] = ()
    min_outcome: float | None = None
    max_outcome: float | None = None
    after: float | None = None
    before: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.kinds, str):
            object.__setattr__(self, "kinds", (self.kinds,))


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed between two sequence numbers. ``edited`` holds (before, after); ``credited`` are the episodes that
    were credited, as (episode, outcome)."""

    added: tuple[Record, ...]
    removed: tuple[Record, ...]
    edited: tuple[tuple[Record, Record], ...]
    credited: tuple[tuple[str, float], ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.edited or self.credited)
