"""Measures the memory side by side with other stores, on the same vectors, in one run.

    python benchmarks/memory.py [--quick] [--seed N] [--peers PYTHON]

Prints one JSON object a line: ``name``, ``ratio``, ``spread`` (the lowest and highest ratio over the rounds),
``target``, ``ok`` (null where nothing is asked for), ``versions``. A figure in units of its own (records a second,
milliseconds, MiB) is given as ``value``, and its ratio is to its target. A store that is not installed is a line with
``missing``. Exits 1 when a target is missed. ``--peers`` is the Python interpreter that has the other stores, where
that is another one. Takes about 6 GB of disk and 3 GB of memory at full size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from memory_peers import DIM, TASKS, Data, text, timed

from agentkit.memory import Memory, Record, Where

failed = False


class Given:
    """Vectors are given with every record."""

    name, dim = "given-384", DIM

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        raise RuntimeError("a text was embedded")


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
            raise RuntimeError(f"{self.name} ended in the middle of {what!r}")
        return list(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
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


def rounds(
    times: int, one: Callable[[], Sequence[float]], other: Callable[[], Sequence[float]]
) -> tuple[float, list[float]]:
    """The ratio of the medians of two measurements taken in turn, and its range over the rounds."""
    ratios, first, second = [], [], []
    for _ in range(times):
        a, b = one(), other()
        first += a
        second += b
        ratios.append(median(a) / median(b))
    return median(first) / median(second), [round(min(ratios), 4), round(max(ratios), 4)]


def small(folder: Path, data: Data, args: argparse.Namespace, peers: list[Peer]) -> None:
    """Adding one by one and in batches, and exact recall at 100,000 records, beside the peers."""
    n, singles = (3_000, 20) if args.quick else (100_000, 50)
    times = 2 if args.quick else 5
    memory = Memory(folder / "small.db", embedder=Given())
    own = f"agentkit {version('agentkit')}" if _installed() else "agentkit (checkout)"

    def add() -> list[float]:
        block, vectors = records(len(memory), singles), data.batch(singles)
        return [timed(lambda r=r, v=v: memory.add(r, v)) for r, v in zip(block, vectors, strict=True)]

    add()
    up = [p for p in peers if p.start()]
    targets = {"sqlalchemy": ">= 0.6667", "mem0": ">= 5", "chromadb": ">= 30"}
    for peer in up:
        peer.do("add", 3)
        ratio, spread = rounds(times, lambda p=peer: p.do("add", singles), add)
        target = targets.get(peer.name, "")
        what = "bare SQLAlchemy insert" if peer.name == "sqlalchemy" else peer.name
        report(f"durable add, rate against {what}", ratio, target, spread=spread, versions=[own, peer.version])

    seconds = fill(memory, data, n - len(memory))
    rate = (n - singles) / seconds
    report("durable batches, records a second", rate / 30_000, ">= 1" if not args.quick else "", value=round(rate))

    import faiss

    flat = faiss.IndexFlatIP(DIM)
    again = Data(args.seed)
    for low in range(0, n, 10_000):
        flat.add(again.batch(min(10_000, n - low)))
    asked = iter(range(10**6))

    def query(**how: Any) -> list[float]:
        queries = data.queries(40, next(asked))
        return [timed(lambda q=q: memory.recall(q, 10, **how)) for q in queries]

    def bare() -> list[float]:
        queries = data.queries(20, next(asked))
        return [timed(lambda q=q: flat.search(q[None], 10)) for q in queries]

    query(), bare()
    size = f"{n:,} records"
    ratio, spread = rounds(times, lambda: query(exact=True), bare)
    ask = not args.quick  # at a few thousand records the fixed costs of a recall outweigh the scan
    versions = [own, f"faiss-cpu {version('faiss-cpu')}"]
    report(
        f"exact recall of 10 at {size}, time against FAISS flat",
        ratio,
        "<= 1.3" if ask else "",
        spread=spread,
        versions=versions,
    )
    ratio, spread = rounds(times, lambda: query(exact=True, where=Where(task="7")), lambda: query(exact=True))
    report(f"filter that keeps 0.1% at {size}, time against no filter", ratio, "<= 1", spread=spread)
    middle = memory.seq * 9 // 10
    ratio, spread = rounds(times, lambda: query(exact=True, as_of=middle), lambda: query(exact=True))
    report(f"read as of the past at {size}, time against now", ratio, "<= 1.2", spread=spread)
    load = n
    for peer in up:
        if peer.name == "sqlalchemy":
            continue
        if peer.name == "langgraph" and not args.quick:
            load = min(n, 20_000)  # it scans in Python
        for low in range(0, load, 10_000):
            peer.do("load", min(10_000, load - low))
        few = 2 if peer.name == "langgraph" else 10
        ratio, spread = rounds(2, lambda p=peer, few=few: p.do("query", few), lambda: query(exact=True))
        note = {} if load == n else {"note": f"{peer.name} held {load:,} records; not scaled"}
        report(
            f"recall of 10 at {size}, speed against {peer.name}",
            ratio,
            spread=spread,
            versions=[own, peer.version],
            **note,
        )
    memory.close()


def _installed() -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version("agentkit")
    except PackageNotFoundError:
        return False
    return True


CHILD = """
import json, resource, sys, time
import numpy as np
sys.path[:0] = [sys.argv[4]]
from memory import Given
from memory_peers import Data
from agentkit.memory import Memory, Where
import faiss, agentkit.memory.store, agentkit.memory.sqlite
if sys.argv[3] == "quick":
    import agentkit.memory.index
    agentkit.memory.index.APPROXIMATE = 20_000
