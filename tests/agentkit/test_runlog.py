"""The run log: all of a run is in it, it says clearly what it cannot read, and then leaves it as it was."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import agentkit.runlog as runlog
from agentkit.agent import Agent
from agentkit.agents.reflexion import reflexion
from agentkit.errors import AgentkitError
from agentkit.llm import ScriptedLLM
from agentkit.memory import Memory
from agentkit.rollout import rollout
from agentkit.runlog import MIGRATIONS, SCHEMA_VERSION, RunLog, RunLogError
from agentkit.runner import Run, run
from agentkit.types import Action, Episode, Judgement, Lesson, Message, Options, Request, StepJudgement, Task, View
from tests.agentkit.corridor import Breaks, Corridor, prefers

TASKS = [Task("tests/Corridor-v0", seed=i) for i in range(4)]

# Version 1 as it was first written. Never change it: it is what the files of others look like.
VERSION_1 = """
pragma application_id=1095191378;
create table runs (name text primary key, id text not null unique, created text not null, config text not null,
  config_hash text not null, versions text not null);
create table rounds (run text not null references runs(name), round integer not null, memory_seq integer,
  learned integer not null default 0, primary key (run, round));
create table episodes (id text primary key, run text not null references runs(name), round integer not null,
  position integer not null, task text not null, trial integer not null, seed integer not null,
  success integer not null, stop_reason text not null, return real not null, steps integer not null,
  prompt_tokens integer not null, completion_tokens integer not null, cost_usd real not null,
  error text not null, memory_ids text not null, body text not null, unique (run, round, position));
create table steps (episode text not null references episodes(id), step integer not null, observation text not null,
  action text not null, thought text not null, reward real not null, score real, memory_ids text not null,
  primary key (episode, step));
create table calls (id integer primary key, run text not null references runs(name), round integer not null,
  episode text, purpose text not null, request_hash text not null, cache text not null,
  prompt_tokens integer not null, cached_tokens integer not null, completion_tokens integer not null,
  cost_usd real not null, latency_s real not null, error text not null, prompt text, answer text);
create index calls_episode on calls (episode);
create table judgements (episode text primary key references episodes(id), success integer not null,
  score real not null, critique text not null, steps text not null);
pragma user_version=1;
"""


class Reflects:
    def reflect(self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: Any) -> list[Lesson]:
        ((answer,),) = llm.generate([Request((Message("user", f"reflect on {episode.id}"),), max_tokens=5)])
        return [Lesson(answer.text, task=episode.task.name)]


def play(log: RunLog | str | Path | None, **options: Any) -> Run:
    agent = reflexion(ScriptedLLM(lambda r: "a lesson", scorer=prefers), Memory(), reflector=Reflects())
    return run(agent, TASKS, **{"trials": 2, "workers": 3, "max_steps": 5, "seed": 1, "log": log, **options})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def schema(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The columns of each table, and the indices: what a schema comes to, however it is written."""
    tables = [row[0] for row in connection.execute("select name from sqlite_master where type='table'")]
    found = {t: connection.execute(f"pragma table_xinfo({t})").fetchall() for t in sorted(tables)}
    for t in sorted(tables):
        indices = connection.execute(f"pragma index_list({t})").fetchall()
        found[f"{t} indices"] = sorted(
            (row[2], connection.execute(f"pragma index_info({row[1]})").fetchall()) for row in indices
        )
        found[f"{t} references"] = connection.execute(f"pragma foreign_key_list({t})").fetchall()
    for name in ("user_version", "application_id"):
        found[name] = connection.execute(f"pragma {name}").fetchall()
    return found


# --- what is in it


