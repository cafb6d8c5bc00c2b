"""What benchmarks/memory.py asks of a large store, in a process of its own, so that its memory can be told.

    python benchmarks/memory_large.py FILE SEED [--quick]

Opens the store, asks, and prints a line of JSON for each figure: ``first`` (seconds to open and answer), ``recall``
(recall@10 against exact), ``near``, ``past``, ``narrow``, ``scan`` (seconds of each query: through the codes, as of the
past, with a filter that keeps 0.1%, exact), ``filters`` (whether filtered recalls are exact), ``peak`` (MiB).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import faiss  # noqa: F401 - the libraries are loaded before the clock starts
import numpy as np
from memory_peers import QUICK_APPROXIMATE, Data, Given, timed

import agentkit.memory.index
import agentkit.memory.sqlite
from agentkit.memory import Memory, Where

ROUNDS = 4


def say(name: str, value: object) -> None:
    print(json.dumps({name: value}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("seed", type=int)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        agentkit.memory.index.APPROXIMATE = QUICK_APPROXIMATE
    data = Data(args.seed)
    start = time.perf_counter()
    memory = Memory(args.file, embedder=Given())
    memory.recall(data.queries(1, 0)[0], 10)
    say("first", time.perf_counter() - start)

    seven = Where(task="7")
    kinds: dict[str, tuple[int, dict[str, Any]]] = {
        "near": (20, {}),
        "past": (20, {"as_of": memory.seq * 9 // 10}),
        "narrow": (20, {"where": seven}),
        "scan": (5, {"exact": True}),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for turn in range(ROUNDS + 1):
        for name, (n, how) in kinds.items():
            queries = data.queries(n, 10 + turn)
            seconds[name].append([timed(lambda q=q, how=how: memory.recall(q, 10, **how)) for q in queries])
    for name, blocks in seconds.items():
        say(name, blocks[1:])  # the first of each is to warm up

    same = []
    for q in data.queries(20 if args.quick else 100, 2):
        exact = {r.record.id for r in memory.recall(q, 10, exact=True)}
        same.append(len(exact & {r.record.id for r in memory.recall(q, 10)}) / 10)
    say("recall", float(np.mean(same)))
    few = data.queries(10, 3)
    right = [memory.recall(q, 10, where=seven) == memory.recall(q, 10, where=seven, exact=True) for q in few]
    say("filters", all(right))
    say("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    memory.close()


if __name__ == "__main__":
    main()
