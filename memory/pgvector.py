"""pgvector as the backend needs it: vectors in its binary form, filters as SQL, errors in this package's terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from psycopg import adapt
from psycopg.pq import Format
from sqlalchemy.exc import SQLAlchemyError

from agentkit.memory.backend import Hits, Vector
from agentkit.memory.errors import StoreError, StoreFull
from agentkit.memory.records import Where


class Packed(bytes):
    """A vector in pgvector's binary form."""

    @classmethod
    def of(cls, vector: Vector) -> Packed:
        return cls(len(vector).to_bytes(2, "big") + b"\0\0" + vector.astype(">f4").tobytes())


class Dumper(adapt.Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> bytes:
        return bytes(obj)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Database errors as errors of this package."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        original = getattr(error, "orig", None) or error
        said = str(original).strip()
        if isinstance(original, psycopg.errors.DiskFull):
            raise StoreFull(f"{where}: {said}. Nothing of this write was stored; make room, then repeat it.") from error
        if isinstance(original, psycopg.OperationalError):
            raise StoreError(
                f"{where} cannot be reached: {said}. Check that the server runs and the URL is right."
            ) from error
        raise StoreError(f"{where}: {said}") from error


def condition(where: Where | None, seq: int) -> tuple[str, dict[str, Any], bool]:
    """An SQL condition, its values, and whether it narrows the search to a part of the records."""
    parts = ["born <= %(seq)s AND died > %(seq)s"]
    values: dict[str, Any] = {"seq": seq}
    narrow = False
    if where is not None:
        for part, value, narrows in (
            ("kind = ANY(%(kinds)s)", None if where.kinds is None else list(where.kinds), True),
            ("namespace = %(namespace)s", where.namespace, True),
            ("task = %(task)s", where.task, True),
            ("episode = %(episode)s", where.episode, True),
            ("task <> %(exclude_task)s", where.exclude_task, False),
            ("episode <> %(exclude_episode)s", where.exclude_episode, False),
            ("id = ANY(%(ids)s)", None if where.ids is None else list(where.ids), True),
            ("id <> ALL(%(exclude_ids)s)", list(where.exclude_ids) or None, False),
            ("outcome >= %(min_outcome)s", where.min_outcome, True),
            ("outcome <= %(max_outcome)s", where.max_outcome, True),
            ("time >= %(after)s", where.after, True),
            ("time < %(before)s", where.before, True),
        ):
            if value is not None:
                name = part[part.index("%(") + 2 : part.index(")s")]
                parts.append(part)
                values[name] = value
                narrow = narrow or narrows
    return " AND ".join(parts), values, narrow


def unpacked(data: bytes) -> Vector:
    return np.frombuffer(data, ">f4", offset=4).astype(np.float32)


def hits(rows: Sequence[tuple[Any, ...]]) -> Hits:
    version, id_, relevance, importance, time = zip(*rows, strict=True) if rows else ((),) * 5
    return Hits(
        np.array(version, np.int64),
        np.array(id_, np.int64),
        np.array(relevance, np.float64),
        np.array(importance, np.float64),
        np.array(time, np.float64),
    )