def test_every_episode_step_call_and_judgement_is_there_and_agrees(tmp_path: Path) -> None:
    played = play(tmp_path / "run.db")
    connection = sqlite3.connect(tmp_path / "run.db")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("select * from episodes order by round, position").fetchall()
    assert [row["id"] for row in rows] == [e.id for e in played.episodes]
    for row, episode in zip(rows, played.episodes, strict=True):
        assert (row["task"], row["trial"], row["seed"]) == (episode.task.name, episode.trial, episode.seed)
        assert (row["success"], row["stop_reason"]) == (episode.success, str(episode.stop_reason))
        assert (row["return"], row["steps"], row["error"]) == (episode.return_, len(episode.steps), episode.error)
        assert json.loads(row["memory_ids"]) == list(episode.memory_ids)
        steps = connection.execute("select * from steps where episode=? order by step", (episode.id,)).fetchall()
        assert [(s["step"], s["observation"], s["action"], s["reward"], s["score"]) for s in steps] == [
            (i, s.observation, s.action.text, s.reward, s.score) for i, s in enumerate(episode.steps)
        ]
        calls = connection.execute("select * from calls where episode=? order by id", (episode.id,)).fetchall()
        assert len(calls) == len(episode.steps) == episode.usage.calls
        assert {c["purpose"] for c in calls} == {"act"}
        assert sum(c["prompt_tokens"] for c in calls) == row["prompt_tokens"] == episode.usage.prompt_tokens
        for call, step in zip(calls, episode.steps, strict=True):
            assert step.observation in json.loads(call["prompt"])[0]["content"]
            assert list(json.loads(call["answer"])) == list(step.admissible or ())
            assert len(call["request_hash"]) == 64
        (judged,) = connection.execute("select * from judgements where episode=?", (episode.id,)).fetchall()
        assert judged["success"] == episode.success
        assert 0 <= judged["score"] <= 1
    learning = connection.execute("select round, purpose, prompt, answer from calls where episode is null").fetchall()
    assert [tuple(r)[:2] for r in learning] == [(r, "reflect") for r in (0, 1) for _ in TASKS]
    assert json.loads(learning[0]["prompt"]) == [{"role": "user", "content": "reflect on reflexion/0/0"}]
    assert json.loads(learning[0]["answer"]) == ["a lesson"]
    assert [tuple(r) for r in connection.execute("select round, learned from rounds order by round")] == [
        (0, 1),
        (1, 1),
    ]
    (begun,) = connection.execute("select * from runs").fetchall()
    config = json.loads(begun["config"])
    assert (config["trials"], config["seed"], config["max_steps"], config["learn"]) == (2, 1, 5, True)
    assert [t["name"] for t in config["tasks"]] == [t.name for t in TASKS]
    assert config["agent"]["llm"] == "scripted"
    assert "prompt=choose@" in config["agent"]["policy"]
    assert {"python", "numpy", "gymnasium"} <= json.loads(begun["versions"]).keys()
    total = connection.execute("select count(*), sum(prompt_tokens), sum(completion_tokens) from calls").fetchone()
    assert tuple(total) == (played.usage.calls, played.usage.prompt_tokens, played.usage.completion_tokens)
    assert connection.execute("pragma foreign_key_check").fetchall() == []
    assert connection.execute("pragma integrity_check").fetchone()[0] == "ok"
    connection.close()


def test_prompts_and_answers_can_be_left_out(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run.db", texts=False) as log:
        play(log)
        rows = log.query("select prompt, answer, prompt_tokens from calls")
    assert rows
    assert all(row["prompt"] is None and row["answer"] is None and row["prompt_tokens"] for row in rows)
    assert b"What do you do next?" not in (tmp_path / "run.db").read_bytes()
    assert b"reflect on" not in (tmp_path / "run.db").read_bytes()


def test_what_the_log_gives_back_is_what_was_played() -> None:
    with RunLog() as log:
        played = play(log)
        (name,) = log.names()
        logged = runlog.LoggedRun(log, name, "")
        assert tuple(logged.episodes()) == played.episodes
        assert tuple(logged.episodes(1)) == played.episodes[4:]
        assert logged.positions(1) == {0, 1, 2, 3}
        assert logged.positions(7) == set()


def test_judgements_keep_their_steps() -> None:
    class Judges:
        def judge(self, episode: Episode, llm: Any) -> Judgement:
            return Judgement(False, 0.25, "so \ud800 so", (StepJudgement(0, 0.5, "good"),))

    with RunLog() as log:
        run(reflexion(ScriptedLLM(scorer=prefers), critic=Judges()), TASKS[:1], max_steps=2, log=log)
        (row,) = log.query("select * from judgements")
    assert (row["success"], row["score"], row["critique"]) == (0, 0.25, "so \ufffd so")
    assert json.loads(row["steps"]) == [{"step": 0, "score": 0.5, "critique": "good"}]


def test_texts_that_no_encoding_takes_are_logged_all_the_same(tmp_path: Path) -> None:
    class Odd(Agent):
        def act(self, view: View) -> Action:
            return Action("go \ud800", thought="\x00\udfff'); drop table steps;--")

    world = Breaks(answered=lambda r: ("\ud83d", 0.0, False, False, {"feedback": "\x00\ud800"}))
    played = run(Odd(), world, max_steps=2, log=tmp_path / "run.db")
    with RunLog(tmp_path / "run.db") as log:
        rows = log.query("select observation, action, thought from steps order by step")
    assert rows[1] == {"observation": "\ufffd", "action": "go \ufffd", "thought": "\x00\ufffd'); drop table steps;--"}
    assert played.episodes[0].steps[0].feedback == "\x00\ufffd"


def test_secrets_are_not_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    secret = "sk-live-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", secret)

    @dataclasses.dataclass(frozen=True)
    class Judges:
        api_key: str = secret

        def judge(self, episode: Episode, llm: Any) -> Judgement:
            return Judgement(False, 0.0)

    run(reflexion(ScriptedLLM(scorer=prefers), critic=Judges()), TASKS, log=tmp_path / "run.db")
    assert secret.encode() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())


