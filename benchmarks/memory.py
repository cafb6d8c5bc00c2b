"""Measures the memory side by side with other stores, on the same vectors, in one run.

    python benchmarks/memory.py [--quick] [--seed N] [--peers PYTHON]

Prints one JSON object a line: ``name``, ``ratio``, ``spread`` (the lowest and highest ratio over the rounds),
``target``, ``ok`` (null where nothing is asked for), ``versions``. A figure in units of its own (records a second,
milliseconds, MiB) is given as ``value``, and its ratio is to its target. ``floor`` is the ratio that SQLite's bare
driver reaches with the same rows, in the same turns: what this disk allows. A store that is not installed is a line
with ``missing``. Exits 1 when a target is missed. ``--peers`` is the Python interpreter that has the other stores,
where that is another one. What is being done is said on standard error. Takes about 6 GB of disk and 3 GB of memory at
full size, and three to ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from memory_peers import DIM, QUICK_APPROXIMATE, TASKS, Data, Given, text, timed

import agentkit.memory.index
from agentkit.memory import Memory, Record, Where
from agentkit.memory.events import Event
from agentkit.memory.rows import ROW, row_of
from agentkit.memory.schema import MIGRATIONS, SQLITE_TYPES

_ANSWER_S = 240.0  # a store that has not answered by then is given up
_LOAD_S = 30.0  # a store that takes longer to load than that is asked with what it then holds
_SETTLED = 1000  # adds after which SQLite's write-ahead log is written over and no longer grows

failed = False


def say(what: str) -> None:
    """Progress."""
    print(f"[{time.perf_counter() - _START:6.1f} s] {what}", file=sys.stderr, flush=True)


_START = time.perf_counter()


def report(name: str, ratio: float | None, target: str = "", **more: Any) -> None:
    """A line. ``target`` is ``">= x"`` or ``"<= x"`` for the ratio, empty where nothing is asked for."""
    global failed
    ok = None
    if target and ratio is not None:
        bound = float(target[3:])
        ok = ratio >= bound if target.startswith(">=") else ratio <= bound
        failed = failed or not ok
    rounded = None if ratio is None else round(ratio, 4)
    print(json.dumps({"name": name, "ratio": rounded, "target": target or None, "ok": ok, **more}), flush=True)


class Gone(Exception):
    """A store that ended, or did not answer in time."""


class Peer:
    """A store in a process of its own."""

    def __init__(self, name: str, python: str, folder: Path, seed: int) -> None:
        self.name = name
        folder.mkdir()
        script = str(Path(__file__).with_name("memory_peers.py"))
        self.process = subprocess.Popen(
            [python, script, name, str(folder), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "ANONYMIZED_TELEMETRY": "False", "MEM0_TELEMETRY": "False"},
        )
        self.version = ""

    def start(self) -> bool:
        """Wait until it is up; False, with a line that says so, when it is not installed."""
        answer = self._answer()
        if "version" not in answer:
            report(f"{self.name}: not measured", None, missing=answer.get("missing", "it ended without a word"))
            return False
        self.version = answer["version"]
        return True

    def do(self, what: str, n: int) -> list[float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, "n": n}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if "seconds" not in answer:
            raise Gone(f"{self.name}, asked to {what} {n}: {answer.get('missing', 'it ended without a word')}")
        return list(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], _ANSWER_S)[0]:
            self.process.kill()
            return {"missing": f"no answer within {_ANSWER_S:.0f} s"}
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def records(start: int, n: int) -> list[Record]:
    return [Record("step", text(i), task=str(i % TASKS)) for i in range(start, start + n)]


def fill(memory: Memory, data: Data, n: int) -> float:
    """Add n records in durable batches; the seconds it took."""
    start, seconds = len(memory), 0.0
    for low in range(start, start + n, 10_000):
        size = min(10_000, start + n - low)
        block, vectors = records(low, size), data.batch(size)
        seconds += timed(lambda block=block, vectors=vectors: memory.add_many(block, vectors))
    return seconds


def bare_driver(folder: Path) -> Callable[[Sequence[Record], np.ndarray], float]:
    """SQLite's driver and nothing else, writing the same rows as durably: the seconds of a commit of such records."""
    db = sqlite3.connect(folder / "driver.db", isolation_level=None)
    for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=FULL"):
        db.execute(f"PRAGMA {pragma}")
    for migration in MIGRATIONS:
        migration(db.execute, SQLITE_TYPES)
    insert = f"INSERT INTO log ({', '.join(ROW)}) VALUES ({', '.join('?' * len(ROW))})"
    last = 0

    def commit(block: Sequence[Record], vectors: np.ndarray) -> float:
        nonlocal last
        events = [Event("add", record=r, vector=v, time=1.0) for r, v in zip(block, vectors, strict=True)]
        rows = [row_of(e, last + i, last + i, {}) for i, e in enumerate(events, 1)]
        last += len(rows)
        start = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.executemany(insert, rows)
        db.execute("COMMIT")
        return time.perf_counter() - start

    return commit


