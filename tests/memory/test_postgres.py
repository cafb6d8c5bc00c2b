"""What is particular to a memory in PostgreSQL; the contract itself is in test_store.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agentkit.errors import InvalidValue
from agentkit.memory import HashingEmbedder, Memory, Record, Where, stored_embedder
from agentkit.memory.errors import EmbedderMismatch, NewerSchema, NotAStore, StoreError

ROOT = Path(__file__).parents[2]
EMBEDDER = HashingEmbedder(16)


def run(code: str, url: str, *arguments: str) -> subprocess.Popen[str]:
    head = "import sys; from agentkit.memory import *\nmemory = Memory(sys.argv[1], embedder=HashingEmbedder(16))\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, url, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_store_is_the_same_after_reopening_and_for_others(postgres: Callable[[], str]) -> None:
    url = postgres()
    with Memory(url, embedder=EMBEDDER) as one, Memory(url, embedder=EMBEDDER) as two:
        a = one.add(Record("step", "written by one"))
        two.edit(a, text="changed by two")
        assert one.recall("changed by two", 1)[0].record.id == a
        one.credit([a], 1.0)
        assert two.utility(a) > 0
    with Memory(url, embedder=EMBEDDER) as memory:
        assert memory.get(a).text == "changed by two"
        assert memory.verify() == []
    with Memory(postgres(), embedder=EMBEDDER) as other:
        assert len(other) == 0


def test_refusals(postgres: Callable[[], str]) -> None:
    import psycopg

    url = postgres()
    with pytest.raises(NotAStore, match="no memory"):
        stored_embedder(url)
    Memory(url, embedder=EMBEDDER).close()
    assert stored_embedder(url) == (EMBEDDER.name, 16)
    with pytest.raises(EmbedderMismatch, match="reembed=True"):
        Memory(url, embedder=HashingEmbedder(32))
    plain, schema = url.split("&schema=")
    with psycopg.connect(plain) as db:
        db.execute(f"UPDATE {schema}.meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(NewerSchema, match="99"):
        Memory(url, embedder=EMBEDDER)
    other = postgres()
    with psycopg.connect(plain) as db:
        name = other.split("&schema=")[1]
        db.execute(f"CREATE SCHEMA {name}")
        db.execute(f"CREATE TABLE {name}.log (x int)")
    with pytest.raises(NotAStore, match="something else"):
        Memory(other, embedder=EMBEDDER)
    with pytest.raises(InvalidValue, match="name of a schema"):
        Memory(plain + "&schema=a;b", embedder=EMBEDDER)
    with pytest.raises(StoreError, match="cannot be reached"):
        Memory("postgresql://nobody:secret@127.0.0.1:1/none", embedder=EMBEDDER)


def test_passwords_are_not_in_errors() -> None:
    with pytest.raises(StoreError) as caught:
        Memory("postgresql://nobody:secret@127.0.0.1:1/none", embedder=EMBEDDER)
    assert "secret" not in str(caught.value)


def test_reembedding(postgres: Callable[[], str]) -> None:
    url = postgres()
    other = HashingEmbedder(32)
    with Memory(url, embedder=EMBEDDER) as stale:
        stale.add_many([Record("step", f"text {i}") for i in range(300)])
        with Memory(url, embedder=other, reembed=True) as memory:
            assert memory.recall("text 7", 1)[0].relevance == pytest.approx(1.0, abs=1e-6)
        with pytest.raises(StoreError, match="open it again"):
            stale.add(Record("step", "with a vector of the old size"))
    assert stored_embedder(url) == (other.name, 32)


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_acknowledged(postgres: Callable[[], str]) -> None:
    url, acknowledged = postgres(), 0
    for turn in range(3):
        code = """
i = memory.count()
while True:
    memory.add_many([Record("step", f"{i + j}") for j in range(7)])
    i += 7
    print(i, flush=True)
"""
        process = run(code, url)
        assert process.stdout is not None
        for _ in range(5 + 9 * turn):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        with Memory(url, embedder=EMBEDDER) as memory:
            assert len(memory) >= acknowledged
            assert len(memory) % 7 == 0
            assert [r.text for r in memory.records()] == [str(i) for i in range(len(memory))]
            assert memory.verify() == []


@pytest.mark.slow
def test_two_processes_write_at_once_in_commit_order(postgres: Callable[[], str]) -> None:
    url = postgres()
    code = """
import threading
def write(w):
    for i in range(10):
        memory.add_many([Record("step", f"{side} {w} {i}", task=f"{sys.argv[2]} {w}") for side in ("left", "right")])
        assert all(n % 2 == 0 for n in [memory.count(as_of=memory.seq)])
threads = [threading.Thread(target=write, args=(w,)) for w in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
"""
    processes = [run(code, url, name) for name in "ab"]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    with Memory(url, embedder=EMBEDDER) as memory:
        assert memory.seq == len(memory) == 160
        for name in "ab":
            for worker in range(4):
                own = [r.text for r in memory.records(Where(task=f"{name} {worker}"))]
                assert own == [f"{side} {worker} {i}" for i in range(10) for side in ("left", "right")]


def test_above_its_size_the_index_answers_and_filters_stay_exact(
    postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres()
    monkeypatch.setattr("agentkit.memory.postgres.INDEXED", 4000)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6_000, 16)).astype(np.float32)
    with Memory(url, embedder=EMBEDDER) as memory:
        memory.add_many([Record("step", str(i), task=str(i % 60)) for i in range(len(vectors))], vectors)
        memory.remove(range(1, 1000))
        assert memory._backend._indexed  # type: ignore[attr-defined]
        same = 0
        for query in rng.standard_normal((20, 16)):
            exact = {r.record.id for r in memory.recall(query, 10, exact=True)}
            found = memory.recall(query, 10)
            same += len(exact & {r.record.id for r in found})
            assert len(found) == 10
            assert min(r.record.id for r in found) >= 1000
            near = memory.recall(query, 10, where=Where(task="7"))
            assert near == memory.recall(query, 10, where=Where(task="7"), exact=True)
            assert {r.record.task for r in near} == {"7"}
        assert same / 200 > 0.95