# --- schema


def test_version_1_is_what_it_was() -> None:
    connection, snapshot = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    for statement in MIGRATIONS[1]:
        connection.execute(statement)
    connection.execute("pragma user_version=1")
    snapshot.executescript(VERSION_1)
    assert schema(connection) == schema(snapshot)
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION + 1))


def test_a_version_1_file_is_opened_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.close()
    assert play(path).fingerprint() == play(None).fingerprint()


def test_an_older_file_is_migrated_with_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.db"
    fingerprint = play(path).fingerprint()
    monkeypatch.setattr(runlog, "SCHEMA_VERSION", 3)
    monkeypatch.setitem(MIGRATIONS, 2, ("alter table runs add column note text not null default 'none'",))
    monkeypatch.setitem(MIGRATIONS, 3, ("create table tags (run text)", "insert into tags select name from runs"))
    with RunLog(path) as log:
        assert log.query("select note, run from runs, tags") == [{"note": "none", "run": "reflexion"}]
        assert log.query("pragma user_version") == [{"user_version": 3}]
    assert play(path).fingerprint() == fingerprint
    assert play(tmp_path / "new.db").fingerprint() == fingerprint


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.db"
    play(path)
    before = schema(sqlite3.connect(path))
    monkeypatch.setattr(runlog, "SCHEMA_VERSION", 2)
    monkeypatch.setitem(MIGRATIONS, 2, ("create table tags (run text)", "create table runs (again text)"))
    with pytest.raises(RunLogError):
        RunLog(path)
    assert schema(sqlite3.connect(path)) == before


def make_newer(path: Path) -> None:
    play(path)
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode=delete")
    connection.execute("pragma user_version=9")
    connection.commit()
    connection.close()