def rounds(times: int, *measured: Callable[[], Sequence[float]]) -> tuple[list[float], list[float]]:
    """The medians of what is measured in turn, and the range over the rounds of the first's ratio to the second's."""
    seconds: list[list[float]] = [[] for _ in measured]
    ratios = []
    for _ in range(times):
        turn = [one() for one in measured]
        ratios.append(median(turn[0]) / median(turn[1]))
        for all_, some in zip(seconds, turn, strict=True):
            all_ += some
    return [median(one) for one in seconds], [round(min(ratios), 4), round(max(ratios), 4)]


def small(folder: Path, data: Data, args: argparse.Namespace, peers: list[Peer]) -> None:
    """Adding one by one and in batches, and exact recall at 100,000 records, beside the peers."""
    n, singles, times = (3_000, 20, 2) if args.quick else (100_000, 50, 5)
    memory = Memory(folder / "small.db", embedder=Given())
    driver = bare_driver(folder)
    own, sqlite = f"agentkit {version('agentkit')}", f"sqlite {sqlite3.sqlite_version}"
    serial = iter(range(10**9))

    def add(count: int = singles) -> list[float]:
        block, vectors = records(len(memory), count), data.batch(count)
        return [timed(lambda r=r, v=v: memory.add(r, v)) for r, v in zip(block, vectors, strict=True)]

    def bare(count: int = singles) -> list[float]:
        block, vectors = records(next(serial), count), data.batch(count)
        return [driver(block[i : i + 1], vectors[i : i + 1]) for i in range(count)]

    say("single adds")
    add(_SETTLED), bare(_SETTLED)
    up = [p for p in peers if p.start()]
    targets = {"sqlalchemy": ">= 0.6667", "mem0": ">= 5", "chromadb": ">= 30"}
    for peer in list(up):
        say(f"single adds beside {peer.name}")
        try:
            peer.do("add", _SETTLED if peer.name == "sqlalchemy" else 5)
            (theirs, ours, floor), spread = rounds(times, lambda p=peer: p.do("add", singles), add, bare)
        except Gone as error:
            report(f"{peer.name}: not measured", None, missing=str(error))
            up.remove(peer)
            continue
        what = "bare SQLAlchemy insert" if peer.name == "sqlalchemy" else peer.name
        report(
            f"durable add, rate against {what}",
            theirs / ours,
            targets.get(peer.name, ""),
            spread=spread,
            value=round(ours * 1e3, 3),
            unit="ms",
            floor=round(theirs / floor, 2),
            versions=[own, peer.version, sqlite],
        )

    say("batches")
    size = min(10_000, (n - len(memory)) // 2)
    taken, least = [], []
    for low in range(len(memory), n, size):
        block, vectors = records(low, min(size, n - low)), data.batch(min(size, n - low))
        taken.append(timed(lambda block=block, vectors=vectors: memory.add_many(block, vectors)))
        least.append(driver(block, vectors))
    count = n - _SETTLED if args.quick else n
    rate, most = (round(count / sum(one)) for one in (taken, least))
    report(
        "durable batches, records a second",
        rate / 30_000,
        "" if args.quick else ">= 1",
        value=rate,
        floor=round(most / 30_000, 2),
        versions=[own, sqlite],
    )
    exact(memory, n, times, data, args, own)
    say("the same at the other stores")
    for peer in up:
        if peer.name != "sqlalchemy":
            beside(peer, memory, n, data, own, args.quick)
    memory.close()


def asking(memory: Memory, data: Data, **how: Any) -> Callable[[], list[float]]:
    """Measures recalls of 10, each time of other queries."""
    turn = iter(range(10**6))

    def measure() -> list[float]:
        queries = data.queries(40, next(turn))
        return [timed(lambda q=q: memory.recall(q, 10, **how)) for q in queries]

    return measure


def exact(memory: Memory, n: int, times: int, data: Data, args: argparse.Namespace, own: str) -> None:
    """Exact recall beside FAISS, with a filter, and as of the past."""
    import faiss

    say(f"exact recall at {n:,}")
    flat = faiss.IndexFlatIP(DIM)
    again, turn = Data(args.seed), iter(range(10**6))
    for low in range(0, n, 10_000):
        flat.add(again.batch(min(10_000, n - low)))

    def bare() -> list[float]:
        queries = data.queries(40, next(turn))
        return [timed(lambda q=q: flat.search(q[None], 10)) for q in queries]

    now = asking(memory, data, exact=True)
    narrow = asking(memory, data, exact=True, where=Where(task="7"))
    past = asking(memory, data, exact=True, as_of=memory.seq * 9 // 10)
    for name, one, other, target, versions in (
        (
            "exact recall of 10 at {}, time against FAISS flat",
            now,
            bare,
            "<= 1.3",
            [f"faiss-cpu {version('faiss-cpu')}"],
        ),
        ("filter that keeps 0.1% at {}, time against no filter", narrow, now, "<= 1", []),
        ("read as of the past at {}, time against now", past, now, "<= 1.2", []),
    ):
        one(), other()
        (a, b), spread = rounds(times, one, other)
        if args.quick:  # at a few thousand records the fixed costs of a recall outweigh the scan
            target = ""
        report(name.format(f"{n:,} records"), a / b, target, spread=spread, value=round(a * 1e3, 2), unit="ms",
               versions=[own, *versions])  # fmt: skip


def beside(peer: Peer, memory: Memory, n: int, data: Data, own: str, quick: bool) -> None:
    """Recall at another store, with as many records as it takes in within a time."""
    say(f"loading {peer.name}")
    held, spent = 0, 0.0
    try:
        while held < n and spent < (2.0 if quick else _LOAD_S):
            size = min(500 if quick else 2_500, n - held)
            spent += timed(lambda size=size: peer.do("load", size))
            held += size
        few = 2 if peer.name == "langgraph" else 10
        (theirs, ours), spread = rounds(2, lambda: peer.do("query", few), asking(memory, data, exact=True))
    except Gone as error:
        report(f"recall of 10, speed against {peer.name}", None, missing=str(error))
        return
    note = {} if held >= n else {"note": f"{peer.name} held {held:,} records, taken in within the time; not scaled"}
    name = f"recall of 10 at {n:,} records, speed against {peer.name}"
    report(name, theirs / ours, spread=spread, value=round(theirs * 1e3, 2), unit="ms", versions=[own, peer.version],
           **note)  # fmt: skip


def answers(path: Path, args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """The figures of `memory_large`, as they come."""
    script = str(Path(__file__).with_name("memory_large.py"))
    command = [sys.executable, script, str(path), str(args.seed + 1), *(["--quick"] if args.quick else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield from json.loads(line).items()
    if child.returncode:
        raise RuntimeError(f"{script} ended with {child.returncode}")


def large(folder: Path, data: Data, args: argparse.Namespace) -> None:
    """A million records: opening, approximate and exact recall, filters, the past, and the memory it takes."""
    n = 25_000 if args.quick else 1_000_000
    size, path = f"{n:,} records", folder / "large.db"
    if args.quick:
        agentkit.memory.index.APPROXIMATE = QUICK_APPROXIMATE
    with Memory(path, embedder=Given()) as memory:
        step = n // 10
        for low in range(0, n, step):
            say(f"filling a store of {n:,}: {low:,}")
            fill(memory, data, step)
    say("waiting for the disk to take it in")
    os.sync()
    say("asking it")
    found: dict[str, Any] = {}

    def p50(name: str) -> float:
        return median([s for block in found[name] for s in block])

    def compared(name: str, one: str, other: str, target: str) -> None:
        ratios = [median(a) / median(b) for a, b in zip(found[one], found[other], strict=True)]
        report(name, p50(one) / p50(other), target, spread=[round(min(ratios), 4), round(max(ratios), 4)])

    for name, value in answers(path, args):
        found[name] = value
        if name == "first":
            report(f"open {size} and answer, seconds", value, "<= 1", value=round(value, 3))
        elif name == "near":
            report(f"recall of 10 at {size}, p50 ms", p50(name) * 1e3 / 10, "<= 1", value=round(p50(name) * 1e3, 2))
        elif name == "past":
            compared(f"read as of the past at {size}, time against now", "past", "near", "" if args.quick else "<= 1.2")
        elif name == "scan":
            report(f"exact recall of 10 at {size}, p50 ms", None, value=round(p50(name) * 1e3, 2))
            compared(f"filter that keeps 0.1% at {size}, time against exact without it", "narrow", "scan", "<= 1")
        elif name == "recall":
            report(f"recall@10 at {size}, against exact", value, ">= 0.98")
        elif name == "filters":
            report(f"filter that keeps 0.1% at {size} gives the exact answer", float(value), ">= 1")
        elif name == "peak":
            report(f"memory at {size}, MiB", value / 2048, "<= 1", value=round(value))
    for part in folder.glob("large.db-*"):
        if "-wal" not in part.name and "-shm" not in part.name:
            part.unlink()
    say("building its index anew")
    start = time.perf_counter()
    Memory(path, embedder=Given()).close()
    report(f"open {size} without its index, seconds", None, value=round(time.perf_counter() - start, 2))
    os.sync()
    report(f"recall@10 at {size} with the rebuilt index", dict(answers(path, args))["recall"], ">= 0.98")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, within 45 seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has the other stores")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must be at least 0")
    if shutil.which(args.peers) is None:
        parser.error(f"--peers is {args.peers}, which is no program: give the path of a Python interpreter")
    folder = Path(tempfile.mkdtemp(prefix="agentkit-bench-"))
    names = ["sqlalchemy", "mem0", "chromadb", "lancedb", "langgraph", "pgvector"]
    peers = [
        Peer(name, sys.executable if name == "sqlalchemy" else args.peers, folder / name, args.seed) for name in names
    ]
    try:
        small(folder, Data(args.seed), args, peers)
        for peer in peers:
            peer.close()
        large(folder, Data(args.seed + 1), args)
    finally:
        for peer in peers:
            if peer.process.poll() is None:
                peer.process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
