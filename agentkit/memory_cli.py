"""``agentkit memory``: look at a memory, compare it with its past, roll it back, take it out and in, and check it.

Exit status: 0 when done, 1 when it could not be done or something is wrong with the store, 2 for a wrong command line.
"""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.address import database
from agentkit.errors import AgentkitError, InvalidValue
from agentkit.memory import Memory, Record, Where, load_embedder, stored_embedder
from agentkit.memory.embed import Embedder
from agentkit.memory.errors import NotAStore
from agentkit.memory.jsonl import check_jsonl
from agentkit.memory.upkeep import Policy
from agentkit.terminal import line, print_json, table

if TYPE_CHECKING:
    from agentkit.memory.embed import Vectors

app = typer.Typer(help="Look at a memory, and look after it.", no_args_is_help=True, add_completion=False)

_SHOWN = 20  # rows of a table that could have very many
Store = Annotated[str, typer.Argument(help="The memory: path of its SQLite file, or its postgresql:// URL.")]
AsOf = Annotated[int | None, typer.Option("--as-of", help="Read as of this sequence number.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Kind = Annotated[list[str] | None, typer.Option("--kind", help="Only records of this kind (may be repeated).")]
Namespace = Annotated[str | None, typer.Option(help="Only records of this namespace.")]
TaskName = Annotated[str | None, typer.Option("--task", help="Only records of this task.")]
By = Annotated[
    str | None,
    typer.Option("--embedder", help="Embedder by name, or as module:attribute; the store's own when left out."),
]


@app.command()
def stats(store: Store, as_of: AsOf = None, as_json: AsJson = False) -> None:
    """What is in a memory: how many records of which kind and task, credits, embedder, size."""
    with _opened(store) as memory:
        view = memory.at(as_of)
        columns = memory.columns(as_of=view.seq)
        kinds, spaces, tasks = (Counter(columns[name].tolist()) for name in ("kind", "namespace", "task"))
        outcomes = {kind: columns["outcome"][columns["kind"] == kind] for kind in kinds}
        known = {kind: values[values == values] for kind, values in outcomes.items()}  # NaN is where there is none
        oldest = float(columns["time"].min()) if kinds else None
        newest = float(columns["time"].max()) if kinds else None
        credits = memory.credits(as_of=view.seq)
        used = {i for entry in credits for i in entry.ids}
        quarantined = [record.id for record, _ in memory.quarantined(as_of=view.seq)]
        found: dict[str, Any] = {
            "store": database(store),
            "seq": view.seq,
            "records": kinds.total(),
            "kinds": dict(kinds.most_common()),
            "mean_outcome": {kind: float(values.mean()) for kind, values in known.items() if len(values)},
            "namespaces": dict(spaces.most_common()),
            "tasks": len(tasks.keys() - {""}),
            "credited_episodes": len(credits),
            "records_used": len(used),
            "quarantined": quarantined,
            "oldest": oldest,
            "newest": newest,
            "embedder": memory.embedder.name,
            "dim": memory.embedder.dim,
            "bytes": _size(store),
        }
    if as_json:
        print_json(found)
        return
    table(
        ["kind", "records", "mean outcome"],
        ([kind, f"{n:,}", _number(found["mean_outcome"].get(kind))] for kind, n in kinds.most_common()),
        title=f"{found['records']:,} records at sequence number {view.seq:,}",
    )
    if set(spaces) - {""}:
        table(["namespace", "records"], ([s or "(none)", f"{n:,}"] for s, n in spaces.most_common()))
    if oldest is not None and newest is not None:
        line(f"from {_when(oldest)} to {_when(newest)}, {found['tasks']:,} tasks")
    line(f"{len(credits):,} credited episodes, which used {len(used):,} records")
    if quarantined:
        some = ", ".join(map(str, quarantined[:20])) + (", …" if len(quarantined) > 20 else "")
        line(f"{len(quarantined):,} were found harmful, and recall leaves them out: {some}")
    size = f", {found['bytes'] / 1e6:,.1f} MB on disk" if found["bytes"] is not None else ""
    line(f"embedder {found['embedder']}, {found['dim']} numbers a vector{size}")


@app.command()
def search(
    store: Store,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", help="How many records.", min=1)] = 10,
    kind: Kind = None,
    namespace: Namespace = None,
    task: TaskName = None,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="Those that were found harmful too.")] = False,
    as_of: AsOf = None,
    embedder: By = None,
    as_json: AsJson = False,
) -> None:
    """The records nearest to a text."""
    with _opened(store, embedder=embedder, embeds=True) as memory:
        where = Where(kinds=tuple(kind) if kind else None, namespace=namespace, task=task)
        found = memory.recall(query, k, where=where, as_of=as_of, quarantined=quarantined)
    if as_json:
        print_json(
            [
                {"score": r.score, "relevance": r.relevance, "utility": r.utility, "record": _plain(r.record)}
                for r in found
            ]
        )
        return
    table(
        ["id", "score", "utility", "kind", "task", "text"],
        (
            [str(r.record.id), f"{r.score:.3f}", _number(r.utility), r.record.kind, r.record.task, r.record.text]
            for r in found
        ),
        title=f"{len(found)} nearest to {query!r}",
    )


