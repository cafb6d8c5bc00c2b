"""Writes that wait for their commit, and the events that they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agentkit.memory.backend import Backend, Vector
from agentkit.memory.errors import UnknownRecord
from agentkit.memory.events import Event


class Transaction:
    """What `Memory.transaction` gives: ``done`` is True when its token was committed before, and then all that is
    written inside is left out. ``ids`` says, after the commit, which id each provisional (negative) one became."""

    def __init__(self, token: str, done: bool) -> None:
        self.token = token
        self.done = done
        self.ids: dict[int, int] = {}
        self.ops: list[Op] = []
        self._last = 0

    def provisional(self) -> int:
        self._last -= 1
        return self._last


class Op:
    """A write that waits for its transaction's commit. It is turned into events anew each time a commit is tried."""

    def __init__(
        self,
        op: str,
        *,
        id_: int = 0,
        changes: dict[str, Any] | None = None,
        event: Event | None = None,
    ) -> None:
        self.op, self.id, self.changes, self.event = op, id_, changes or {}, event


def events_of(ops: Sequence[Op], backend: Backend, embed: Callable[[Sequence[str]], Vector], now: float) -> list[Event]:
    """The events that these writes come to, from the state as it is now."""
    seq = backend.seq()
    edited = sorted({op.id for op in ops if op.op == "edit" and op.id > 0})
    versions = backend.find(edited, seq) if edited else {}
    current = {r.id: r for r in backend.fetch(list(versions.values()))}
    events: list[Event] = []
    place: dict[int, int] = {}  # provisional id -> where its add is
    removed: set[int] = set()
    wanted: list[tuple[int, str]] = []  # (event, text to embed)
    for op in ops:
        if op.op == "add":
            assert op.event is not None
            assert op.event.record is not None
            if op.event.vector is None:
                wanted.append((len(events), op.event.record.key or op.event.record.text))
            place[op.id] = len(events)
            events.append(op.event)
        elif op.op == "edit":
            base = versions.pop(op.id, 0)
            where = place.get(op.id)
            old = events[where].record if where is not None else current.get(op.id)
            if old is None or op.id in removed:
                raise UnknownRecord(f"there is no record {op.id} at sequence number {seq}.")
            new = replace(old, **op.changes)
            text = new.key or new.text
            if where is not None and op.id < 0:  # an add of this batch: store it as changed
                if text != (old.key or old.text):
                    wanted.append((where, text))
                events[where] = replace(events[where], record=new)
                continue
            vector: Vector | None = None
            if text != (old.key or old.text):
                wanted.append((len(events), text))
            elif where is not None:
                vector = events[where].vector
                wanted.extend([(len(events), t) for i, t in wanted if i == where])
            else:
                vector = backend.vectors([old.seq])[0]
            current[op.id] = new
            place[op.id] = len(events)
            events.append(Event("edit", id=op.id, record=new, vector=vector, base=base, time=now))
        else:
            assert op.event is not None
            if op.op == "remove":
                if op.id in removed or (op.id < 0 and op.id not in place):
                    raise UnknownRecord(f"there is no record {op.id} at sequence number {seq}.")
                removed.add(op.id)
            events.append(op.event)
    if wanted:
        final = dict(wanted)  # the last text of each event
        block = embed(list(final.values()))
        for i, vector in zip(final, block, strict=True):
            events[i] = replace(events[i], vector=vector)
    return events