def make_other(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("create table runs (name text); pragma user_version=1")
    connection.close()


def make_memory(path: Path) -> None:
    Memory(path).close()


def make_truncated(path: Path) -> None:
    play(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_stub(path: Path) -> None:
    play(path)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_newer, "has schema version 9; this agentkit reads up to 1"),
        (make_other, "is a database, but not a run log"),
        (make_memory, "is a database, but not a run log"),
        (make_truncated, "is not a readable run log"),
        (make_stub, "is not a readable run log"),
        (lambda path: path.write_text("name,score\na,1\n" * 400), "is not a readable run log"),
        (lambda path: path.mkdir(), "is not a readable run log"),
    ],
    ids=["newer", "another database", "a memory", "truncated", "a stub", "text", "a folder"],
)
def test_what_is_no_log_is_refused_and_left_as_it_is(make: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    make(path)
    before = digest(path) if path.is_file() else ""
    with pytest.raises(RunLogError, match=message) as caught:
        play(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AgentkitError)
    assert (digest(path) if path.is_file() else "") == before


def test_a_run_of_the_same_name_with_other_arguments_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    play(path)
    rows = RunLog(path).query("select * from runs")
    for options, named in (
        ({"trials": 3}, r"trials \(2 there, 3 here\)"),
        ({"seed": 2}, r"seed \(1 there, 2 here\)"),
        ({"max_steps": 6, "learn": False}, r"learn \(True there, False here\) and another max_steps"),
    ):
        with pytest.raises(RunLogError, match=f"another {named}"):
            play(path, **options)
    agent = reflexion(ScriptedLLM(lambda r: "a lesson", scorer=prefers), reflector=Reflects(), critic=AnyCritic())
    with pytest.raises(RunLogError, match="another agent's critic and another agent's memory"):
        run(agent, TASKS, trials=2, max_steps=5, seed=1, log=path)
    assert RunLog(path).query("select * from runs") == rows
    assert play(path, name="another").fingerprint() != play(path).fingerprint()
    assert RunLog(path).names() == ["reflexion", "another"]


class AnyCritic:
    def judge(self, episode: Episode, llm: Any) -> Judgement:
        return Judgement(episode.success, float(episode.success))


# --- many at once


def test_readers_never_wait_nor_see_half_an_episode(tmp_path: Path) -> None:
    path, stop = tmp_path / "run.db", threading.Event()
    RunLog(path).close()
    seen: list[int] = []
    wrong: list[object] = []

    def read() -> None:
        connection = sqlite3.connect(path, timeout=0)
        while not stop.is_set():
            try:
                rows = connection.execute(
                    "select e.steps, (select count(*) from steps s where s.episode=e.id),"
                    " (select count(*) from calls c where c.episode=e.id) from episodes e"
                ).fetchall()
            except sqlite3.Error as error:
                wrong.append(error)
                break
            wrong.extend(row for row in rows if len(set(row)) > 1)
            seen.append(len(rows))
        connection.close()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    play(path, trials=6)
    stop.set()
    for reader in readers:
        reader.join(30)
    assert wrong == []
    assert max(seen) > 0


def test_two_processes_make_one_log_at_once(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom agentkit.runlog import RunLog\nsys.stdin.read(1)\n"
        "for i in range(10): RunLog(f'{sys.argv[1]}/{i}.db').run(f'run', {'a': 1})"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write(b"g")
        process.stdin.flush()
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said.decode()
    for i in range(10):
        assert RunLog(tmp_path / f"{i}.db").names() == ["run"]


def test_an_episode_that_another_process_wrote_first_stands() -> None:
    class Walks:
        def act(self, view: View) -> Action:
            return Action("red")

    episode = rollout(Walks(), Corridor(), TASKS[0], max_steps=2, id="a/0/0")
    with RunLog() as log:
        logged = log.run("a", {"x": 1})
        logged.begin_round(0, None)
        logged.add_episode(episode, 0, 0, [])
        logged.add_episode(replace(episode, success=True), 0, 0, [])
        assert logged.episodes() == [episode]
        assert log.query("select count(*) n from steps") == [{"n": 2}]


def test_odd_paths_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("100%.db", "a?b=c#d.db", "deep/er/ünï côde.db"):
        play(name)
        assert Path(name).is_file()
    assert {p.name for p in tmp_path.iterdir() if not p.name.endswith(("-wal", "-shm"))} == {
        "100%.db",
        "a?b=c#d.db",
        "deep",
    }


def test_a_relative_path_is_where_it_was_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with RunLog("run.db") as log:
        monkeypatch.chdir(tmp_path / "elsewhere")
        play(log, workers=4)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_disk_that_is_full_says_so_and_the_run_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    whole = play(None, trials=4)
    memory = tmp_path / "memory.db"

    def again(log: RunLog) -> Run:
        agent = reflexion(ScriptedLLM(lambda r: "a lesson", scorer=prefers), Memory(memory), reflector=Reflects())
        return run(agent, TASKS, trials=4, max_steps=5, seed=1, log=log)

    with RunLog(path) as log:
        pages = log.query("pragma page_count")[0]["page_count"]
    import sqlalchemy as sa

    with RunLog(path) as log:
        sa.event.listen(log._engine, "connect", lambda c, _: c.execute(f"pragma max_page_count={pages + 8}"))
        log._engine.dispose()
        with pytest.raises(RunLogError, match="could not be written"):
            again(log)
    with RunLog(path) as log:
        assert again(log).fingerprint() == whole.fingerprint()


def test_a_config_compares_by_what_it_says() -> None:
    with RunLog() as log:
        log.run("a", {"options": Options({"b": 1, "a": 2}), "x": [1]})
        log.run("a", {"x": [1], "options": Options({"a": 2, "b": 1})})
        with pytest.raises(RunLogError, match="another options"):
            log.run("a", {"options": Options({"a": 2}), "x": [1]})
