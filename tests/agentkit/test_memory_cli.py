"""``agentkit memory`` on real stores: once through a real process, the rest through typer's runner."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agentkit.memory import HashingEmbedder, Memory, Record
from agentkit.memory.skills import SkillLibrary
from agentkit.memory_cli import app


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two lessons and a step; one lesson was used in three episodes and edited at the end."""
    path = tmp_path / "m.db"
    with Memory(path) as memory:
        lesson, _, _ = memory.add_many(
            [
                Record("lesson", "Look in the drawers before the fridge.", task="find-key", outcome=1.0, episode="e1"),
                Record("lesson", "Boil water in the kettle.", task="make-tea", outcome=0.0, namespace="kitchen"),
                Record("step", "take [bold]key[/bold] \x1b[31m\x07", task="find-key", episode="e1", step=3),
            ]
        )
        memory.credit([lesson], 1.0, episode="e2", task="find-key")
        memory.credit([lesson], 0.5, episode="e3", task="find-key")
        memory.credit([], 0.0, episode="e4", task="find-key")
        memory.edit(lesson, text="Look in drawers first.")
    return path


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner(env={"COLUMNS": "140"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def read(*arguments: object) -> Any:  # JSON
    return json.loads(run(*arguments, "--json").stdout)


def test_a_real_process_prints_a_table_and_sets_its_exit_status(store: Path) -> None:
    command = [sys.executable, "-m", "agentkit.memory_cli"]
    done = subprocess.run([*command, "stats", store], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 records at sequence number 7" in done.stdout
    gone = subprocess.run([*command, "stats", f"{store}.no"], capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "there is no memory at" in gone.stderr
    assert "Traceback" not in gone.stderr
    assert not Path(f"{store}.no").exists()


def test_stats_count_what_is_there_now_and_was_there_then(store: Path) -> None:
    found = read("stats", store)
    assert (found["records"], found["kinds"], found["seq"]) == (3, {"lesson": 2, "step": 1}, 7)
    assert found["namespaces"] == {"": 2, "kitchen": 1}
    assert found["mean_outcome"] == {"lesson": 0.5}
    assert (found["tasks"], found["credited_episodes"], found["records_used"], found["quarantined"]) == (2, 3, 1, [])
    assert (found["embedder"], found["dim"]) == (HashingEmbedder().name, 384)
    assert found["bytes"] > 0
    assert read("stats", store, "--as-of", 1)["records"] == 1
    assert read("stats", store, "--as-of", 0)["kinds"] == {}
    text = run("stats", store).stdout
    assert "kitchen" in text
    assert "3 credited episodes, which used 1 records" in text


def test_search_finds_filters_and_reads_the_past(store: Path) -> None:
    found = read("search", store, "drawers")
    assert found[0]["record"]["id"] == 1
    assert found[0]["record"]["text"] == "Look in drawers first."
    assert [r["record"]["id"] for r in read("search", store, "drawers", "--kind", "step")] == [3]
    assert [r["record"]["id"] for r in read("search", store, "drawers", "--namespace", "kitchen")] == [2]
    assert {r["record"]["id"] for r in read("search", store, "drawers", "--task", "find-key")} == {1, 3}
    assert len(read("search", store, "drawers", "-k", 1)) == 1
    (then,) = read("search", store, "drawers", "--as-of", 1)
    assert then["record"]["text"] == "Look in the drawers before the fridge."
    assert "Look in drawers first." in run("search", store, "drawers").stdout


def test_text_of_a_memory_cannot_drive_the_terminal(store: Path) -> None:
    for command in (["search", store, "take key"], ["show", store, 3], ["diff", store, 0]):
        text = run(*command).stdout
        assert "[bold]key[/bold]" in text
        assert "\x1b" not in text
        assert "\x07" not in text


def test_show_tells_provenance_uses_and_credit(store: Path) -> None:
    found = read("show", store, 1)
    assert (found["record"]["task"], found["record"]["episode"], found["record"]["seq"]) == ("find-key", "e1", 7)
    assert [(u["episode"], u["outcome"]) for u in found["uses"]] == [("e2", 1.0), ("e3", 0.5)]
    assert (found["credit"]["uses"], found["credit"]["controls"], found["credit"]["quarantined"]) == (2, 1, False)
    assert found["credit"]["utility"] > 0
    assert read("show", store, 1, "--as-of", 4)["credit"]["uses"] == 1
    text = run("show", store, 1).stdout
    for part in ("find-key", "e1", "2 episodes, against 1", "e3", "Look in drawers first."):
        assert part in text
    assert "e1, step 3" in run("show", store, 3).stdout
    assert "no record 9 at sequence number 7" in run("show", store, 9, status=1).stderr


def test_diff_and_rollback_and_back_again(store: Path) -> None:
    change = read("diff", store, 3)
    assert (change["a"], change["b"], change["added"], change["removed"]) == (3, 7, [], [])
    (edited,) = change["edited"]
    assert (edited["before"]["text"], edited["after"]["text"]) == (
        "Look in the drawers before the fridge.",
        "Look in drawers first.",
    )
    assert [c["episode"] for c in change["credited"]] == ["e2", "e3", "e4"]
    assert [r["id"] for r in read("diff", store, 2, 1)["removed"]] == [2]
    assert "1 edited" in run("diff", store, 3).stdout

    refused = CliRunner().invoke(app, ["rollback", str(store), "1"], input="n\n")
    assert refused.exit_code == 1
    assert read("stats", store)["seq"] == 7
    assert "2 removed, 1 edited" in run("rollback", store, 1, "--yes").stdout
    assert read("stats", store)["records"] == 1
    run("rollback", store, 7, "-y")
    assert read("stats", store)["records"] == 3
    assert read("show", store, 1)["credit"]["uses"] == 2
    assert "no sequence number 99" in run("rollback", store, 99, "-y", status=1).stderr


def test_export_and_import_carry_a_memory(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    assert "3 records written" in run("export", store, file, "--vectors").stdout
    other = tmp_path / "other.db"
    assert "there is no memory" in run("import", other, file, status=1).stderr
    assert "3 records added" in run("import", other, file, "--create").stdout
    assert read("show", other, 1)["uses"][0]["episode"] == "e2"
    assert "3 records added" in run("import", other, file).stdout
    assert read("stats", other)["records"] == 6
    run("export", store, file, "--as-of", 1)
    assert len(file.read_text().splitlines()) == 2
    file.write_text("not JSON\n")
    assert "error:" in run("import", other, file, status=1).stderr
    run("import", other, tmp_path / "absent", status=2)
    run("export", store, file)
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n" * 100)
    assert "no SQLite database" in run("import", notes, file, "--create", status=1).stderr
    assert notes.read_text() == "my notes\n" * 100


def test_a_store_of_another_embedder_is_looked_at_without_it_and_searched_with_it(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path, embedder=HashingEmbedder(64)) as memory:
        memory.add(Record("lesson", "a b"))
    assert read("stats", path)["embedder"] == "hashing-v1-64"
    assert len(read("search", path, "a")) == 1
    assert "hashing-v1-64" in run("search", path, "a", "--embedder", "hashing", status=1).stderr
    assert len(read("search", path, "a", "--embedder", f"{__name__}:small")) == 1
    assert "no embedder" in run("search", path, "a", "--embedder", f"{__name__}:nothing", status=1).stderr
    assert "Did you mean 'hashing'" in run("search", path, "a", "--embedder", "hashin", status=1).stderr


def small() -> HashingEmbedder:
    return HashingEmbedder(64)


def test_what_is_no_store_is_said_to_be_none_and_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes, longer than the header of any database file would be\n" * 10)
    before = notes.read_bytes()
    for path in (notes, tmp_path):
        assert "error:" in run("stats", path, status=1).stderr
    assert notes.read_bytes() == before
    empty = tmp_path / "empty"
    empty.touch()
    run("stats", empty, status=1)
    assert empty.stat().st_size == 0
    run("stats", status=2)
    run("show", notes, "one", status=2)


def test_skills_are_listed_and_exported(store: Path, tmp_path: Path) -> None:
    with Memory(store) as memory:
        library = SkillLibrary(memory)
        library.propose(
            "double", "def double(x):\n    'Twice a number.'\n    return 2 * x", tests="assert double(1) == 2"
        )
    assert read("skills", store) == []
    (skill,) = read("skills", store, "--all")
    assert (skill["name"], skill["version"], skill["status"]) == ("double", 1, "skill_proposed")
    text = run("skills", store, "--all", "--export", tmp_path / "out").stdout
    assert "Twice a number." in text
    assert "proposed" in text
    assert (tmp_path / "out" / "double" / "SKILL.md").is_file()


def test_verify_finds_a_wrong_index_and_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    count, dim = 2000, 8
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    with Memory(path, embedder=HashingEmbedder(dim)) as memory:
        memory.add_many([Record("step", str(i)) for i in range(count)], vectors)
    assert "2,000 records at sequence number 2,000" in run("verify", path).stdout
    (saved,) = tmp_path.glob("m.db-vectors-*")
    whole = saved.read_bytes()
    with saved.open("r+b") as file:
        file.seek(1234 * dim * 4)
        file.write(b"\x00\x00\x80\x7f")
    assert "wrong" in run("verify", path, "--no-repair", status=1).stdout
    assert "(repaired)" in run("verify", path).stdout
    assert "agrees" in run("verify", path).stdout
    (saved,) = tmp_path.glob("m.db-vectors-*")
    assert saved.read_bytes() == whole


def test_verify_says_when_the_log_itself_is_damaged(store: Path) -> None:
    with sqlite3.connect(store) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'log_marks'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    with store.open("r+b") as file:
        file.seek((page - 1) * size + 8)
        file.write(b"\xff" * 64)
    result = run("verify", store, status=1)
    assert "m.db" in result.output
    assert "agrees" not in result.output


def test_forget_shows_what_would_go_before_it_goes_and_can_be_undone(store: Path) -> None:
    plan = read("forget", store, 1, "--dry-run")
    assert plan == {"seq": 7, "dry_run": True, "forgotten": [2, 3]}  # the lesson that was of use stays
    assert read("forget", store, 1, "--policy", "oldest", "--dry-run")["forgotten"] == [1, 2]
    assert read("forget", store, 0, "--kind", "step", "--dry-run")["forgotten"] == [3]
    assert read("forget", store, 3, "--dry-run")["forgotten"] == []
    text = run("forget", store, 1, "--dry-run").stdout
    assert "2 of 3 go" in text
    assert "Boil water" in text
    assert read("stats", store)["seq"] == 7

    refused = CliRunner().invoke(app, ["forget", str(store), "1"], input="n\n")
    assert refused.exit_code == 1
    assert read("stats", store)["records"] == 3
    assert "agentkit memory rollback" in run("forget", store, 1, "--yes").stdout
    assert [r["record"]["id"] for r in read("search", store, "anything")] == [1]
    run("rollback", store, 7, "--yes")
    assert read("stats", store)["records"] == 3
    run("forget", store, 1, "--policy", "whim", status=2)
    run("forget", store, -1, status=2)


def test_harmful_records_are_told_and_left_out_of_a_search(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path) as memory:
        good, bad = memory.add_many([Record("lesson", "look first"), Record("lesson", "look never")])
        for i in range(30):
            memory.credit([good], 1.0, episode=f"g{i}")
            memory.credit([bad], 0.0, episode=f"b{i}")
    assert read("stats", path)["quarantined"] == [bad]
    assert "recall leaves them out: 2" in run("stats", path).stdout
    assert read("show", path, bad)["credit"]["quarantined"] is True
    assert "quarantined" in run("show", path, bad).stdout
    assert [r["record"]["id"] for r in read("search", path, "look")] == [good]
    assert {r["record"]["id"] for r in read("search", path, "look", "--quarantined")} == {good, bad}


def test_vectors_are_computed_anew_only_on_purpose(store: Path) -> None:
    assert "hashing-v1-384" in run("search", store, "drawers", "--embedder", "hashing/64", status=1).stderr
    refused = CliRunner().invoke(app, ["reembed", str(store), "hashing/64"], input="n\n")
    assert refused.exit_code == 1
    assert read("stats", store)["dim"] == 384
    assert "hashing-v1-64" in run("reembed", store, "hashing/64", "--yes").stdout
    assert read("stats", store)["embedder"] == "hashing-v1-64"
    assert read("search", store, "drawers")[0]["record"]["id"] == 1
    assert "Known" in run("reembed", store, "nothing", "--yes", status=1).stderr
    assert "no memory" in run("reembed", f"{store}.no", "hashing", "--yes", status=1).stderr


def test_an_export_never_replaces_a_memory(store: Path, tmp_path: Path) -> None:
    before = store.read_bytes()
    assert "is a database" in run("export", store, store, status=1).stderr
    assert "is a folder" in run("export", store, tmp_path, status=1).stderr
    assert "is a folder" in run("export", store, ".", status=1).stderr
    assert "there is no folder" in run("export", store, tmp_path / "no" / "m.jsonl", status=1).stderr
    assert store.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    for _ in range(2):  # an earlier export is replaced
        run("export", store, tmp_path / "m.jsonl")


HEAD = '{"format": "agentkit-memory", "version": 1}\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"SQLite format 3\x00\xff\xfe", "line 1 is not JSON"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b'{"format": "agentkit-memory", "version": "new"}\n', "format version new"),
        (HEAD + '{"record": {"kind": "step", "text": "a"}}\n{"record": 5}\n', "line 3: "),
        (HEAD + '{"record": {"kind": "step", "text": "a", "id": 1e999}}\n', "line 2: "),
        (HEAD + '{"credit": {"ids": [1]}}\n', "line 2: a credit has ids, an outcome"),
        (HEAD + '{"credit": {"ids": [1], "outcome": "good"}}\n', "line 2: "),
        (HEAD + '{"credit": 7}\n', "line 2: "),
        (HEAD + "{}\n", "line 2: it holds neither"),
    ],
)
def test_no_memory_is_made_of_what_is_no_export(text: str | bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = run("import", tmp_path / "new.db", file, "--create", status=1).stderr
    assert why in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_an_embedder_that_is_none_is_refused_before_anything_is_asked_or_made(store: Path, tmp_path: Path) -> None:
    run("export", store, file := tmp_path / "m.jsonl")
    for name, why in (("os:path", "is no embedder"), ("os:getcwd", "is no embedder"), ("nope", "unknown embedder")):
        said = run("import", tmp_path / "new.db", file, "--create", "--embedder", name, status=1).stderr
        assert why in said
        asked = run("reembed", store, name, status=1)
        assert why in asked.stderr
        assert "Replace all vectors" not in asked.output
    assert not (tmp_path / "new.db").exists()


def test_a_url_that_no_memory_can_have_is_refused_without_its_password() -> None:
    said = run("stats", "mysql://me:hunter2@host/db", status=1).stderr
    assert "postgresql:// URL" in said.replace("\n", " ")
    assert "hunter2" not in said
