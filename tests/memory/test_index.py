"""The saved index: it agrees with the log whatever happens to it, and is never needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from agentkit.memory import Memory, Record, Where, index, saved, sqlite
from agentkit.memory.codes import BLOCK, Coder, Codes
from agentkit.memory.saved import SavedIndex
from agentkit.memory.sqlite import SqliteBackend

DIM = 16
N = 12_000


class Given:
    """For tests that give every vector themselves."""

    name, dim = "given", DIM

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(texts), DIM), np.float32)


def vectors(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def fill(path: Path, n: int = N) -> None:
    with Memory(path, embedder=Given()) as memory:
        memory.add_many([Record("step", str(i), task=str(i % 50)) for i in range(n)], vectors(n))
        memory.remove(range(1, n, 3))


def backend(memory: Memory) -> SqliteBackend:
    assert isinstance(memory._backend, SqliteBackend)
    return memory._backend


def answers(memory: Memory) -> list[list[tuple[int, float]]]:
    queries = vectors(4, seed=9)
    reads: list[tuple[Where | None, int | None]] = [(None, None), (Where(task="7"), None), (None, N // 2), (None, N)]
    return [
        [(r.record.id, r.score) for r in memory.recall(q, 7, where=where, as_of=seq)]
        for q in queries
        for where, seq in reads
    ]


@pytest.fixture(scope="module")
def truth() -> list[list[tuple[int, float]]]:
    with Memory(embedder=Given()) as memory:
        memory.add_many([Record("step", str(i), task=str(i % 50)) for i in range(N)], vectors(N))
        memory.remove(range(1, N, 3))
        return answers(memory)


def test_a_reopened_store_uses_its_index_and_answers_the_same(tmp_path: Path, truth: object) -> None:
    fill(tmp_path / "m.db")
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        index = backend(memory)._index
        assert index.generation
        assert answers(memory) == truth
        memory.add(Record("step", "new"), np.ones(DIM))
        assert memory.recall(np.ones(DIM), 1)[0].record.text == "new"
        assert index.unsaved == 1


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 7):
        data[at] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["index", "vectors"])
@pytest.mark.parametrize("damage", [Path.unlink, damage_cut, damage_flip])
def test_a_damaged_index_is_built_anew(
    tmp_path: Path, truth: object, what: str, damage: Callable[[Path], None]
) -> None:
    fill(tmp_path / "m.db")
    for path in tmp_path.glob(f"m.db-{what}*"):
        damage(path)
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        assert answers(memory) == truth
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        assert answers(memory) == truth
        assert memory.verify() == []
    assert len(list(tmp_path.glob("m.db-vectors-*"))) == 1


def test_the_index_of_a_log_that_was_put_back_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path, embedder=Given()) as memory:
        memory.add_many([Record("step", "old")] * 1500, vectors(1500))
    earlier = path.read_bytes()
    with Memory(path, embedder=Given()) as memory:
        memory.add_many([Record("step", "lost")] * 9000, vectors(9000, 1))
    path.write_bytes(earlier)
    with Memory(path, embedder=Given()) as memory:
        assert len(memory) == 1500
        memory.add_many([Record("step", "other")] * 9000, vectors(9000, 2))
        assert {r.record.text for r in memory.recall(vectors(1, 2)[0], 3)} <= {"other", "old"}


def test_verify_finds_and_repairs_what_opening_does_not_look_at(tmp_path: Path, truth: object) -> None:
    fill(tmp_path / "m.db")
    (path,) = tmp_path.glob("m.db-vectors-*")
    data = bytearray(path.read_bytes())
    data[5000 * DIM * 4 + 3] ^= 0x40
    path.write_bytes(data)
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        (problem,) = memory.verify(repair=False)
        assert "vector" in problem
        assert memory.verify() == [problem]
        assert memory.verify() == []
        assert answers(memory) == truth
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        assert memory.verify() == []


def test_verify_looks_at_the_codes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "APPROXIMATE", 4000)
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        memory.add_many([Record("step", "")] * 8000, vectors(8000))
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        assert memory.verify() == []
    (path,) = tmp_path.glob("m.db-codes-*")
    data = bytearray(path.read_bytes())
    third, two = len(data) // 3, 2 * len(data) // (8000 // BLOCK)  # away from what opening looks at
    data[third : third + two] = bytes(b ^ 0xFF for b in data[third : third + two])
    path.write_bytes(data)
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        (problem,) = memory.verify()
        assert "codes" in problem
        assert memory.verify() == []


def test_an_index_that_another_process_saves_meanwhile_is_taken_over_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "m.db")
    save, saves = SqliteBackend._save, 0

    def lose_the_index() -> None:
        for pattern in ("m.db-index", "m.db-vectors-*", "m.db-codes-*"):
            for path in tmp_path.glob(pattern):
                path.unlink()

    def another_saves_first(self: SqliteBackend) -> None:
        nonlocal saves
        saves += 1
        if saves == 2:  # after the first save of the process that is opening
            lose_the_index()
            with Memory(tmp_path / "m.db", embedder=Given()) as other:
                save(backend(other))
        save(self)

    lose_the_index()
    monkeypatch.setattr(SavedIndex, "due", lambda _: True)
    monkeypatch.setattr(sqlite, "_APPLIED", 2000)
    monkeypatch.setattr(SqliteBackend, "_save", another_saves_first)
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        assert saves > 2
        assert memory.count() == N - len(range(1, N, 3))
        assert memory.verify() == []


def test_codes_that_are_loaded_while_another_layout_is_saved_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"APPROXIMATE": 4000, "_CANDIDATES": 20, "_LEAST": 100}.items():
        monkeypatch.setattr(index, name, value)
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        memory.add_many([Record("step", "")] * 8000, vectors(8000))
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:

        class Slow(Codes):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                monkeypatch.setattr(saved, "Codes", Codes)  # this once
                memory.add_many([Record("step", "new")] * 8000, vectors(8000, 2))
                backend(memory)._save()

        monkeypatch.setattr(saved, "Codes", Slow)
        memory.recall(vectors(1)[0], 1)
        of_new = backend(memory)._index.take(np.arange(8000, 16_000, 400))
        assert [memory.recall(vector, 1)[0].record.text for vector in of_new] == ["new"] * len(of_new)


def test_compaction_keeps_every_read(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path, embedder=Given()) as memory, Memory(embedder=Given()) as model:
        for one in (memory, model):
            one.add_many([Record("step", str(i), task=str(i % 50)) for i in range(20_000)], vectors(20_000))
            middle = one.seq
            one.remove([i for i in range(1, 20_001) if i % 3 != 2])
            one.edit(2, text="edited")
            one.add_many([Record("step", "late")] * 18_000, vectors(18_000, 3))
        index = backend(memory)._index
        assert index._cold > 9000
        for seq in (middle, None):
            for query in vectors(5, 4):
                got = memory.recall(query, 9, as_of=seq)
                want = model.recall(query, 9, as_of=seq)
                assert [(r.record.id, r.score) for r in got] == [(r.record.id, r.score) for r in want]
        for one in (memory, model):
            one.rollback(middle)
        assert memory.count() == model.count() == 20_000
        assert memory.get(2).text == "1"
        assert memory.at(middle + 5000).count() == model.at(middle + 5000).count()


def test_two_openings_share_the_files(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    query = vectors(1, 3)[0]
    with Memory(embedder=Given()) as model:
        with Memory(path, embedder=Given()) as one, Memory(path, embedder=Given()) as two:
            for turn in range(6):
                for memory in (model, one if turn % 2 else two):
                    memory.add_many([Record("step", str(turn))] * 6000, vectors(6000, turn))
                    memory.remove(range(turn * 10_000 + 1, turn * 10_000 + 4001))
            want = [(r.record.id, r.score) for r in model.recall(query, 9)]
            for memory in (one, two):
                assert [(r.record.id, r.score) for r in memory.recall(query, 9)] == want
        with Memory(path, embedder=Given()) as memory:
            assert [(r.record.id, r.score) for r in memory.recall(query, 9)] == want
            assert memory.verify() == []


@pytest.mark.parametrize("dim", [64, 99])
def test_codes_find_the_neighbours(dim: int) -> None:
    rng = np.random.default_rng(5)
    data = rng.standard_normal((20_000, dim)).astype(np.float32)
    data[:, 0] *= 4.0
    data += 0.2
    data /= np.linalg.norm(data, axis=1)[:, None]
    coder = Coder.of(data[:5000])
    codes = Codes(coder, coder.encode(data), 3, None)
    found = 0
    for query in data[:50] + 0.05 * rng.standard_normal((50, dim)).astype(np.float32):
        best = set(np.argsort(-(data @ query))[:10].tolist())
        found += len(best & set(codes.candidates(query, 800, None).tolist()))
    assert found / 500 > 0.98


@pytest.mark.slow
def test_a_search_through_the_codes_agrees_with_the_exact_one(tmp_path: Path) -> None:
    n = 220_000
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        memory.add_many([Record("step", str(i % 1000), task=str(i % 1000)) for i in range(n)], vectors(n))
        memory.remove(range(1, 2000))
    with Memory(tmp_path / "m.db", embedder=Given()) as memory:
        assert backend(memory)._index._coded == n - n % BLOCK
        same = 0
        for query in vectors(20, 7):
            for where in (None, Where(exclude_task="5")):
                exact = memory.recall(query, 10, where=where, exact=True)
                near = memory.recall(query, 10, where=where)
                same += len({r.record.id for r in exact} & {r.record.id for r in near})
                assert all(r.record.id >= 2000 for r in near)
        assert same / 400 > 0.95
        assert memory.recall(vectors(1, 7)[0], 10, where=Where(task="5")) == memory.recall(
            vectors(1, 7)[0], 10, where=Where(task="5"), exact=True
        )
