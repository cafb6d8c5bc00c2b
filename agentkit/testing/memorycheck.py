"""The contract test for a memory: what any store behind `agentkit.memory.Memory` must do, whatever it is made of.

`check_memory` needs no test framework: call it from a test or a notebook with a function that makes an empty memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agentkit.errors import ContractError
from agentkit.memory import Memory, Record, Where

_TEXTS = (
    "the lamp is in the attic",
    "the coin is under the rug",
    "a rug lies in the hall",
    "ünïcode 🚪 \n\t and signs '; --",
)


def check_memory(make: Callable[[], Memory]) -> None:
    """Check that the memories which ``make`` makes, each of its own and empty, keep the contract.

    Raises `ContractError` with the first breach. Nothing is left behind but what was written to these memories.
    """
    for check in (_adding, _reading_as_of, _filters, _editing, _transactions, _credits, _rolling_back, _threads):
        memory = make()
        try:
            _require(memory.seq == 0 and len(memory) == 0, "a new memory is empty, and at sequence number 0")
            check(memory)
        finally:
            memory.close()


def _adding(memory: Memory) -> None:
    for count, text in enumerate(_TEXTS, 1):
        before = memory.seq
        id_ = memory.add(
            Record(kind="note", text=text, data={"n": [count]}, task=f"task {count}", outcome=0.5, step=count)
        )
        _require(memory.seq > before, "every write moves the sequence number on")
        _require(len(memory) == count, "a record is counted as soon as add returns")
        nearest = memory.recall(text, k=1)
        _require([r.record.id for r in nearest] == [id_], f"the nearest record of {text!r} is itself, at once")
        _require(nearest[0].relevance > 0.999, "a text is as near as can be to itself")
        kept = memory.get(id_)
        _require(
            (kept.text, dict(kept.data), kept.task, kept.outcome, kept.step)
            == (text, {"n": [count]}, f"task {count}", 0.5, count),
            "a record is given back as it was stored",
        )
    found = memory.recall(_TEXTS[1], k=10)
    _require(len(found) == len(_TEXTS), "a recall of more than there are gives all")
    scores = [r.score for r in found]
    _require(scores == sorted(scores, reverse=True), "what is recalled is ordered, the best first")
    _require(
        [r.record.id for r in memory.recall(_TEXTS[1], k=10)] == [r.record.id for r in found], "recall repeats itself"
    )
    _require(
        memory.novelty(_TEXTS[0], k=1) < 0.001 < memory.novelty("quite another thing", k=1), "what is known is not new"
    )


def _reading_as_of(memory: Memory) -> None:
    first = memory.add(Record(kind="note", text=_TEXTS[0]))
    then = memory.seq
    view = memory.at(then)
    memory.add(Record(kind="note", text=_TEXTS[1]))
    memory.remove(first)
    for what in (view.records(), memory.records(as_of=then), [r.record for r in view.recall(_TEXTS[1], k=5)]):
        _require([r.id for r in what] == [first], "a read as of a number sees what was there at that number")
    _require([r.text for r in memory.records()] == [_TEXTS[1]], "a removed record is not there afterwards")
    _require(first not in [r.record.id for r in memory.recall(_TEXTS[0], k=5)], "a removed record is not recalled")


def _filters(memory: Memory) -> None:
    ids = memory.add_many([Record(kind=f"kind {i % 2}", text=t, task=f"task {i}") for i, t in enumerate(_TEXTS)])
    _require(len(set(ids)) == len(memory) == len(_TEXTS), "records added at once are all there, each under its own id")
    for where, expected in (
        (Where(kinds=("kind 1",)), [ids[1], ids[3]]),
        (Where(task="task 2"), [ids[2]]),
        (Where(exclude_task="task 2"), [ids[0], ids[1], ids[3]]),
        (Where(exclude_ids=(ids[0],)), ids[1:]),
    ):
        _require([r.id for r in memory.records(where)] == expected, f"records are those that {where} allows")
        recalled = sorted(r.record.id for r in memory.recall(_TEXTS[0], k=9, where=where))
        _require(recalled == expected, f"a recall finds what {where} allows, all of it, and nothing else")


def _editing(memory: Memory) -> None:
    id_ = memory.add(Record(kind="note", text=_TEXTS[0]))
    then = memory.seq
    memory.edit(id_, text=_TEXTS[1])
    _require(memory.get(id_).text == _TEXTS[1], "an edited record keeps its id")
    _require(memory.get(id_, as_of=then).text == _TEXTS[0], "a read from before the edit sees the record as it was")
    _require(memory.recall(_TEXTS[1], k=1)[0].relevance > 0.999, "an edited text is searched by what it is now")
    diff = memory.diff(then, memory.seq)
    _require([(a.text, b.text) for a, b in diff.edited] == [(_TEXTS[0], _TEXTS[1])], "a diff tells an edit")


class _Stop(Exception):
    pass


def _transactions(memory: Memory) -> None:
    try:
        with memory.transaction("token"):
            memory.add(Record(kind="note", text=_TEXTS[0]))
            _require(len(memory) == 0, "what a transaction writes is not seen before its end")
            raise _Stop
    except _Stop:
        _require(len(memory) == 0, "a transaction that an error leaves has written nothing")
    for again in (False, True):
        with memory.transaction("token") as transaction:
            _require(transaction.done == again, "a transaction knows whether its token was committed")
            memory.add_many([Record(kind="note", text=text) for text in _TEXTS])
        _require(len(memory) == len(_TEXTS), "what is done under one token is stored once")
    with memory.transaction("another"):
        memory.add(Record(kind="note", text=_TEXTS[0]))
    _require(len(memory) == len(_TEXTS) + 1, "another token is another transaction")


def _credits(memory: Memory) -> None:
    good, bad = memory.add_many([Record(kind="note", text=_TEXTS[0]), Record(kind="note", text=_TEXTS[1])])
    then = memory.seq
    for i in range(8):
        memory.credit([good], 1.0, episode=f"good {i}")
        memory.credit([bad], 0.0, episode=f"bad {i}")
    _require(memory.utility(good) > 0 > memory.utility(bad), "utility follows what came of the records' use")
    _require(memory.utility(good, as_of=then) == 0, "utility is read as of a number too")
    _require(len(memory) == 2, "credit adds no record")


def _rolling_back(memory: Memory) -> None:
    kept = memory.add(Record(kind="note", text=_TEXTS[0]))
    then = memory.seq
    memory.add(Record(kind="note", text=_TEXTS[1]))
    later = memory.seq
    memory.rollback(then)
    _require([r.id for r in memory.records()] == [kept], "after a rollback the memory is what it was")
    _require(len(memory.recall(_TEXTS[1], k=5)) == 1, "a recall after a rollback finds nothing of what was taken back")
    _require(len(memory.records(as_of=later)) == 2, "what was taken back is still seen as of its own number")
    _require(memory.seq > later, "a rollback is an event itself")


def _threads(memory: Memory) -> None:
    def add(i: int) -> int:
        return memory.add(Record(kind="note", text=f"note number {i}"))

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(add, range(16)))
    _require(len(set(ids)) == 16 == len(memory), "writes of many threads are all kept, each under an id of its own")
    for i, id_ in enumerate(ids):
        _require(memory.get(id_).text == f"note number {i}", "an id belongs to the record whose add returned it")


def _require(kept: bool, contract: str) -> None:
    if not kept:
        raise ContractError(f"the memory breaks its contract: {contract}")
