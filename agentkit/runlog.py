"""The run log: every episode, step, model call and judgement, in one SQL database.

A database holds the runs of one experiment, each under its own name (an arm, a lifetime). It is written as things
happen: an episode is one transaction, and so is the end of a round. `RunLog.run` opens a run, or goes on with one that
was cut off.

Tables: ``runs``, ``rounds``, ``episodes``, ``steps``, ``calls``, ``judgements`` (see `MIGRATIONS`). Any SQL client
reads them::

    sqlite3 runs/demo/run.db "select run, trial, avg(success) from episodes group by run, trial"
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, OperationalError, StatementError

from agentkit.errors import AgentkitError
from agentkit.llm.meter import Call
from agentkit.memory.write_ahead import PATIENCE_S, write_ahead
from agentkit.types import Episode, Judgement, Usage, dump, load, storable

SCHEMA_VERSION = 1
APPLICATION_ID = 0x41474B52  # "AGKR": how `file` and this module know the format

# One list of statements a version: a log of version v is brought up to date by the lists v+1, v+2, …
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        f"pragma application_id={APPLICATION_ID}",
        # ``id`` is drawn at random: names repeat from log to log, and a memory may serve many.
        """create table runs (name text primary key, id text not null unique, created text not null,
           config text not null, config_hash text not null, versions text not null)""",
        # ``learned`` is 1 when the round's experience is in memory, -1 when it was given up for want of budget.
        """create table rounds (run text not null references runs(name), round integer not null,
           memory_seq integer, learned integer not null default 0, primary key (run, round))""",
        """create table episodes (id text primary key, run text not null references runs(name), round integer not null,
           position integer not null, task text not null, trial integer not null, seed integer not null,
           success integer not null, stop_reason text not null, return real not null, steps integer not null,
           prompt_tokens integer not null, completion_tokens integer not null, cost_usd real not null,
           error text not null, memory_ids text not null, body text not null, unique (run, round, position))""",
        """create table steps (episode text not null references episodes(id), step integer not null,
           observation text not null, action text not null, thought text not null, reward real not null, score real,
           memory_ids text not null, primary key (episode, step))""",
        """create table calls (id integer primary key, run text not null references runs(name), round integer not null,
           episode text, purpose text not null, request_hash text not null, cache text not null,
           prompt_tokens integer not null, cached_tokens integer not null, completion_tokens integer not null,
           cost_usd real not null, latency_s real not null, error text not null, prompt text, answer text)""",
        "create index calls_episode on calls (episode)",
        """create table judgements (episode text primary key references episodes(id), success integer not null,
           score real not null, critique text not null, steps text not null)""",
    ),
}


class RunLogError(AgentkitError, ValueError):
    """A file that is not a run log, is of a newer schema, or holds another run under the same name."""


class RunLog:
    """A run log's database, safe to write from many threads. ``texts=False`` leaves prompts and answers out."""

    def __init__(self, path: str | Path = ":memory:", *, texts: bool = True) -> None:
        self.path = str(path)
        self.texts = texts
        self._lock = threading.RLock()
        if self.path == ":memory:":
            self._engine = sa.create_engine(
                "sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False}
            )
        else:
            # In full: connections are opened later too, when the working folder may be another.
            file = Path(self.path).absolute()
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunLogError(f"{self.path} cannot be made ({error}). Give another path.") from error
            self._engine = sa.create_engine(
                sa.URL.create("sqlite", database=str(file)), connect_args={"timeout": PATIENCE_S}
            )
        try:
            self._migrate()
        except (DatabaseError, sqlite3.Error) as error:
            self.close()
            raise RunLogError(
                f"{self.path} is not a readable run log ({getattr(error, 'orig', error)}). It was left as it is: give "
                "another path, or move the file away."
            ) from error
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> None:
        with self._engine.connect() as connection:
            current, application, tables = self._version(connection)
        if tables and application != APPLICATION_ID:
            raise RunLogError(f"{self.path} is a database, but not a run log. Give another path.")
        if current > SCHEMA_VERSION:
            raise RunLogError(
                f"{self.path} has schema version {current}; this agentkit reads up to {SCHEMA_VERSION}. "
                "Update agentkit, or give another path."
            )
        if current == SCHEMA_VERSION:
            return
        with self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            # The transaction below is begun by hand, so that it holds the DDL too.
            before, driver.isolation_level = driver.isolation_level, None
            write_ahead(driver)
            connection.exec_driver_sql("begin immediate")
            try:
                # A second process may be here too: the version is read again under the write lock.
                current, _, _ = self._version(connection)
                for number in range(current + 1, SCHEMA_VERSION + 1):
                    for statement in MIGRATIONS[number]:
                        connection.exec_driver_sql(statement)
                    connection.exec_driver_sql(f"pragma user_version={number}")
                connection.exec_driver_sql("commit")
            except BaseException:
                connection.exec_driver_sql("rollback")
                raise
            finally:
                driver.isolation_level = before

    @staticmethod
    def _version(connection: sa.Connection) -> tuple[int, int, int]:
        """Schema version, application id, and how many tables and indices there are.

        The tables are counted first: where another process has made them between two of these reads, the rest, which
        is committed with them, is seen too.
        """
        tables = connection.exec_driver_sql("select count(*) from sqlite_master").scalar_one()
        application = connection.exec_driver_sql("pragma application_id").scalar_one()
        return connection.exec_driver_sql("pragma user_version").scalar_one(), application, tables

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """One transaction, alone among this log's threads. What the disk refuses is a `RunLogError`."""
        try:
            with self._lock, self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise RunLogError(
                f"{self.path} could not be written ({error.orig}). What it held before is there: mend the cause, and "
                "start the run again with the same arguments."
            ) from error

    def run(self, name: str, config: Mapping[str, Any]) -> LoggedRun:
        """The run called ``name``: a new one, or the one that was begun with an equal ``config``.

        Raises `RunLogError` when a run of that name was begun with another ``config``.
        """
        text = json.dumps(config, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        with self._writing() as connection:
            # Insert first: between a select and an insert another process could begin the same run.
            connection.execute(
                sa.text(
                    """insert into runs (name, id, created, config, config_hash, versions)
                       values (:name, :id, :created, :config, :hash, :versions) on conflict (name) do nothing"""
                ),
                {
                    "name": name,
                    "id": secrets.token_hex(8),
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "config": text,
                    "hash": digest,
                    "versions": json.dumps(versions()),
                },
            )
            row = connection.execute(
                sa.text("select id, config, config_hash from runs where name=:n"), {"n": name}
            ).one()
        if row.config_hash != digest:
            old: dict[str, Any] = json.loads(row.config)
            new: dict[str, Any] = json.loads(text)
            raise RunLogError(
                f"{self.path} holds a run {name!r} with another {_changed(old, new)}. To go on with it, give "
                "the same arguments; to begin anew, give another name or another log."
            )
        return LoggedRun(self, name, row.id)

    def names(self) -> list[str]:
        """The names of the runs in this log, in the order they were begun."""
        with self._lock, self._engine.connect() as connection:
            return [row[0] for row in connection.exec_driver_sql("select name from runs order by rowid")]

    def query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a parameterised SQL query, each a dict. Raises `RunLogError` for one that cannot be answered."""
        try:
            with self._lock, self._engine.connect() as connection:
                return [dict(row._mapping) for row in connection.execute(sa.text(sql), parameters)]
        except StatementError as error:
            raise RunLogError(f"{self.path} could not answer {sql!r}: {error.orig or error}") from error

    def close(self) -> None:
        """Give the database's file handles back."""
        self._engine.dispose()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LoggedRun:
    """One run in a log. Everything that it writes is on disk when the method returns."""

    def __init__(self, log: RunLog, name: str, id: str) -> None:
        self.log = log
        self.name = name
        self.id = id

    def episodes(self, round_: int | None = None) -> list[Episode]:
        """The finished episodes, of one round or of all, in round and task order."""
        only = "" if round_ is None else " and round=:round"
        rows = self.log.query(
            f"select body from episodes where run=:run{only} order by round, position",  # noqa: S608 (a constant)
            run=self.name,
            **({} if round_ is None else {"round": round_}),
        )
        return [load(Episode, row["body"]) for row in rows]

    def positions(self, round_: int) -> set[int]:
        """The places in the round's order whose episodes are finished."""
        rows = self.log.query(
            "select position from episodes where run=:run and round=:round", run=self.name, round=round_
        )
        return {row["position"] for row in rows}

    def learned(self, round_: int) -> int:
        """What `begin_round` says of a round; 0 for one that was not begun."""
        rows = self.log.query("select learned from rounds where run=:run and round=:round", run=self.name, round=round_)
        return int(rows[0]["learned"]) if rows else 0

    def begin_round(self, round_: int, memory_seq: int | None) -> tuple[int | None, int]:
        """Note where memory stood when the round began: (that sequence number, whether the round is learned).

        For a round that was begun before, it is the number noted then. The second is 0 where the round is not over yet,
        1 where it is learned, -1 where that was given up.
        """
        with self.log._writing() as connection:
            key = {"run": self.name, "round": round_}
            connection.execute(
                sa.text(
                    "insert into rounds (run, round, memory_seq) values (:run, :round, :seq) on conflict do nothing"
                ),
                {**key, "seq": memory_seq},
            )
            row = connection.execute(
                sa.text("select memory_seq, learned from rounds where run=:run and round=:round"), key
            ).one()
        return row.memory_seq, row.learned

    def end_round(
        self, round_: int, judgements: Mapping[str, Judgement], calls: Sequence[Call], *, learned: bool = True
    ) -> None:
        """Note that the round is over, with the judgements by episode id and the calls that learning took.

        ``learned`` is False where its experience could not be learned.
        """
        with self.log._writing() as connection:
            for episode, judgement in judgements.items():
                connection.execute(
                    sa.text("insert or replace into judgements values (:episode, :success, :score, :critique, :steps)"),
                    {
                        "episode": episode,
                        "success": judgement.success,
                        "score": judgement.score,
                        "critique": storable(judgement.critique),
                        "steps": json.dumps([asdict(s) for s in judgement.steps]),
                    },
                )
            self._add_calls(connection, calls, round_, None)
            connection.execute(
                sa.text("update rounds set learned=:learned where run=:run and round=:round"),
                {"run": self.name, "round": round_, "learned": 1 if learned else -1},
            )

    def add_episode(self, episode: Episode, round_: int, position: int, calls: Sequence[Call]) -> None:
        """Write an episode with its steps and model calls, whole or not at all.

        One that another process at the same run has written stands: what is told here of the same place is left out.
        """
        with self.log._writing() as connection:
            written = connection.execute(
                sa.text(
                    """insert into episodes values (:id, :run, :round, :position, :task, :trial, :seed, :success,
                       :stop_reason, :return_, :steps, :prompt_tokens, :completion_tokens, :cost_usd, :error,
                       :memory_ids, :body) on conflict do nothing"""
                ),
                {
                    "id": episode.id,
                    "run": self.name,
                    "round": round_,
                    "position": position,
                    "task": episode.task.name,
                    "trial": episode.trial,
                    "seed": episode.seed,
                    "success": episode.success,
                    "stop_reason": str(episode.stop_reason),
                    "return_": episode.return_,
                    "steps": len(episode.steps),
                    "prompt_tokens": episode.usage.prompt_tokens,
                    "completion_tokens": episode.usage.completion_tokens,
                    "cost_usd": episode.usage.cost_usd,
                    "error": storable(episode.error),
                    "memory_ids": json.dumps([int(i) for i in episode.memory_ids]),
                    "body": dump(episode),
                },
            )
            if not written.rowcount:
                return
            if episode.steps:
                connection.execute(
                    sa.text(
                        "insert into steps values (:episode, :step, :obs, :action, :thought, :reward, :score, :ids)"
                    ),
                    [
                        {
                            "episode": episode.id,
                            "step": i,
                            "obs": step.observation,
                            "action": step.action.text,
                            "thought": step.action.thought,
                            "reward": step.reward,
                            "score": step.score,
                            "ids": json.dumps([int(i) for i in step.action.memory_ids]),
                        }
                        for i, step in enumerate(episode.steps)
                    ],
                )
            self._add_calls(connection, calls, round_, episode.id)

    def add_calls(self, round_: int, calls: Sequence[Call]) -> None:
        """Write model calls that belong to no finished episode: learning, or what an error cut off."""
        with self.log._writing() as connection:
            self._add_calls(connection, calls, round_, None)

    def usage(self) -> Usage:
        """What the run's model calls have cost so far."""
        row = self.log.query(
            """select coalesce(sum(prompt_tokens), 0) p, coalesce(sum(cached_tokens), 0) k, count(*) n,
               coalesce(sum(completion_tokens), 0) c, coalesce(sum(cost_usd), 0) d, coalesce(sum(latency_s), 0) s
               from calls where run=:run""",
            run=self.name,
        )[0]
        return Usage(row["p"], row["k"], row["c"], float(row["d"]), float(row["s"]), row["n"])

    def _add_calls(self, connection: sa.Connection, calls: Sequence[Call], round_: int, episode: str | None) -> None:
        if not calls:
            return
        connection.execute(
            sa.text(
                """insert into calls (run, round, episode, purpose, request_hash, cache, prompt_tokens, cached_tokens,
                   completion_tokens, cost_usd, latency_s, error, prompt, answer) values (:run, :round, :episode,
                   :purpose, :hash, :cache, :prompt_tokens, :cached_tokens, :completion_tokens, :cost_usd, :latency_s,
                   :error, :prompt, :answer)"""
            ),
            [
                {
                    "run": self.name,
                    "round": round_,
                    "episode": episode,
                    "purpose": call.purpose,
                    "hash": call.request_hash,
                    "cache": call.cache,
                    "prompt_tokens": call.usage.prompt_tokens,
                    "cached_tokens": call.usage.cached_tokens,
                    "completion_tokens": call.usage.completion_tokens,
                    "cost_usd": call.usage.cost_usd,
                    "latency_s": call.usage.latency_s,
                    "error": storable(call.error),
                    "prompt": _prompt(call) if self.log.texts else None,
                    "answer": _answer(call) if self.log.texts else None,
                }
                for call in calls
            ],
        )


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Which arguments differ, and how where it is short."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += [f"{key}'s {part}" for part in sorted({*before, *after}) if before.get(part) != after.get(part)]
        elif before != after:
            short = len(str(before)) + len(str(after)) < 60
            found.append(f"{key} ({before} there, {after} here)" if short else key)
    return " and another ".join(found)


def _prompt(call: Call) -> str:
    return storable(json.dumps([asdict(message) for message in call.request.messages], ensure_ascii=False))


def _answer(call: Call) -> str:
    if call.scores is not None:
        scored = dict(zip(call.request.choices or (), call.scores.logprobs, strict=True))
        return storable(json.dumps(scored, ensure_ascii=False))
    return storable(json.dumps([completion.text for completion in call.completions], ensure_ascii=False))


def versions() -> dict[str, str]:
    """The versions on which a run's result may depend; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "platform": platform.machine()}
    for package in ("agentkit", "numpy", "gymnasium", "sqlalchemy", "faiss-cpu", "torch", "transformers", "textworld"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