data = Data(int(sys.argv[2]))
start = time.perf_counter()
memory = Memory(sys.argv[1], embedder=Given())
memory.recall(data.queries(1, 0)[0], 10)
first = time.perf_counter() - start
def p50(**how):
    seconds = []
    for q in data.queries(40, how.pop("at", 1)):
        begin = time.perf_counter()
        memory.recall(q, 10, **how)
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))
p50()
near, past, narrow = p50(), p50(as_of=memory.seq * 9 // 10), p50(where=Where(task="7"))
same = []
for q in data.queries(20 if sys.argv[3] == "quick" else 100, 2):
    exact = {r.record.id for r in memory.recall(q, 10, exact=True)}
    same.append(len(exact & {r.record.id for r in memory.recall(q, 10)}) / 10)
seven = Where(task="7")
task = [memory.recall(q, 10, where=seven) == memory.recall(q, 10, where=seven, exact=True) for q in data.queries(10, 3)]
scan = p50(exact=True)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found = dict(first=first, near=near, past=past, narrow=narrow, recall=float(np.mean(same)))
print(json.dumps(found | dict(scan=scan, peak=peak, filters=all(task))))
"""


def large(folder: Path, data: Data, args: argparse.Namespace) -> None:
    """A million records: opening, approximate and exact recall, filters, the past, and the memory it takes."""
    n = 25_000 if args.quick else 1_000_000
    path = folder / "large.db"
    if args.quick:
        import agentkit.memory.index

        agentkit.memory.index.APPROXIMATE = 20_000
    with Memory(path, embedder=Given()) as memory:
        fill(memory, data, n)
    here = str(Path(__file__).parent)
    mode = "quick" if args.quick else "full"

    def child() -> dict[str, Any]:
        command = [sys.executable, "-c", CHILD, str(path), str(args.seed), mode, here]
        return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    got = child()
    size = f"{n:,} records"
    report(f"recall@10 at {size}, against exact", got["recall"], ">= 0.98")
    report(f"recall of 10 at {size}, p50 ms", got["near"] * 1e3 / 10, "<= 1", value=round(got["near"] * 1e3, 2))
    report(f"exact recall of 10 at {size}, p50 ms", None, value=round(got["scan"] * 1e3, 2))
    report(f"memory at {size}, MiB", got["peak"] / 2048, "<= 1", value=round(got["peak"]))
    report(f"filter that keeps 0.1% at {size} gives the exact answer", float(got["filters"]), ">= 1")
    report(f"filter that keeps 0.1% at {size}, time against exact without it", got["narrow"] / got["scan"], "<= 1")
    report(f"read as of the past at {size}, time against now", got["past"] / got["near"], "<= 1.2")
    report(f"open {size} and answer, seconds", got["first"], "<= 1", value=round(got["first"], 3))
    for part in folder.glob("large.db-*"):
        if "-wal" not in part.name and "-shm" not in part.name:
            part.unlink()
    start = time.perf_counter()
    Memory(path, embedder=Given()).close()
    report(f"open {size} without its index, seconds", None, value=round(time.perf_counter() - start, 2))
    report(f"the rebuilt index at {size} gives the same recall", float(child()["recall"] >= 0.98), ">= 1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, within 45 seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has the other stores")
    args = parser.parse_args()
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
