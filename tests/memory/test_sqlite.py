"""The SQLite file: opening, refusing, migrating."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.memory import HashingEmbedder, Memory, Record, Where, stored_embedder
from agentkit.memory.errors import EmbedderMismatch, NewerSchema, NotAStore, StoreError
from agentkit.memory.schema import CURRENT, MIGRATIONS, SQLITE_TYPES
from agentkit.memory.sqlite_file import APPLICATION_ID

EMBEDDER = HashingEmbedder(64)


def test_a_store_is_the_same_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path, embedder=EMBEDDER) as memory:
        a, b = memory.add_many([Record("step", "one"), Record("step", "two")])
        memory.edit(a, text="three")
        memory.remove(b)
        memory.credit([a], 1.0)
        seq, found, worth = memory.seq, memory.recall("three", 3), memory.utility(a)
    with Memory(path, embedder=EMBEDDER) as memory:
        assert memory.seq == seq
        assert memory.recall("three", 3) == found
        assert memory.utility(a) == worth
        assert [r.text for r in memory.at(2).records()] == ["one", "two"]


def test_two_openings_of_a_file_see_each_other(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.db", embedder=EMBEDDER) as one, Memory(tmp_path / "m.db", embedder=EMBEDDER) as two:
        a = one.add(Record("step", "written by one"))
        assert two.recall("written by one", 1)[0].record.id == a
        two.edit(a, text="changed by two")
        b = two.add(Record("step", "written by two"))
        assert (b, one.get(a).text) == (3, "changed by two")
        one.edit(a, importance=1.0)
        assert two.get(a).text == "changed by two"
        assert two.get(a).importance == 1.0


def version_1(path: Path) -> None:
    """A store as the first version of the schema left it."""
    db = sqlite3.connect(path)
    MIGRATIONS[0](db.execute, SQLITE_TYPES)
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [("schema", "1"), ("store", "s1"), ("embedder", EMBEDDER.name), ("dim", str(EMBEDDER.dim))],
    )
    vectors = EMBEDDER.embed(["first", "second"])
    insert = (
        "INSERT INTO log (seq, op, id, kind, namespace, task, episode, outcome, importance, time, text, data, vector)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    db.execute(insert, (1, "add", 1, "step", "", "t", "e", 1.0, 0.5, 9.0, "first", None, vectors[0].tobytes()))
    db.execute(insert, (2, "add", 2, "step", "", "t", "e", None, 0.5, 9.0, "second", '{"a": 1}', vectors[1].tobytes()))
    db.execute(
        "INSERT INTO log (seq, op, outcome, episode, task, data) VALUES (3, 'credit', 1.0, 'e', 't', '{\"ids\": [1]}')"
    )
    db.commit()
    db.close()


def test_a_store_of_version_1_is_migrated(tmp_path: Path) -> None:
    version_1(tmp_path / "m.db")
    with Memory(tmp_path / "m.db", embedder=EMBEDDER) as memory:
        assert [r.text for r in memory.records()] == ["first", "second"]
        assert memory.recall("second", 1)[0].record.data == {"a": 1}
        assert memory.utility(1) > 0
        assert memory.add(Record("step", "third")) == 4
    db = sqlite3.connect(tmp_path / "m.db")
    assert db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == (str(CURRENT),)
    migrated = dict(db.execute("SELECT name, sql FROM sqlite_master").fetchall())
    with Memory(tmp_path / "new.db", embedder=EMBEDDER):
        pass
    assert migrated == dict(sqlite3.connect(tmp_path / "new.db").execute("SELECT name, sql FROM sqlite_master"))


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    Memory(path, embedder=EMBEDDER).close()
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match=r"version 99.*pip install --upgrade"):
        Memory(path, embedder=EMBEDDER)
    assert path.read_bytes() == before


def test_another_embedder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path, embedder=EMBEDDER) as memory:
        memory.add(Record("step", "one"))
    with pytest.raises(EmbedderMismatch, match=r"hashing.*64.*reembed=True"):
        Memory(path, embedder=HashingEmbedder(128))
    with Memory(path, embedder=EMBEDDER) as memory:
        assert len(memory) == 1


@pytest.mark.parametrize("content", [b"hello, this is a text file\n" * 100, b"SQLite format 4\x00" + bytes(4096)])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(NotAStore, match=r"notes\.txt"):
        Memory(path, embedder=EMBEDDER)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_another_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE meta (key, value)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(NotAStore, match="something else"):
        Memory(path, embedder=EMBEDDER)
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_and_left_alone(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "m.db"
    with Memory(path, embedder=EMBEDDER) as memory:
        memory.add_many([Record("step", f"record {i}") for i in range(300)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(NotAStore, match="truncated"):
        Memory(path, embedder=EMBEDDER)
    assert path.read_bytes() == data[: int(len(data) * keep)]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="not a folder"):
        Memory(tmp_path / "nowhere" / "m.db", embedder=EMBEDDER)


def test_the_package_refuses_its_bare_name_and_loads_lazily() -> None:
    root = Path(__file__).parents[2]
    bare = subprocess.run(
        [sys.executable, "-c", "import memory"], cwd=root, capture_output=True, text=True, check=False
    )
    assert bare.returncode == 1
    assert "ImportError: this package is agentkit.memory" in bare.stderr
    code = (
        "import sys, agentkit.memory as m;"
        "print([x for x in ('faiss', 'sqlalchemy', 'numpy') if x in sys.modules], m.Record)"
    )
    lazy = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert lazy.stdout.startswith("[] <class")


def test_reembedding_replaces_every_vector_on_purpose(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with pytest.raises(NotAStore, match="no memory"):
        stored_embedder(path)
    with Memory(path, embedder=EMBEDDER) as memory:
        memory.add_many([Record("step", f"text {i}", key="" if i % 2 else f"key {i}") for i in range(2000)])
        memory.edit(1, text="new", key="")
        memory.remove(2)
    assert stored_embedder(path) == (EMBEDDER.name, 64)
    other = HashingEmbedder(128)
    with Memory(path, embedder=EMBEDDER) as stale:
        with Memory(path, embedder=other, reembed=True) as memory:
            assert stored_embedder(path) == (other.name, 128)
            for text, id_ in (("key 4", 5), ("text 3", 4), ("new", 1)):
                found = memory.recall(text, 1)[0]
                assert found.record.id == id_
                assert found.relevance == pytest.approx(1.0, abs=1e-6)
            assert memory.recall("text 1", 1, as_of=2000)[0].record.id == 2
            assert memory.verify() == []
        with pytest.raises(StoreError, match="open it again"):
            stale.add(Record("step", "with a vector of the old size"))
        with pytest.raises(StoreError, match="open it again"):
            stale.recall("text")
    with Memory(path, embedder=other) as memory:
        assert len(memory) == 1999
    with pytest.raises(EmbedderMismatch):
        Memory(path, embedder=EMBEDDER)


def test_verify_does_not_mind_how_records_came(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path, embedder=EMBEDDER) as memory:
        memory.add_many([Record("step", "one", task="x"), Record("lesson", "two", task="y")])
        memory.add(Record("skill", "three", namespace="n", task="z"))
        assert memory.verify() == []
    with Memory(path, embedder=EMBEDDER) as memory:
        assert memory.verify() == []
        assert memory.count(Where(kinds="lesson", task="y")) == 1
