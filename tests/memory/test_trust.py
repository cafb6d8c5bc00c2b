"""Real processes that are killed, that write at once, and that run out of room."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.memory import HashingEmbedder, Memory, Record, Where
from agentkit.memory.schema import CURRENT, MIGRATIONS, SQLITE_TYPES
from agentkit.memory.sqlite_file import APPLICATION_ID

ROOT = Path(__file__).parents[2]
EMBEDDER = HashingEmbedder(16)


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    head = "import sys; from agentkit.memory import *; EMBEDDER = HashingEmbedder(16); path = sys.argv[1]\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


WRITE = """
memory = Memory(path, embedder=EMBEDDER)
writer, size = sys.argv[2], int(sys.argv[3])
i = memory.count(Where(task=writer))
while True:
    ids = memory.add_many([Record("step", f"{writer} {i + j}", task=writer) for j in range(size)])
    memory.edit(ids[0], importance=1.0)
    memory.credit(ids[:1], 1.0, episode=f"{writer} {i}")
    i += size
    print(i, flush=True)
"""


def check(path: Path, writer: str, acknowledged: set[int], size: int) -> None:
    with Memory(path, embedder=EMBEDDER) as memory:
        own = [r.text for r in memory.records(Where(task=writer))]
        assert len(own) >= max(acknowledged)
        assert len(own) % size == 0  # a batch is there whole or not at all
        assert own == [f"{writer} {i}" for i in range(len(own))]
        assert {c.episode for c in memory.credits()} >= {f"{writer} {i - size}" for i in acknowledged}
        if own:
            last = memory.recall(own[-1], 1, where=Where(task=writer))[0].record
            assert last.text == own[-1]
        assert memory.verify() == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3000])
def test_whatever_was_acknowledged_survives_kill_9(tmp_path: Path, size: int) -> None:
    """Batches of 3,000 make every third commit save the index, so that kills land in saves too."""
    path, rng = tmp_path / "m.db", random.Random(size)
    acknowledged: set[int] = set()  # how many records there were when the writer said so
    for _ in range(4):
        process = run(WRITE, path, "w", size)
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 40 if size == 1 else 8)):
            line = process.stdout.readline()
            if not line:
                assert process.stderr is not None
                pytest.fail(process.stderr.read())
            acknowledged.add(int(line))
        process.send_signal(signal.SIGKILL)
        acknowledged |= {int(line) for line in process.communicate()[0].split()}
        check(path, "w", acknowledged, size)


MIGRATE = """
print("ready", flush=True)
Memory(path, embedder=EMBEDDER).close()
print("done", flush=True)
"""


@pytest.mark.slow
def test_kill_9_during_migration(tmp_path: Path) -> None:
    path, rng = tmp_path / "m.db", random.Random(3)
    for _ in range(5):
        path.unlink(missing_ok=True)
        db = sqlite3.connect(path)
        MIGRATIONS[0](db.execute, SQLITE_TYPES)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        meta = [("schema", "1"), ("store", "s"), ("embedder", EMBEDDER.name), ("dim", "16")]
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta)
        vector = EMBEDDER.embed(["text"])[0].tobytes()
        rows = [(i, i, "text", vector) for i in range(1, 20_001)]
        insert = (
            "INSERT INTO log (seq, op, id, kind, namespace, task, episode, importance, time, text, vector)"
            " VALUES (?, 'add', ?, 'step', '', '', '', 0.5, 1.0, ?, ?)"
        )
        db.executemany(insert, rows)
        db.commit()
        db.close()
        process = run(MIGRATE, path)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(rng.random() * 0.4)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        with Memory(path, embedder=EMBEDDER) as memory:
            assert len(memory) == 20_000
            assert memory.verify() == []
        db = sqlite3.connect(path)
        assert db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == (str(CURRENT),)
        db.close()


AT_ONCE = """
import threading
memory = Memory(path, embedder=EMBEDDER)
torn = []
def write(worker):
    for i in range(15):
        with memory.transaction():
            memory.add(Record("step", f"left {worker} {i}", task=worker))
            memory.add(Record("step", f"right {worker} {i}", task=worker))
        seq = memory.seq
        for task in {r.task for r in memory.records()}:
            if memory.count(Where(task=task), as_of=seq) % 2:
                torn.append((task, seq))
        if len(memory.recall(f"left {worker} {i}", 3, where=Where(task=worker))) < min(3, 2 * i + 2):
            torn.append(("unseen", worker, i))
threads = [threading.Thread(target=write, args=(f"{sys.argv[2]} {w}",)) for w in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not torn, torn
memory.close()
"""


@pytest.mark.slow
def test_two_processes_of_eight_threads_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    processes = [run(AT_ONCE, path, name) for name in ("a", "b")]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    with Memory(path, embedder=EMBEDDER) as memory:
        assert memory.seq == len(memory) == 2 * 8 * 15 * 2
        assert [r.id for r in memory.records()] == list(range(1, memory.seq + 1))
        for name in "ab":
            for worker in range(8):
                own = [r.text for r in memory.records(Where(task=f"{name} {worker}"))]
                assert own == [f"{side} {name} {worker} {i}" for i in range(15) for side in ("left", "right")]
        assert memory.verify() == []


FULL = """
import resource, signal, warnings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
memory = Memory(path, embedder=EMBEDDER)
limit = 600_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
warnings.simplefilter("ignore")
from agentkit.memory.errors import StoreFull
done = 0
try:
    while True:
        memory.add_many([Record("step", f"w {done + j} " + "x" * 200) for j in range(10)])
        done += 10
except StoreFull as error:
    assert "Make room" in str(error), error
assert len(memory) == done
assert memory.recall(f"w {done - 1}", 1)
print(done, flush=True)
"""


def test_no_room_is_an_error_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    process = run(FULL, path)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    done = int(out)
    assert done > 100
    with Memory(path, embedder=EMBEDDER) as memory:
        assert len(memory) == done
        assert memory.verify() == []
        memory.add(Record("step", "after"))
        assert memory.recall("after", 1)[0].record.text == "after"


def test_an_index_that_finds_no_room_is_a_warning(tmp_path: Path) -> None:
    code = """
import resource, signal, warnings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
memory = Memory(path, embedder=EMBEDDER)
memory.add_many([Record("step", f"text {i}") for i in range(2000)])
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    memory.close()
assert any("could not be saved" in str(w.message) for w in caught), caught
"""
    process = run(code, tmp_path / "m.db")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    with Memory(tmp_path / "m.db", embedder=EMBEDDER) as memory:
        assert len(memory) == 2000
        assert memory.verify() == []
