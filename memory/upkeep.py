"""Keeping a memory small and true: forgetting by capacity, merging, and consolidating episodes into lessons.

All of it is events of the log: what is forgotten can be read as of before, and rolled back.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from agentkit.errors import InvalidValue, UnknownName
from agentkit.memory import knn
from agentkit.memory.records import Record, Where

if TYPE_CHECKING:
    from agentkit.memory.store import Memory

Policy = Literal["oldest", "least_useful", "reservoir", "most_redundant"]
_NEIGHBOURS = 8


def victims(memory: Memory, capacity: int, policy: Policy, where: Where | None = None, *, seed: int = 0) -> list[int]:
    """The ids to remove so that ``capacity`` of the records that ``where`` allows are left, the first to go first.

    - ``oldest``: those that were added first.
    - ``least_useful``: the lowest utility, then the lowest importance, then the oldest.
    - ``reservoir``: every record is as likely to stay as any other, whenever it was added, and the same ones stay
      however often this is repeated: each has a random rank made of its id and ``seed``.
    - ``most_redundant``: again and again, of the two records that are most alike, the less useful (then the older).
    """
    if capacity < 0:
        raise InvalidValue(f"the capacity is {capacity}; it must be 0 or more.")
    if policy not in get_args(Policy):
        raise UnknownName.among("policy", policy, get_args(Policy))
    seq = memory.seq
    records = [r for block, _ in memory.batches(seq, 4096, where=where) for r in block]
    surplus = len(records) - capacity
    if surplus <= 0:
        return []
    utility = {c.id: c.utility for c in memory.credit_of([r.id for r in records], as_of=seq)}
    if policy == "oldest":
        order = sorted(records, key=lambda r: r.id)
    elif policy == "least_useful":
        order = sorted(records, key=lambda r: (utility[r.id], r.importance, r.id))
    elif policy == "reservoir":
        order = sorted(records, key=lambda r: (hashlib.sha256(f"{seed} {r.id}".encode()).digest(), r.id))
    else:
        return _redundant(memory, records, utility, surplus, where, seq)
    return [r.id for r in order[:surplus]]


def _redundant(
    memory: Memory, records: Sequence[Record], utility: dict[int, float], surplus: int, where: Where | None, seq: int
) -> list[int]:
    vectors = np.concatenate([v for _, v in memory.batches(seq, 4096, where=where, vectors=True) if v is not None])
    ids = np.array([r.id for r in records], np.int64)
    worth = [(utility[r.id], r.id) for r in records]
    left = np.ones(len(records), np.bool_)
    gone: list[int] = []
    while len(gone) < surplus:
        rows = np.flatnonzero(left)
        pairs = []
        for row in rows.tolist():
            near, scores = knn.exact([(0, vectors)], left, ids, vectors[row], _NEIGHBOURS + 1)
            pairs += [
                (-score, *sorted((row, other)))
                for other, score in zip(near.tolist(), scores.tolist(), strict=True)
                if other != row
            ]
        if not pairs:  # one record is left
            gone += ids[rows].tolist()
            break
        for _, a, b in sorted(set(pairs)):
            if left[a] and left[b] and len(gone) < surplus:
                victim = min(a, b, key=lambda row: worth[row])
                left[victim] = False
                gone.append(int(ids[victim]))
    return gone[:surplus]


def merge(memory: Memory, ids: Iterable[int], **changes: Any) -> int:
    """Make one record of several, in one commit: that which was used most (then is most useful, then oldest) stays,
    with its id and its credit; the others are removed, and named in its ``data["merged"]``. It gets the mean of the
    known outcomes and the highest importance unless ``changes``, fields of `Record`, say otherwise."""
    ids = list(dict.fromkeys(ids))
    if len(ids) < 2:
        raise InvalidValue(f"{len(ids)} record is given; a merge needs two or more.")
    credits = memory.credit_of(ids)
    keep = min(credits, key=lambda c: (-c.uses, -c.utility, c.id)).id
    records = {i: memory.get(i) for i in ids}
    outcomes = [r.outcome for r in records.values() if r.outcome is not None]
    merged = [*records[keep].data.get("merged", ()), *(i for i in ids if i != keep)]
    fields: dict[str, Any] = {
        "outcome": sum(outcomes) / len(outcomes) if outcomes else None,
        "importance": max(r.importance for r in records.values()),
    }
    fields |= changes
    fields["data"] = {**records[keep].data, **dict(changes.get("data", {})), "merged": merged}
    with memory.transaction():
        memory.edit(keep, **fields)
        memory.remove([i for i in ids if i != keep], reason=f"merged into {keep}")
    return keep


def consolidate(
    memory: Memory,
    reflect: Callable[[Sequence[Record]], Iterable[Record]],
    where: Where | None = None,
    *,
    group: Callable[[Record], str] = lambda record: record.task,
    least: int = 3,
) -> list[int]:
    """Learn lessons from many records: ``reflect`` is given each group of at least ``least`` records and returns what
    is to be remembered of it; the new ids.

    The evidence stays: each lesson names the records it came from in ``data["evidence"]``. A record that is evidence of
    a lesson already is not given again, so that repeating this with nothing new does nothing. All lessons are added in
    one commit, after ``reflect`` was called for every group.
    """
    seq = memory.seq
    known = {i for block, _ in memory.batches(seq, 4096) for r in block for i in r.data.get("evidence", ())}
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for block, _ in memory.batches(seq, 4096, where=where):
        for record in block:
            if record.id not in known and "evidence" not in record.data:
                groups[group(record)].append(record)
    lessons = []
    for _, records in sorted(groups.items()):
        if len(records) >= least:
            evidence = [r.id for r in records]
            lessons += [replace(x, data={**x.data, "evidence": evidence}) for x in reflect(records)]
    return memory.add_many(lessons) if lessons else []
