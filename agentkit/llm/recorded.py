"""Record a model's answers, and replay them: identical, free, and without the model.

One SQL table, keyed by the hash of all that can change an answer. A SQLite file by default, which can be copied and
shared; any SQLAlchemy URL does. Several threads and processes may write at once: the first answer to a request stands.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from agentkit.address import database
from agentkit.errors import InvalidValue
from agentkit.llm.base import LLM, ScoringLLM
from agentkit.llm.errors import ReplayMiss
from agentkit.llm.hashing import canonical, identity, request_hash
from agentkit.llm.meter import note_cache
from agentkit.types import Completion, Message, Request, Scores, dump, load, storable

_VERSION = 2  # 2: what a budget must know of a model, so that a replay reserves what the recording did
_metadata = sa.MetaData()
_about = sa.Table("recording", _metadata, sa.Column("version", sa.Integer, primary_key=True))
_models = sa.Table(
    "models",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("scores", sa.Boolean, nullable=False),
)
_answers = sa.Table(
    "answers",
    _metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
)
_facts = sa.Table(
    "facts",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("reads_prompt_per_sample", sa.Boolean, nullable=False),
    sa.Column("per_prompt", sa.Float),
    sa.Column("per_answer", sa.Float),
)
_prompts = sa.Table(
    "prompts",
    _metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("tokens", sa.Integer, nullable=False),
)
Mode = Literal["record", "replay", "auto"]


_ASKED = ("count_tokens", "prices", "reads_prompt_per_sample")


class Recorded:
    """``llm`` with its answers kept at ``path``, a file or a database URL.

    ``mode`` is ``"record"``: every request is answered by the model, once for each request, and replaces what was
    stored; ``"replay"``: only stored answers, and `ReplayMiss` for a request that has none; ``"auto"``: stored answers
    where there are any, else the model's, which are stored. For ``"replay"``, ``llm`` can be a name alone
    (``"local/smollm2-135m"``): nothing is loaded then. A replayed completion equals the recorded one to the last bit,
    usage and latency included.

    A request without a seed is asked once: the same request again has the same answer, as it will have in the replay.
    """

    def __new__(cls, llm: LLM | str, path: str | Path, mode: Mode = "auto") -> Recorded:
        """A recording of a model that can score can score as well."""
        store = _Store(path, must_exist=mode == "replay")
        scores = store.model(llm)[1] if isinstance(llm, str) else isinstance(llm, ScoringLLM)
        self = object.__new__(_RecordedScoring if scores else Recorded)
        self._store = store
        return self

    def __init__(self, llm: LLM | str, path: str | Path, mode: Mode = "auto") -> None:
        if mode not in ("record", "replay", "auto"):
            raise InvalidValue(f"mode is {mode!r}; it can be 'record', 'replay' or 'auto'")
        if isinstance(llm, str) and mode != "replay":
            raise InvalidValue(f"to {mode} needs a model, and {llm!r} is only a name")
        self.path, self.mode = database(str(path)), mode
        self.inner = None if isinstance(llm, str) else llm
        self._store: _Store
        self._renewed: set[str] = set()
        self._lock = threading.Lock()
        if isinstance(llm, str):
            self.name, self.identity = llm, self._store.model(llm)[0]
            self._facts = self._store.facts(llm)
        else:
            self.name, self.identity = llm.name, identity(llm)
            if mode != "replay":
                self._store.put_model(llm.name, self.identity, isinstance(llm, ScoringLLM), _facts_of(llm))

    def identity_of(self, request: Request) -> str:
        """What names the weights that answer ``request``."""
        return self.identity if self.inner is None else identity(self.inner, request)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Stored completions, or the model's."""
        texts = self._answer("generate", requests)
        return [[load(Completion, json.dumps(c)) for c in json.loads(text)] for text in texts]

    def close(self) -> None:
        """Close the store; the model stays open."""
        self._store.close()

    def __getattr__(self, name: str) -> Any:
        # What a model says of itself beside the protocol, and what budgets ask for.
        if name in _ASKED and "inner" in self.__dict__:
            if self.inner is not None:
                return getattr(self.inner, name)
            facts = self._facts
            if name == "count_tokens" and facts.get("counts"):
                return self._count
            if name == "prices" and facts.get("per_prompt") is not None:
                return lambda: (facts["per_prompt"], facts["per_answer"])
            if name == "reads_prompt_per_sample" and facts:
                return facts[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _count(self, messages: Sequence[Message]) -> int:
        """The tokens of a recorded prompt. One that was not recorded will be missed; it counts its bytes until then."""
        key = self._prompt_key(messages)
        return self._store.prompt(key) or sum(len(storable(message.content).encode()) for message in messages)

    def _prompt_key(self, messages: Sequence[Message]) -> str:
        return request_hash(self.identity, Request(tuple(messages)), "prompt")

    def _answer(self, kind: str, requests: Sequence[Request]) -> list[str]:
        models = [self.identity_of(request) for request in requests]
        keys = [request_hash(model, request, kind) for model, request in zip(models, requests, strict=True)]
        with self._lock:
            usable = [key for key in keys if self.mode != "record" or key in self._renewed]
        found = self._store.get(usable)
        for key in found:
            note_cache(key, "replay")
        missing = {
            key: (model, request)
            for key, model, request in zip(keys, models, requests, strict=True)
            if key not in found
        }
        if missing and self.mode == "replay":
            key, (model, request) = next(iter(missing.items()))
            raise ReplayMiss(self._explain(kind, model, request, key))
        if missing:
            found |= self._ask(kind, missing)
        return [found[key] for key in keys]

    def _ask(self, kind: str, missing: dict[str, tuple[str, Request]]) -> dict[str, str]:
        assert self.inner is not None
        asked = [request for _, request in missing.values()]
        if kind == "generate":
            texts = ["[" + ",".join(dump(c) for c in answer) + "]" for answer in self.inner.generate(asked)]
        else:
            assert isinstance(self.inner, ScoringLLM)
            texts = [dump(scores) for scores in self.inner.score(asked)]
        rows = [
            {"hash": key, "kind": kind, "request": canonical(model, request, kind), "answer": text}
            for (key, (model, request)), text in zip(missing.items(), texts, strict=True)
        ]
        with self._lock:
            # Another thread may have asked the same meanwhile: its answer stands, here as in the store.
            fresh = [row for row in rows if self.mode == "record" and row["hash"] not in self._renewed]
            self._renewed.update(missing)
            self._store.put(rows, self._counted(asked), replace=[row["hash"] for row in fresh])
        return self._store.get(list(missing))

    def _counted(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        count = getattr(self.inner, "count_tokens", None)
        if count is None:
            return []
        prompts = {request.messages for request in requests}
        return [{"hash": self._prompt_key(messages), "tokens": count(messages)} for messages in prompts]

    def _explain(self, kind: str, model: str, request: Request, key: str) -> str:
        asked = json.loads(canonical(model, request, kind))
        nearest = min(self._store.requests(kind), key=lambda stored: _distance(asked, stored), default=None)
        start = f"{self.path} holds no answer to this request ({kind}, hash {key[:12]})."
        if nearest is None:
            return f"{start} It holds no {kind} requests at all."
        return f"{start} The nearest stored one differs in " + "; ".join(_differences(asked, nearest)) + "."


class _RecordedScoring(Recorded):
    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Stored scores, or the model's."""
        return [load(Scores, text) for text in self._answer("score", requests)]


class _Store:
    def __init__(self, path: str | Path, must_exist: bool) -> None:
        url = str(path)
        self.path = database(url)
        if "://" not in url:
            if must_exist and not Path(url).is_file():
                raise ReplayMiss(f"there is no recording at {url}")
            if Path(url).is_dir():
                raise InvalidValue(f"{url} is a folder. Give the path of a recording, or of one that is to be made.")
            try:
                Path(url).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidValue(f"{url} cannot be made ({error}). Give another path.") from error
            url = f"sqlite:///{url}"
        connect = {"timeout": 60} if url.startswith("sqlite") else {}
        self._engine = sa.create_engine(url, connect_args=connect)
        try:
            if not must_exist:
                self._create()
            with self._engine.connect() as connection:
                version = connection.execute(sa.select(sa.func.max(_about.c.version))).scalar() or 0
        except sa.exc.DatabaseError as error:
            raise InvalidValue(f"{self.path} is not a recording: {error.orig}") from error
        if not 1 <= version <= _VERSION:
            raise InvalidValue(f"{self.path} is a recording of version {version}; this agentkit reads up to {_VERSION}")
        self.version: int = version

    def _create(self) -> None:
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # The write lock first: of two processes that find the file empty, one waits for the other.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                tables = set(sa.inspect(connection).get_table_names())
                if tables and _about.name not in tables:
                    raise InvalidValue(
                        f"{self.path} is a database of something else (tables: {', '.join(sorted(tables)[:5])}). "
                        "Nothing was written; give another path."
                    )
            _metadata.create_all(connection)
            self._insert(connection, _about, [{"version": _VERSION}])

    def close(self) -> None:
        self._engine.dispose()

    def model(self, name: str) -> tuple[str, bool]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_models)).all()
        for row in rows:
            if row.name == name:
                return str(row.identity), bool(row.scores)
        raise ReplayMiss(
            f"{self.path} is no recording of {name!r}, but of {', '.join(r.name for r in rows) or 'nothing'}"
        )

    def facts(self, name: str) -> dict[str, Any]:
        if self.version < 2:
            return {}
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_facts).where(_facts.c.name == name)).one_or_none()
        return {} if row is None else dict(row._mapping)

    def prompt(self, key: str) -> int | None:
        with self._engine.connect() as connection:
            tokens: int | None = connection.execute(sa.select(_prompts.c.tokens).where(_prompts.c.hash == key)).scalar()
        return tokens

    def put_model(self, name: str, identity: str, scores: bool, facts: dict[str, Any]) -> None:
        with self._engine.begin() as connection:
            for table in (_models, _facts):
                connection.execute(sa.delete(table).where(table.c.name == name))
            self._insert(connection, _models, [{"name": name, "identity": identity, "scores": scores}])
            self._insert(connection, _facts, [{"name": name, **facts}])

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        with self._engine.connect() as connection:
            for start in range(0, len(keys), 500):
                query = sa.select(_answers.c.hash, _answers.c.answer).where(
                    _answers.c.hash.in_(keys[start : start + 500])
                )
                found |= {row.hash: row.answer for row in connection.execute(query)}
        return found

    def put(self, rows: Sequence[dict[str, str]], prompts: Sequence[dict[str, Any]], replace: Sequence[str]) -> None:
        with self._engine.begin() as connection:
            if replace:
                connection.execute(sa.delete(_answers).where(_answers.c.hash.in_(replace)))
            self._insert(connection, _answers, rows)
            if prompts:
                self._insert(connection, _prompts, prompts)

    def requests(self, kind: str) -> Iterator[Any]:
        with self._engine.connect() as connection:
            for row in connection.execute(sa.select(_answers.c.request).where(_answers.c.kind == kind)):
                yield json.loads(row.request)

    @staticmethod
    def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert what is not there yet."""
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as postgresql

            connection.execute(postgresql(table).on_conflict_do_nothing(), list(rows))
        else:
            connection.execute(sa.insert(table).prefix_with("OR IGNORE", dialect="sqlite"), list(rows))


def _facts_of(llm: LLM) -> dict[str, Any]:
    """What a budget asks of a model."""
    try:
        prices: tuple[float | None, float | None] = getattr(llm, "prices", lambda: (None, None))()
    except InvalidValue:  # nobody knows them
        prices = None, None
    return {
        "counts": hasattr(llm, "count_tokens"),
        "reads_prompt_per_sample": bool(getattr(llm, "reads_prompt_per_sample", False)),
        "per_prompt": prices[0],
        "per_answer": prices[1],
    }


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a JSON value by their paths, ``messages[0].content`` for one."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and value:
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{path}[{i}]").items()}
    return {path: value}


def _distance(asked: Any, stored: Any) -> tuple[int, int]:
    """How many fields differ, and how much of their texts."""
    a, b = _flat(asked), _flat(stored)
    unlike = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
    rest = 0
    for key in unlike:
        x, y = str(a.get(key)), str(b.get(key))
        rest += max(len(x), len(y)) - _common(x, y) - _common(x[::-1], y[::-1])
    return len(unlike), rest


def _common(x: str, y: str) -> int:
    return next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))


def _differences(asked: Any, stored: Any) -> list[str]:
    a, b = _flat(asked), _flat(stored)
    parts = []
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) == b.get(key):
            continue
        name = key.removeprefix("request.")
        x, y = a.get(key), b.get(key)
        if isinstance(x, str) and isinstance(y, str) and max(len(x), len(y)) > 60:
            at = _common(x, y)
            parts.append(f"{name} (from character {at}: stored {y[at : at + 40]!r}, asked {x[at : at + 40]!r})")
        else:
            parts.append(f"{name} (stored {y!r}, asked {x!r})")
    return parts
