"""Events and records as rows of the log, the same for every database."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agentkit.errors import InvalidValue
from agentkit.memory.backend import Mark
from agentkit.memory.events import Event, resolved
from agentkit.memory.records import REFERENCES, Record

CONTENT = (
    *("seq", "id", "kind", "namespace", "task", "episode", "step", "outcome", "importance", "time"),
    *("text", "key", "data"),
)

# What `row_of` gives: first what an index needs of an event, then the rest.
INDEXED = ("seq", "op", "id", "kind", "namespace", "task", "episode", "outcome", "importance", "time", "text", "vector")
ROW = (*INDEXED, "step", "key", "data")

# The last number, and the store's own id.
LAST = "SELECT coalesce(max(seq), 0), (SELECT value FROM meta WHERE key = 'store') FROM log"

# The credits, tokens and rollbacks after one number up to another; "?" stands for a parameter.
MARKS = (
    "SELECT seq, op, id, episode, task, outcome, text, data FROM log WHERE seq > ? AND seq <= ?"
    " AND op IN ('credit', 'token', 'rollback') ORDER BY seq"
)


def row_of(item: Event, seq: int, id_: int, given: Mapping[int, int]) -> tuple[Any, ...]:
    """An event as a row, in the order of `ROW`. ``given`` maps provisional ids to those that were given."""
    record = item.record
    if record is None:
        data = resolved(item.data, ("ids", "eligible"), given)
        outcome = None if item.outcome is None else _number("outcome", item.outcome)
        head = (seq, item.op, id_, None, None, item.task, item.episode, outcome, None, None, item.text)
        return (*head, None, None, None, json.dumps(data) if data else None)
    if not isinstance(record.kind, str):
        raise InvalidValue(f"a record's kind is {record.kind!r}; it must be a text.")
    text = None
    if record.data:
        try:
            text = json.dumps(resolved(record.data, REFERENCES, given), ensure_ascii=False, default=dict)
        except (TypeError, ValueError) as error:
            raise InvalidValue(f"a record's data must be JSON values: {error}.") from error
    vector = None if item.vector is None else item.vector.tobytes()
    return (
        seq,
        item.op,
        id_,
        record.kind,
        record.namespace,
        record.task,
        record.episode,
        None if record.outcome is None else _number("outcome", record.outcome),
        _number("importance", record.importance),
        _number("time", record.time or item.time),
        record.text,
        vector,
        record.step,
        record.key or None,
        text,
    )


def _number(name: str, value: Any) -> float:
    """What is not a number is refused before it is written: afterwards no read could make sense of it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise InvalidValue(f"{name} is {value!r}; it must be a number.")
    return number


def record_of(row: Sequence[Any]) -> Record:
    """A row of `CONTENT` as a record."""
    seq, id_, kind, namespace, task, episode, step, outcome, importance, time, text, key, data = row
    return Record(
        kind=kind,
        text=text,
        key=key or "",
        data=json.loads(data) if data else {},
        namespace=namespace,
        task=task,
        outcome=outcome,
        importance=importance,
        episode=episode,
        step=step,
        time=time,
        id=id_,
        seq=seq,
    )


def marks_of(rows: Iterable[Sequence[Any]]) -> Iterator[Mark]:
    """What `MARKS` gives."""
    for seq, op, id_, episode, task, outcome, text, data in rows:
        yield Mark(seq, op, id_ or 0, episode or "", task or "", outcome, text or "", data or "{}")
