"""The events of the log, and which of them a read sees.

The log is a list of events numbered 1, 2, 3, … in commit order. ``add``, ``edit`` and ``remove`` change records,
``credit`` says what came of an episode and which records were in its prompts, ``token`` marks a transaction that must
not be repeated, and ``rollback`` to T makes the state after it that of T. Nothing is ever taken out of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.memory.records import Record

FOREVER = 2**63 - 1


@dataclass(slots=True)  # not frozen: that makes a batch of them cost as much as storing it
class Event:
    """One event to be appended.

    ``id`` is the record it is about (0 for an add, whose id is its own sequence number; a negative number stands for
    the add of that provisional id in the same batch). ``base`` is the version that an edit was made from: the append
    fails with `Conflict` when another version has become current. ``record`` and ``vector`` (unit length float32) are
    those of an add or edit. Credit uses ``outcome``, ``episode``, ``task`` and ``data``; a token and the reason of a
    removal are in ``text``; the target of a rollback is ``id``. ``time`` is that of a record which has none.
    """

    op: str
    id: int = 0
    record: Record | None = None
    vector: npt.NDArray[np.float32] | None = None
    base: int = 0
    outcome: float | None = None
    episode: str = ""
    task: str = ""
    text: str = ""
    data: Mapping[str, Any] | None = None
    time: float = 0.0


class Conflict(Exception):
    """An edit was made from a version that is no longer the current one."""


def lineage(seq: int, rollbacks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which events the state at ``seq`` is made of: intervals ``(low, high]``, the newest first.

    ``rollbacks`` are (sequence number, target) in order. The state after a rollback R to T is the state at T.
    """
    parts = []
    for number, target in reversed(rollbacks):
        if number <= seq:
            parts.append((number, seq))
            seq = target
    parts.append((0, seq))
    return parts


def seen(event: int, parts: Sequence[tuple[int, int]]) -> bool:
    """Whether the event with this number is part of the state whose `lineage` is ``parts``."""
    return any(low < event <= high for low, high in parts)


def resolved(data: Mapping[str, Any] | None, keys: Sequence[str], given: Mapping[int, int]) -> dict[str, Any]:
    """``data`` with the provisional ids in the lists at ``keys`` replaced by those that were given."""
    result = dict(data or {})
    for key in keys:
        if isinstance(result.get(key), list | tuple):
            result[key] = [given.get(i, i) for i in result[key]]
    return result
