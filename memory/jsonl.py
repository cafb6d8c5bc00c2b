"""A memory as JSON lines: one header, then one line a record and one a credit.

The lines hold a state, not the log: records as of one sequence number, and the credits that count at it. Ids are those
of the exporting memory; an import gives new ones, and follows them in credits and in the evidence of lessons.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentkit.errors import InvalidValue
from agentkit.memory.records import REFERENCES, Record

if TYPE_CHECKING:
    from agentkit.memory.store import Memory

FORMAT = "agentkit-memory"
VERSION = 1
_FIELDS = {f.name for f in fields(Record)} - {"seq"}
_BATCH = 4096


def export_jsonl(
    memory: Memory, path: str | os.PathLike[str], *, as_of: int | None = None, vectors: bool = False
) -> int:
    """Write the memory as of a sequence number; the number of records. The file appears whole or not at all.

    An earlier export is replaced. Raises `InvalidValue` where ``path`` is a folder, or a database: a memory, perhaps.
    """
    view = memory.at(as_of)
    target = Path(path)
    _check_target(target)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    embedder = memory.embedder
    try:
        with partial.open("w", encoding="utf-8") as file:
            head = {
                "format": FORMAT,
                "version": VERSION,
                "embedder": embedder.name,
                "dim": embedder.dim,
                "seq": view.seq,
            }
            file.write(_line(head))
            count = 0
            for records, block in memory.batches(view.seq, _BATCH, vectors=vectors):
                for i, record in enumerate(records):
                    line = asdict(replace(record, data=dict(record.data)))
                    del line["seq"]
                    if block is not None:
                        line["vector"] = base64.b64encode(block[i].astype("<f4").tobytes()).decode()
                    file.write(_line({"record": line}))
                count += len(records)
            for entry in memory.credits(as_of=view.seq):
                credit: dict[str, Any] = {"ids": sorted(entry.ids), "outcome": entry.outcome}
                credit |= {"episode": entry.episode, "task": entry.task}
                if entry.eligible is not None:
                    credit["eligible"] = sorted(entry.eligible)
                file.write(_line({"credit": credit}))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


def _check_target(target: Path) -> None:
    from agentkit.memory.sqlite_file import MAGIC  # late, as it loads SQLAlchemy

    if target.is_dir():
        raise InvalidValue(f"{target} is a folder. Name the file to be written in it.")
    if not target.parent.is_dir():
        raise InvalidValue(f"there is no folder {target.parent}. Make it first, or name another file.")
    if target.is_file():
        with target.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                raise InvalidValue(f"{target} is a database, which an export would replace. Name another file.")


def import_jsonl(memory: Memory, path: str | os.PathLike[str]) -> list[int]:
    """Add what `export_jsonl` wrote, in one commit; the new ids. Vectors in the file are used when this memory's
    embedder made them, and records are embedded anew otherwise. Raises `InvalidValue` with the line, having added
    nothing."""
    lines = _lines(Path(path))
    head = _head(lines, path)
    embedder = memory.embedder
    same = (head.get("embedder"), head.get("dim")) == (embedder.name, embedder.dim)
    known: dict[int, int] = {}
    with memory.transaction() as tx:
        for number, line in lines:
            with _told(path, number):
                read = _read(line)
                if isinstance(read, dict):
                    memory.credit(**{**read, **_mapped(read, ("ids", "eligible"), known)})
                else:
                    old, record, vector = read
                    data = {**record.data, **_mapped(record.data, REFERENCES, known)}
                    known[old] = memory.add(replace(record, data=data), vector if same else None)
    return [tx.ids[i] for i in known.values()]


def check_jsonl(path: str | os.PathLike[str]) -> None:
    """Read an export to its end, for a memory that is only made where it can be read. Raises `InvalidValue`."""
    lines = _lines(Path(path))
    _head(lines, path)
    for number, line in lines:
        with _told(path, number):
            _read(line)


@contextmanager
def _told(path: str | os.PathLike[str], number: int) -> Iterator[None]:
    """What is wrong with a line is told with its number."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InvalidValue(f"{path}, line {number}: {error}. Nothing was imported.") from error


def _head(lines: Iterator[tuple[int, dict[str, Any]]], path: str | os.PathLike[str]) -> dict[str, Any]:
    head = next(lines, (1, dict[str, Any]()))[1]
    if head.get("format") != FORMAT:
        raise InvalidValue(f"{path} is not an exported memory: its first line has no format {FORMAT!r}.")
    version = head.get("version", 0)
    if not isinstance(version, int) or version > VERSION:
        raise InvalidValue(
            f"{path} has format version {version}; this agentkit reads versions up to {VERSION}."
            " Run: pip install --upgrade agentkit"
        )
    return head


def _read(line: dict[str, Any]) -> tuple[int, Record, np.ndarray[Any, Any] | None] | dict[str, Any]:
    """The record of a line, with its old id and vector, or its credit."""
    if "record" in line:
        return _record(line["record"])
    if "credit" not in line:
        raise ValueError("it holds neither a record nor a credit")
    credit: dict[str, Any] = line["credit"]
    unknown = credit.keys() - {"ids", "outcome", "episode", "task", "eligible"}
    if unknown or not {"ids", "outcome"} <= credit.keys():
        raise ValueError(f"a credit has ids, an outcome, episode, task and eligible; this one has {sorted(credit)}")
    float(credit["outcome"])
    return credit


def _mapped(values: Mapping[str, Any], keys: tuple[str, ...], known: Mapping[int, int]) -> dict[str, list[int]]:
    """References to records that are not in the file are dropped."""
    return {key: [known[i] for i in values[key] if i in known] for key in keys if isinstance(values.get(key), list)}


def _record(line: dict[str, Any]) -> tuple[int, Record, np.ndarray[Any, Any] | None]:
    encoded = line.pop("vector", None)
    vector = None if encoded is None else np.frombuffer(base64.b64decode(encoded, validate=True), "<f4")
    unknown = line.keys() - _FIELDS
    if unknown:
        raise ValueError(f"a record has no field {', '.join(sorted(unknown))}")
    old = int(line.pop("id", 0))
    return old, Record(**line), vector


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                value = json.loads(text.decode())
            except (ValueError, RecursionError) as error:
                raise InvalidValue(f"{path}, line {number} is not JSON: {error}. Nothing was imported.") from error
            if not isinstance(value, dict):
                raise InvalidValue(f"{path}, line {number} is not a JSON object. Nothing was imported.")
            yield number, value


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