@app.command()
def show(
    store: Store,
    id_: Annotated[int, typer.Argument(metavar="ID", help="The record.")],
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """A record: its text and data, where it came from, which episodes used it, what it is worth."""
    with _opened(store) as memory:
        seq = memory.at(as_of).seq
        record = memory.get(id_, as_of=seq)
        (credit,) = memory.credit_of([id_], as_of=seq)
        uses = [e for e in memory.credits(as_of=seq) if id_ in e.ids]
        quarantined = any(bad.id == id_ for bad, _ in memory.quarantined(as_of=seq))
    if as_json:
        print_json(
            {
                "record": _plain(record),
                "credit": asdict(credit) | {"quarantined": quarantined},
                "uses": [{"seq": e.seq, "episode": e.episode, "task": e.task, "outcome": e.outcome} for e in uses],
            }
        )
        return
    rows = [
        ("kind", record.kind),
        ("namespace", record.namespace),
        ("task", record.task),
        ("episode", record.episode + (f", step {record.step}" if record.step is not None else "")),
        ("outcome", _number(record.outcome)),
        ("importance", _number(record.importance)),
        ("time", _when(record.time)),
        ("written", f"at sequence number {record.seq}"),
        ("searched by", record.key),
        ("data", json.dumps(record.data, default=dict, ensure_ascii=False) if record.data else ""),
        ("utility", f"{credit.utility:+.3f} ± {credit.deviation:.3f}{', quarantined' if quarantined else ''}"),
        ("uses", f"{credit.uses} episodes, against {credit.controls} that could have and did not"),
    ]
    table(["", f"record {id_}"], ([name, value] for name, value in rows if value), whole=True)
    line(record.text)
    if uses:
        table(
            ["at", "episode", "task", "outcome"],
            ([str(e.seq), e.episode, e.task, _number(e.outcome)] for e in uses[-10:]),
            title=f"the last {min(10, len(uses))} of {len(uses)} uses",
        )


@app.command()
def diff(
    store: Store,
    a: Annotated[int, typer.Argument(help="A sequence number.", min=0)],
    b: Annotated[int | None, typer.Argument(help="Another; now when left out.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """What changed between two sequence numbers."""
    with _opened(store) as memory:
        b = memory.seq if b is None else b
        change = memory.diff(a, b)
    if as_json:
        print_json(
            {
                "a": a,
                "b": b,
                "added": [_plain(r) for r in change.added],
                "removed": [_plain(r) for r in change.removed],
                "edited": [{"before": _plain(x), "after": _plain(y)} for x, y in change.edited],
                "credited": [{"episode": episode, "outcome": outcome} for episode, outcome in change.credited],
            }
        )
        return
    rows = [["+", str(r.id), r.kind, r.task, r.text] for r in change.added]
    rows += [["-", str(r.id), r.kind, r.task, r.text] for r in change.removed]
    for before, after in change.edited:
        rows += [["-~", str(before.id), before.kind, before.task, before.text]]
        rows += [["+~", str(after.id), after.kind, after.task, after.text]]
    table(["", "id", "kind", "task", "text"], rows, title=f"from {a} to {b}: {_summary(change)}")
    if change.credited:
        mean = sum(outcome for _, outcome in change.credited) / len(change.credited)
        line(f"{len(change.credited):,} episodes credited, mean outcome {mean:.3f}")


@app.command()
def rollback(
    store: Store,
    seq: Annotated[int, typer.Argument(help="The sequence number to go back to.", min=0)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Make a memory what it was at a sequence number. This can itself be rolled back."""
    with _opened(store) as memory:
        now = memory.seq
        change = memory.diff(now, seq)
        if not yes:
            typer.confirm(f"From {now} to what it was at {seq}: {_summary(change)}. Do it?", abort=True)
        memory.rollback(seq)
        line(f"rolled back to {seq}: {_summary(change)}. To undo: agentkit memory rollback {database(store)} {now}")


@app.command("export")
def export_(
    store: Store,
    file: Annotated[Path, typer.Argument(help="The JSONL file to write.")],
    as_of: AsOf = None,
    vectors: Annotated[bool, typer.Option(help="Write the vectors too.")] = False,
) -> None:
    """Write a memory's records and credits as JSON lines."""
    with _opened(store) as memory:
        count = memory.export_jsonl(file, as_of=as_of, vectors=vectors)
        line(f"{count:,} records written to {file}")


@app.command("import")
def import_(
    store: Store,
    file: Annotated[Path, typer.Argument(help="A JSONL file that `export` wrote.", exists=True, dir_okay=False)],
    embedder: By = None,
    create: Annotated[bool, typer.Option("--create", help="Make the memory if there is none.")] = False,
) -> None:
    """Add exported records and credits to a memory, in one commit."""
    if create:  # and no memory where it cannot be filled
        with _errors():
            check_jsonl(file)
    with _opened(store, embedder=embedder, embeds=True, create=create) as memory:
        ids = memory.import_jsonl(file)
        line(f"{len(ids):,} records added; the memory is at sequence number {memory.seq:,}")


@app.command()
def skills(
    store: Store,
    everything: Annotated[bool, typer.Option("--all", help="Every version, not only those in use.")] = False,
    namespace: Annotated[str, typer.Option(help="The library's namespace.")] = "",
    export: Annotated[Path | None, typer.Option(help="Write them here as SKILL.md folders.", file_okay=False)] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """The skills of a memory: signature, version, status, and what they depend on."""
    from agentkit.memory.skill import Status
    from agentkit.memory.skills import SkillLibrary
    from agentkit.memory.skills_folder import export_skills

    with _opened(store) as memory:
        library = SkillLibrary(memory.at(as_of), namespace=namespace)
        found = library.skills(None if everything else Status.ADMITTED)
        places = export_skills(found, export) if export is not None else []
    if as_json:
        print_json([asdict(replace(skill, verified_with=dict(skill.verified_with))) for skill in found])
        return
    table(
        ["id", "name", "version", "status", "requires", "what it does"],
        (
            [str(s.id), s.name, str(s.version), s.status.name.lower(), ", ".join(s.requires), s.reason or s.description]
            for s in found
        ),
        title=f"{len(found)} skills",
    )
    for place in places:
        line(f"written: {place}")


@app.command()
def forget(
    store: Store,
    capacity: Annotated[int, typer.Argument(help="How many records are to be left.", min=0)],
    policy: Annotated[Policy, typer.Option(help="Which records go first.")] = "least_useful",
    kind: Kind = None,
    namespace: Namespace = None,
    task: TaskName = None,
    seed: Annotated[int, typer.Option(help="Of the policy `reservoir`.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove records until so many are left. Options restrict which are counted and removed. Can be rolled back."""
    where = Where(kinds=tuple(kind) if kind else None, namespace=namespace, task=task)
    with _opened(store) as memory:
        seq = memory.seq
        ids = memory.forget(capacity, policy, where=where, seed=seed, dry_run=True)
        credit = dict(zip(ids, memory.credit_of(ids), strict=True))
        if as_json:
            print_json({"seq": seq, "dry_run": dry_run, "forgotten": ids})
        else:
            table(
                ["id", "utility", "uses", "kind", "task", "text"],
                (
                    [str(r.id), _number(credit[r.id].utility), str(credit[r.id].uses), r.kind, r.task, r.text]
                    for r in map(memory.get, ids[:_SHOWN])
                ),
                title=f"{len(ids):,} of {memory.count(where):,} go" + (f"; the first {_SHOWN}" * (len(ids) > _SHOWN)),
            )
        if dry_run or not ids:
            return
        if not yes:
            typer.confirm(f"Remove {len(ids):,} records?", abort=True, err=as_json)
        memory.remove(ids, reason=f"forgotten: {policy}, capacity {capacity}")
    if not as_json:
        line(f"{len(ids):,} records forgotten. To undo: agentkit memory rollback {database(store)} {seq}")


@app.command()
def reembed(
    store: Store,
    embedder: Annotated[str, typer.Argument(help="The new embedder: a name, or module:attribute.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Compute every vector of a memory anew with another embedder."""
    with _errors():
        name, _ = stored_embedder(store)
        _embedder(store, embedder, embeds=True, create=False)  # one that there is
        if not yes:
            typer.confirm(f"Replace all vectors, made by {name}, with those of {embedder}?", abort=True)
    with _opened(store, embedder=embedder, embeds=True, reembed=True) as memory:
        line(f"every vector of {database(store)} is now by {memory.embedder.name}; before, by {name}")


@app.command()
def verify(
    store: Store,
    repair: Annotated[bool, typer.Option(help="Build a wrong index anew.")] = True,
) -> None:
    """Check a memory's log, and its whole index against the log. Exit status 1 when something is wrong and stays so."""
    with _opened(store) as memory:
        wrong = memory.verify(repair=repair)
        left = memory.verify(repair=False) if wrong and repair else wrong
        count, seq = len(memory), memory.seq
    for problem in wrong:
        line(problem + ("" if problem in left else " (repaired)"))
    if left:
        raise typer.Exit(1)
    line(f"{database(store)}: {count:,} records at sequence number {seq:,}, the index agrees with the log")


# --- opening


@dataclass(frozen=True)
class _Unloaded:
    """The name and size of a store's embedder, for commands that embed nothing: no model is loaded to look at it."""

    name: str
    dim: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        raise InvalidValue(f"this command embeds nothing, and did not load {self.name!r} ({len(texts)} texts given)")


@contextmanager
def _errors() -> Iterator[None]:
    """The boundary at which errors become a message and exit status 1."""
    try:
        yield
    except (AgentkitError, OSError) as error:
        line(f"error: {error}", stderr=True)
        raise typer.Exit(1) from error


@contextmanager
def _opened(
    store: str, *, embedder: str | None = None, embeds: bool = False, create: bool = False, reembed: bool = False
) -> Iterator[Memory]:
    with _errors(), Memory(store, embedder=_embedder(store, embedder, embeds, create), reembed=reembed) as memory:
        yield memory


def _embedder(store: str, given: str | None, embeds: bool, create: bool) -> Embedder:
    try:
        name, dim = stored_embedder(store)
    except NotAStore:  # where there is something else, opening it says so
        if not create:
            raise
        name, dim = "hashing", 0
    if given is not None and re.fullmatch(r"[\w.]+:\w+", given):
        return _attribute(given)
    return load_embedder(given or name) if embeds else _Unloaded(name, dim)


def _attribute(name: str) -> Embedder:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidValue(f"there is no embedder {name!r}: {error}") from error
    embedder = made() if callable(made) and (isinstance(made, type) or not hasattr(made, "embed")) else made
    if not isinstance(embedder, Embedder):
        raise InvalidValue(f"{name!r} is no embedder, nor makes one: it needs a name, a dim and embed(texts).")
    return embedder


# --- printing


def _plain(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__dataclass_fields__ if name != "data"} | {
        "data": dict(record.data)
    }


def _summary(change: Any) -> str:  # a Diff
    parts = [(len(change.added), "added"), (len(change.removed), "removed"), (len(change.edited), "edited")]
    return ", ".join(f"{n:,} {word}" for n, word in parts if n) or "no record differs"


def _size(store: str) -> int | None:
    path = Path(store)
    if not path.is_file():
        return None
    return sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*") if p.is_file())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
    except (OverflowError, ValueError, OSError):  # a clock of the user's own
        return str(seconds)


if __name__ == "__main__":
    app()
