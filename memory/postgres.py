"""The log in PostgreSQL with pgvector: several machines share one memory.

Beside the log there is a table of spans (see `agentkit.memory.spans`), kept by the same transaction; it holds the
vectors. Searches scan it exactly; above `INDEXED` records an HNSW index answers those that no filter narrows. Writers
take turns by a lock on the log, so that numbers are given in commit order; readers never wait.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString, cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url

from agentkit.address import database
from agentkit.errors import InvalidValue, MissingExtra
from agentkit.memory import knn
from agentkit.memory.backend import Hits, Mark, Vector
from agentkit.memory.errors import EmbeddedAnew, EmbedderMismatch, NewerSchema, NotAStore, StoreError, UnknownRecord
from agentkit.memory.events import FOREVER, Conflict, Event, lineage, seen
from agentkit.memory.records import Record, Where
from agentkit.memory.rows import CONTENT, LAST, MARKS, ROW, marks_of, record_of, row_of
from agentkit.memory.schema import CURRENT, MIGRATIONS, POSTGRES_SPANS, POSTGRES_TYPES

try:
    import psycopg

    from agentkit.memory import pgvector
except ImportError as error:
    raise MissingExtra.of("psycopg", "postgres") from error

if TYPE_CHECKING:
    Connection = psycopg.Connection[tuple[Any, ...]]

INDEXED = 50_000  # records above which an index is made
_MOST_INDEXED = 2000  # the largest vector that pgvector's HNSW takes
_SPARE = 16  # as in `agentkit.memory.knn`: near ties are settled in float64
_MARKS = MARKS.replace("?", "%s")
_SPAN = "version, id, born, died, kind, namespace, task, episode, outcome, importance, time, vector"
_COPIED = 200  # rows above which COPY is used


class PostgresBackend:
    """See `agentkit.memory.backend.Backend`. ``url`` may name the schema that holds the store, ``?schema=name``; it is
    ``agentkit`` otherwise, and is made when absent."""

    def __init__(
        self, url: str, *, embedder: str, dim: int, reembed: Callable[[list[str]], Vector] | None = None
    ) -> None:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        schema = parsed.query.get("schema", "agentkit")
        if not isinstance(schema, str) or not schema.isidentifier():
            raise InvalidValue(f"{schema!r} is not the name of a schema. Use letters, digits and underscores.")
        self._schema = schema
        self.dim = dim
        self.where = database(parsed.difference_update_query(["schema"]).render_as_string(hide_password=False))
        self._engine = create_engine(parsed.difference_update_query(["schema"]))
        event.listen(self._engine, "connect", self._configure)
        self._indexed = False
        try:
            with pgvector.translated(self.where):
                self._store = self._prepare(embedder, dim, reembed)
                self._index()
        except BaseException:
            self._engine.dispose()
            raise

    def _configure(self, connection: Any, _record: object) -> None:
        raw = cast("Connection", getattr(connection, "driver_connection", connection))
        try:
            # "If not exists" alone can fail when two make the same thing at once.
            raw.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._schema,))
            raw.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise StoreError(
                f"{self.where} has no pgvector: {error}. Install the extension `vector` in this database."
            ) from error
        raw.execute(self._sql("CREATE SCHEMA IF NOT EXISTS {schema}"))
        raw.execute(self._sql("SET search_path TO {schema}, public"))
        row = raw.execute("SELECT to_regtype('vector')::oid").fetchone()
        assert row is not None
        self._vector_oid = int(row[0])
        dumper = type("VectorDumper", (pgvector.Dumper,), {"oid": self._vector_oid})
        raw.adapters.register_dumper(pgvector.Packed, dumper)
        raw.commit()

    def _sql(self, text: LiteralString) -> psycopg.sql.Composed:
        return psycopg.sql.SQL(text).format(
            schema=psycopg.sql.Identifier(self._schema), dim=psycopg.sql.Literal(self.dim)
        )

    # --- opening

    def _prepare(self, embedder: str, dim: int, reembed: Callable[[list[str]], Vector] | None) -> str:
        with self._writing(check=False) as db:
            db.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._schema,))
            tables = {
                row[0] for row in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (self._schema,))
            }
            version = 0
            if "meta" in tables and "log" in tables:
                row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
                version = int(row[0]) if row else 0
            elif tables & {"meta", "log", "spans"}:
                raise NotAStore(
                    f"the schema {self._schema!r} of {self.where} holds something else. Nothing was written; name"
                    " another with ?schema=NAME in the URL."
                )
            if version > CURRENT:
                raise NewerSchema.of(self.where, version, CURRENT)

            def execute(sql: str) -> object:
                return db.execute(sql)

            for number in range(version + 1, CURRENT + 1):
                MIGRATIONS[number - 1](execute, POSTGRES_TYPES)
            if version == 0:
                for statement in POSTGRES_SPANS:
                    execute(statement.format(dim=int(dim)))
                for pair in (("embedder", embedder), ("dim", str(dim)), ("store", secrets.token_hex(8))):
                    db.execute("INSERT INTO meta VALUES (%s, %s)", pair)
            db.execute(
                "INSERT INTO meta VALUES ('schema', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (str(CURRENT),),
            )
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
            if reembed is not None and (meta["embedder"], meta["dim"]) != (embedder, str(dim)):
                meta |= self._reembed(db, embedder, dim, reembed)
            if (meta["embedder"], meta["dim"]) != (embedder, str(dim)):
                raise EmbedderMismatch.of(self.where, (meta["embedder"], int(meta["dim"])), (embedder, dim))
            return str(meta["store"])

    def _reembed(self, db: Connection, embedder: str, dim: int, embed: Callable[[list[str]], Vector]) -> dict[str, str]:
        db.execute("DROP INDEX IF EXISTS spans_hnsw")
        db.execute("ALTER TABLE spans DROP COLUMN vector")
        db.execute(self._sql("ALTER TABLE spans ADD COLUMN vector vector({dim})"))
        last = 0
        while rows := db.execute(
            "SELECT seq, coalesce(key, text) FROM log WHERE seq > %s AND op IN ('add', 'edit') ORDER BY seq LIMIT 1024",
            (last,),
        ).fetchall():
            block = embed([row[1] for row in rows])
            updates = [(pgvector.Packed.of(v), row[0]) for v, row in zip(block, rows, strict=True)]
            with db.cursor() as cursor:
                cursor.executemany("UPDATE spans SET vector = %s WHERE version = %s", updates)
            last = rows[-1][0]
        fresh = {"embedder": embedder, "dim": str(dim), "store": secrets.token_hex(8)}
        for key, value in fresh.items():
            db.execute("UPDATE meta SET value = %s WHERE key = %s", (value, key))
        return fresh

    def _index(self) -> None:
        """Make the HNSW index when there are many records and none was made."""
        if self._indexed or self.dim > _MOST_INDEXED:
            return
        with self._writing(check=False) as db:
            row = db.execute("SELECT count(*) FROM (SELECT 1 FROM spans LIMIT %s) AS few", (INDEXED + 1,)).fetchone()
            if row is not None and row[0] > INDEXED:
                db.execute("SET LOCAL maintenance_work_mem = '512MB'")
                db.execute("CREATE INDEX IF NOT EXISTS spans_hnsw ON spans USING hnsw (vector vector_ip_ops)")
                db.execute("ANALYZE spans")
                self._indexed = True

    # --- connections

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with pgvector.translated(self.where), self._engine.connect() as connection:
            yield cast("Connection", connection.connection.driver_connection)

    @contextmanager
    def _writing(self, check: bool = True) -> Iterator[Connection]:
        """A transaction that is committed at the end."""
        with self._connection() as db:
            try:
                if check:
                    db.execute("LOCK TABLE log IN SHARE ROW EXCLUSIVE MODE")
                yield db
                db.commit()
            except BaseException:
                db.rollback()
                raise

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._connection() as db:
            try:
                yield db
            finally:
                db.rollback()

    def _same_store(self, row: Sequence[Any] | None) -> int:
        assert row is not None
        if row[1] != self._store:
            raise EmbeddedAnew.of(self.where)
        return int(row[0])

    # --- writing

    def seq(self) -> int:
        with self._reading() as db:
            return self._same_store(db.execute(LAST).fetchone())

    def append(self, events: Sequence[Event], token: str = "", base: int | None = None) -> list[int] | None:
        if token:
            events = [*events, Event("token", text=token)]
        if not events:
            return []
        with self._writing() as db:
            last = self._same_store(db.execute(LAST).fetchone())
            if token and self._has_token(db, token, last):
                return None
            if base is not None and base != last:
                raise Conflict
            seqs = list(range(last + 1, last + 1 + len(events)))
            rows = self._checked(db, events, seqs)
            # The vectors are in the spans alone.
            self._insert(db, f"log ({', '.join(ROW)})", [(*row[:11], None, *row[12:]) for row in rows])
            self._apply(db, rows)
        if not self._indexed and seqs[-1] > INDEXED and seqs[-1] // 5000 != last // 5000:
            with pgvector.translated(self.where):
                self._index()
        return seqs[:-1] if token else seqs

    def _checked(self, db: Connection, events: Sequence[Event], seqs: list[int]) -> list[tuple[Any, ...]]:
        """The events as rows of the log, checked against the state they are appended to."""
        touched = [e.id for e in events if e.op in ("edit", "remove") and e.id > 0]
        alive = dict(
            db.execute("SELECT id, version FROM spans WHERE died = %s AND id = ANY(%s)", (FOREVER, touched)).fetchall()
        )
        given: dict[int, int] = {}
        rows = []
        for seq, item in zip(seqs, events, strict=True):
            id_ = given.get(item.id, item.id)
            if item.op == "add":
                if item.id < 0:
                    given[item.id] = seq
                id_ = alive[seq] = seq
            elif item.op in ("edit", "remove"):
                if id_ not in alive:
                    raise UnknownRecord(f"there is no record {id_} at sequence number {seq - 1}.")
                if item.base and alive[id_] != item.base and alive[id_] < seqs[0]:
                    raise Conflict
                if item.op == "remove":
                    del alive[id_]
            rows.append(row_of(item, seq, id_, given))
        return rows

    def _insert(self, db: Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with db.cursor() as cursor:
            if len(rows) > _COPIED and not into.startswith("log"):
                with cursor.copy(f"COPY {into} FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types([*["int8"] * 4, *["text"] * 4, *["float8"] * 3, self._vector_oid])
                    for row in rows:
                        copy.write_row(row)
            elif len(rows) > _COPIED:
                with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
            else:
                marks = ", ".join(["%s"] * len(rows[0]))
                cursor.executemany(f"INSERT INTO {into} VALUES ({marks})", rows)  # noqa: S608

    def _apply(self, db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Keep the spans, by the rows just appended."""
        fresh: list[tuple[Any, ...]] = []
        ended: list[tuple[int, int]] = []

        def flush() -> None:
            if ended:
                db.execute(
                    "UPDATE spans SET died = e.seq FROM unnest(%s::bigint[], %s::bigint[]) AS e (id, seq)"
                    " WHERE spans.id = e.id AND died = %s",
                    ([i for i, _ in ended], [s for _, s in ended], FOREVER),
                )
                ended.clear()
            if fresh:
                self._insert(db, f"spans ({_SPAN})", fresh)
                fresh.clear()

        for row in rows:
            seq, op, id_, kind, namespace, task, episode, outcome, importance, time, _, vector, *_ = row
            if op in ("edit", "remove"):
                if fresh or op == "edit":
                    flush()
                ended.append((id_, seq))
                if op == "edit":
                    flush()
            if op in ("add", "edit"):
                if ended:
                    flush()
                packed = pgvector.Packed.of(np.frombuffer(vector, np.float32))
                content = (kind, namespace, task, episode, outcome, importance, time)
                fresh.append((seq, id_, seq, FOREVER, *content, packed))
            elif op == "rollback":
                flush()
                self._roll_back(db, seq, id_)
        flush()

    @staticmethod
    def _roll_back(db: Connection, seq: int, target: int) -> None:
        then = "SELECT version FROM spans WHERE born <= %(target)s AND died > %(target)s"
        values = {"seq": seq, "target": target, "forever": FOREVER}
        copied = _SPAN.replace("born, died", "%(seq)s, %(forever)s")
        statements = (  # constants of this module, with every value as a parameter
            f"INSERT INTO spans ({_SPAN}) SELECT {copied} FROM spans WHERE born <= %(target)s AND died > %(target)s"  # noqa: S608
            " AND version NOT IN (SELECT version FROM spans WHERE died = %(forever)s)",
            f"UPDATE spans SET died = %(seq)s WHERE died = %(forever)s AND born < %(seq)s AND version NOT IN ({then})",  # noqa: S608
        )
        for statement in statements:
            db.execute(statement, values)

    def has_token(self, token: str) -> bool:
        with self._reading() as db:
            return self._has_token(db, token, self._same_store(db.execute(LAST).fetchone()))

    @staticmethod
    def _has_token(db: Connection, token: str, seq: int) -> bool:
        rows = db.execute(
            "SELECT seq, op, id FROM log WHERE op = 'rollback' OR (op = 'token' AND text = %s) ORDER BY seq", (token,)
        ).fetchall()
        parts = lineage(seq, [(row[0], row[2]) for row in rows if row[1] == "rollback"])
        return any(seen(row[0], parts) for row in rows if row[1] == "token")

    # --- reading

    def search(self, query: Vector, k: int, where: Where | None, seq: int, exact: bool | None) -> Hits:
        condition, values, narrow = pgvector.condition(where, seq)
        values |= {"query": pgvector.Packed.of(query), "k": k + _SPARE}
        approximate = exact is not True and self._indexed and not narrow
        columns = "version, id, importance, time, vector, vector <#> %(query)s AS distance"
        order = "distance" if approximate else "distance, id"
        sql = f"SELECT {columns} FROM spans WHERE {condition} ORDER BY {order} LIMIT %(k)s"  # noqa: S608
        with self._reading() as db:
            if approximate:
                db.execute("SET LOCAL hnsw.iterative_scan = strict_order")
                db.execute("SET LOCAL hnsw.ef_search = 400")
            else:
                db.execute("SET LOCAL enable_indexscan = off")
            outer = f"SELECT version, id, importance, time, vector_send(vector) FROM ({sql}) AS near"  # noqa: S608
            rows = db.execute(outer, values).fetchall()
        if not rows:
            return pgvector.hits([])
        vectors = np.stack([pgvector.unpacked(row[4]) for row in rows])
        scores = knn.rescore(vectors, query)
        best = np.lexsort(([row[1] for row in rows], -scores))[:k]
        return pgvector.hits([(*rows[i][:2], float(scores[i]), *rows[i][2:4]) for i in best])

    def select(self, where: Where | None, seq: int) -> Hits:
        condition, values, _ = pgvector.condition(where, seq)
        sql = f"SELECT version, id, 0.0::float8, importance, time FROM spans WHERE {condition} ORDER BY id"  # noqa: S608
        with self._reading() as db:
            return pgvector.hits(db.execute(sql, values).fetchall())

    def columns(self, where: Where | None, seq: int) -> dict[str, npt.NDArray[Any]]:
        condition, values, _ = pgvector.condition(where, seq)
        names = ("version", "id", "kind", "namespace", "task", "episode", "outcome", "importance", "time")
        sql = f"SELECT {', '.join(names)} FROM spans WHERE {condition} ORDER BY id"  # noqa: S608
        with self._reading() as db:
            rows = db.execute(sql, values).fetchall()
        types = [np.int64] * 2 + [np.object_] * 4 + [np.float64] * 3
        found = list(zip(*rows, strict=True)) if rows else [()] * len(names)
        return {n: np.array(c, t) for n, c, t in zip(names, found, types, strict=True)}

    def count(self, where: Where | None, seq: int) -> int:
        condition, values, _ = pgvector.condition(where, seq)
        with self._reading() as db:
            row = db.execute(f"SELECT count(*) FROM spans WHERE {condition}", values).fetchone()  # noqa: S608
        return int(row[0]) if row else 0

    def find(self, ids: Sequence[int], seq: int) -> dict[int, int]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, version FROM spans WHERE id = ANY(%s) AND born <= %s AND died > %s", (list(ids), seq, seq)
            ).fetchall()
        found = dict(rows)
        return {i: found[i] for i in ids if i in found}

    def fetch(self, versions: Sequence[int]) -> list[Record]:
        sql = f"SELECT {', '.join(CONTENT)} FROM log WHERE seq = ANY(%s)"  # noqa: S608
        with self._reading() as db:
            found = {row[0]: record_of(row) for row in db.execute(sql, (list(versions),))}
        return [found[v] for v in versions]

    def vectors(self, versions: Sequence[int]) -> Vector:
        with self._reading() as db:
            rows = db.execute(
                "SELECT version, vector_send(vector) FROM spans WHERE version = ANY(%s)", (list(versions),)
            ).fetchall()
        found = {row[0]: pgvector.unpacked(row[1]) for row in rows}
        return np.stack([found[v] for v in versions]) if versions else np.empty((0, self.dim), np.float32)

    def marks(self, after: int, upto: int) -> Iterator[Mark]:
        with self._reading() as db:
            return marks_of(db.execute(_MARKS, (after, upto)).fetchall())

    def verify(self, repair: bool) -> list[str]:
        """The spans against the log. They hold the vectors, so they are the one thing here that cannot be made anew:
        what is wrong is reported."""
        del repair
        with self._reading() as db:
            rows = db.execute(
                "SELECT seq FROM log LEFT JOIN spans ON spans.version = log.seq AND spans.born = log.seq"
                " WHERE op IN ('add', 'edit') AND (spans.version IS NULL OR spans.vector IS NULL) LIMIT 10"
            ).fetchall()
            twice = db.execute(
                "SELECT id FROM spans WHERE died = %s GROUP BY id HAVING count(*) > 1 LIMIT 10", (FOREVER,)
            ).fetchall()
        wrong = [f"{self.where}: event {row[0]} has no span" for row in rows]
        return wrong + [f"{self.where}: record {row[0]} has more than one current version" for row in twice]

    def close(self) -> None:
        self._engine.dispose()


def stored_embedder(url: str) -> tuple[str, int]:
    """The name and size of the embedder that a store was made with."""
    parsed = make_url(url).set(drivername="postgresql")
    schema = str(parsed.query.get("schema", "agentkit"))
    where = parsed.difference_update_query(["schema"])
    table = psycopg.sql.Identifier(schema, "meta")
    url = where.render_as_string(hide_password=False)
    with pgvector.translated(database(url)), psycopg.connect(url) as db:
        if db.execute("SELECT to_regclass(%s)", (f"{schema}.meta",)).fetchone() == (None,):
            raise NotAStore(f"there is no memory in the schema {schema!r} of {database(url)}.")
        meta: dict[str, str] = dict(db.execute(psycopg.sql.SQL("SELECT key, value FROM {}").format(table)).fetchall())
    return meta["embedder"], int(meta["dim"])
