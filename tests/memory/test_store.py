"""What a memory promises, on every backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentkit.errors import InvalidValue
from agentkit.memory import HashingEmbedder, Memory, Recalled, Record, Where, render
from agentkit.memory.errors import UnknownRecord

EMBEDDER = HashingEmbedder(64)


@pytest.fixture(params=["file", "memory", "postgres"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Memory]:
    where = {"file": str(tmp_path / "m.db"), "memory": ":memory:"}.get(request.param)
    if where is None:
        make: Callable[[], str] = request.getfixturevalue("postgres")
        where = make()
    with Memory(where, embedder=EMBEDDER, clock=lambda: 1000.0) as opened:
        yield opened


def texts(found: list[Recalled]) -> list[str]:
    return [r.record.text for r in found]


def test_recall_sees_an_add_at_once_and_orders_by_relevance(memory: Memory) -> None:
    kitchen = memory.add(Record("step", "the fridge in the kitchen is closed", task="a", outcome=0.0))
    memory.add(Record("step", "the gate of the garden is open", task="b", outcome=1.0))
    found = memory.recall("kitchen fridge", 2)
    assert found[0].record.id == kitchen
    assert found[0].score > found[1].score
    assert memory.recall("the gate of the garden is open", 1)[0].relevance == pytest.approx(1.0, abs=1e-6)


def test_a_record_comes_back_as_it_was_given(memory: Memory) -> None:
    record = Record(
        "lesson",
        "text, é \n 'quoted'",
        key="key",
        data={"a": [1, {"b": None}], "c": "ü"},
        namespace="n",
        task="t",
        outcome=0.25,
        importance=0.75,
        episode="e",
        step=3,
        time=12.5,
    )
    id_ = memory.add(record)
    back = memory.get(id_)
    assert (back.id, back.seq) == (id_, memory.seq)
    for field in (
        "kind",
        "text",
        "key",
        "data",
        "namespace",
        "task",
        "outcome",
        "importance",
        "episode",
        "step",
        "time",
    ):
        assert getattr(back, field) == getattr(record, field)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(kinds="step"), {1, 2}),
        (Where(kinds=("step", "lesson")), {1, 2, 3}),
        (Where(kinds=()), set()),
        (Where(kinds="unheard"), set()),
        (Where(namespace="n"), {3, 4}),
        (Where(task="a"), {1, 3}),
        (Where(exclude_task="a"), {2, 4}),
        (Where(exclude_task="unheard"), {1, 2, 3, 4}),
        (Where(episode="e1"), {1}),
        (Where(exclude_episode="e1"), {2, 3, 4}),
        (Where(ids={1, 4, 9}), {1, 4}),
        (Where(exclude_ids={1, 4}), {2, 3}),
        (Where(min_outcome=0.5), {2, 3}),
        (Where(max_outcome=0.5), {1, 3}),
        (Where(after=2.0, before=4.0), {2, 3}),
        (Where(kinds="step", exclude_task="a", exclude_ids=[1]), {2}),
    ],
)
def test_where(memory: Memory, where: Where, expected: set[int]) -> None:
    memory.add_many(
        [
            Record("step", "one word", task="a", outcome=0.0, episode="e1", time=1.0),
            Record("step", "two words", task="b", outcome=1.0, episode="e2", time=2.0),
            Record("lesson", "three words", task="a", outcome=0.5, namespace="n", time=3.0),
            Record("skill", "four words", task="b", namespace="n", time=4.0),
        ]
    )
    assert {r.record.id for r in memory.recall("words", 10, where=where)} == expected
    assert {r.id for r in memory.records(where)} == expected
    assert memory.count(where) == len(expected)


def test_every_read_as_of_a_number_shows_what_was_there(memory: Memory) -> None:
    a = memory.add(Record("step", "red apple"))
    first = memory.seq
    b = memory.add(Record("step", "green pear"))
    memory.edit(a, text="red cherry")
    second = memory.seq
    memory.remove(b)
    view = memory.at(first)
    assert [r.text for r in view.records()] == ["red apple"]
    assert texts(view.recall("red cherry", 5)) == ["red apple"]
    assert sorted(texts(memory.at(second).recall("red", 5))) == ["green pear", "red cherry"]
    assert texts(memory.recall("green pear", 5)) == ["red cherry"]
    assert len(memory.at(0)) == 0
    assert memory.at(0).recall("red") == []
    assert view.get(a).text == "red apple"
    with pytest.raises(UnknownRecord, match="no record 2"):
        view.get(b)
    with pytest.raises(InvalidValue, match="at 4"):
        memory.at(99)


def test_rollback_is_an_event_and_can_be_rolled_back(memory: Memory) -> None:
    a = memory.add(Record("step", "one"))
    start = memory.seq
    memory.edit(a, text="two")
    b = memory.add(Record("step", "three"))
    memory.credit([a], 1.0, episode="e")
    edited = memory.seq
    memory.rollback(start)
    after = memory.seq
    assert [r.text for r in memory.records()] == ["one"]
    assert memory.utility(a) == 0.0
    assert memory.credits() == []
    assert [r.text for r in memory.at(edited).records()] == ["two", "three"]
    assert memory.at(edited).utility(a) > 0.0
    c = memory.add(Record("step", "four"))
    memory.rollback(edited)
    assert [r.text for r in memory.records()] == ["two", "three"]
    assert memory.utility(a) > 0.0
    memory.remove(b)
    memory.rollback(after)
    assert [r.text for r in memory.records()] == ["one"]
    assert memory.get(a).id == a
    with pytest.raises(UnknownRecord):
        memory.get(c)


def test_diff_names_what_changed_in_both_directions(memory: Memory) -> None:
    a = memory.add(Record("step", "one"))
    b = memory.add(Record("step", "two"))
    start = memory.seq
    memory.edit(a, outcome=1.0)
    memory.remove(b)
    memory.add(Record("step", "three"))
    memory.credit([a], 0.5, episode="e7")
    diff = memory.diff(start, memory.seq)
    assert [r.text for r in diff.added] == ["three"]
    assert [r.text for r in diff.removed] == ["two"]
    assert [(x.outcome, y.outcome) for x, y in diff.edited] == [(None, 1.0)]
    assert diff.credited == (("e7", 0.5),)
    back = memory.diff(memory.seq, start)
    assert [r.text for r in back.added] == ["two"]
    assert [r.text for r in back.removed] == ["three"]
    assert not memory.diff(start, start)


def test_equal_scores_are_ordered_by_id_however_many(memory: Memory) -> None:
    memory.add_many([Record("step", "the same text")] * 300)
    memory.add(Record("step", "another text"))
    assert [r.record.id for r in memory.recall("the same text", 5)] == [1, 2, 3, 4, 5]
    found = memory.recall("the same text", 5, where=Where(exclude_ids=range(1, 200)))
    assert [r.record.id for r in found] == [200, 201, 202, 203, 204]


def test_recall_agrees_with_brute_force(memory: Memory) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((3000, 64)).astype(np.float32)
    memory.add_many([Record("step", str(i), task=str(i % 300)) for i in range(3000)], vectors)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None]
    for query in rng.standard_normal((5, 64)):
        scores = unit @ (query / np.linalg.norm(query))
        for where, rows in ((None, np.arange(3000)), (Where(task="3"), np.arange(3, 3000, 300))):
            best = rows[np.argsort(-scores[rows])][:10]
            found = memory.recall(query, 10, where=where)
            assert [r.record.text for r in found] == [str(i) for i in best]
            assert [r.relevance for r in found] == pytest.approx(scores[best].tolist(), abs=1e-6)


def test_novelty_is_the_mean_distance_to_the_nearest(memory: Memory) -> None:
    assert memory.novelty("anything") == 1.0
    memory.add_many([Record("step", "known place")] * 10)
    assert memory.novelty("known place") == pytest.approx(0.0, abs=1e-6)
    assert memory.novelty("quite different words", 10) > 0.5


def test_edit_embeds_again_only_what_changed(memory: Memory) -> None:
    a = memory.add(Record("step", "alpha beta", key="gamma"))
    memory.edit(a, text="delta")
    assert memory.recall("gamma", 1)[0].relevance == pytest.approx(1.0, abs=1e-6)
    memory.edit(a, key="")
    assert memory.recall("delta", 1)[0].relevance == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InvalidValue, match="no field \\['colour'\\]"):
        memory.edit(a, colour="red")
    with pytest.raises(UnknownRecord):
        memory.edit(77, text="x")


def test_remove_is_all_or_nothing(memory: Memory) -> None:
    a, b = memory.add_many([Record("step", "one"), Record("step", "two")])
    with pytest.raises(UnknownRecord, match="77"):
        memory.remove([a, 77])
    assert len(memory) == 2
    memory.remove([a, b, a])
    assert len(memory) == 0


def test_a_transaction_commits_once_for_its_token(memory: Memory) -> None:
    old = memory.add(Record("step", "old"))
    for attempt in range(2):
        with memory.transaction("round 1") as tx:
            new = memory.add(Record("lesson", "new", importance=0.1))
            assert new < 0
            memory.edit(new, importance=0.9)
            memory.edit(old, text="changed")
            memory.credit([new, old], 1.0, episode="e")
            assert memory.get(old).text == ("old" if attempt == 0 else "changed")
        assert tx.done == (attempt == 1)
        if attempt == 0:
            assert memory.get(tx.ids[new]).importance == 0.9
            assert memory.credits()[0].ids == {tx.ids[new], old}
    assert len(memory) == 2
    assert len(memory.credits()) == 1


def test_a_transaction_that_fails_writes_nothing(memory: Memory) -> None:
    def failing() -> None:
        with memory.transaction("t"):
            memory.add(Record("step", "one"))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        failing()
    assert memory.seq == 0
    with memory.transaction("t") as tx:
        memory.add(Record("step", "one"))
    assert not tx.done
    assert len(memory) == 1


def test_a_rolled_back_token_can_be_committed_again(memory: Memory) -> None:
    start = memory.seq
    with memory.transaction("t"):
        memory.add(Record("step", "one"))
    memory.rollback(start)
    with memory.transaction("t") as tx:
        memory.add(Record("step", "one"))
    assert not tx.done
    assert len(memory) == 1


def test_transactions_belong_to_their_thread(memory: Memory) -> None:
    with memory.transaction("t"):
        memory.add(Record("step", "inside"))
        other = threading.Thread(target=lambda: memory.add(Record("step", "outside")))
        other.start()
        other.join()
        assert [r.text for r in memory.records()] == ["outside"]
    assert [r.text for r in memory.records()] == ["outside", "inside"]


def test_threads_write_at_once_and_nothing_is_lost(memory: Memory) -> None:
    ids: list[int] = []

    def write(worker: int) -> None:
        for i in range(25):
            ids.append(memory.add(Record("step", f"{worker} {i}", task=str(worker))))
            memory.recall(f"{worker}", 3)

    workers = [threading.Thread(target=write, args=(w,)) for w in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert sorted(ids) == list(range(1, 201))
    for worker in range(8):
        own = [r.text for r in memory.records(Where(task=str(worker)))]
        assert own == [f"{worker} {i}" for i in range(25)]


@pytest.mark.parametrize("vectors", [False, True])
def test_jsonl_round_trip(memory: Memory, tmp_path: Path, vectors: bool) -> None:
    memory.add(Record("step", "gone"))
    a = memory.add(Record("step", "kept é", data={"x": 1}, outcome=1.0))
    lesson = memory.add(Record("lesson", "learned", data={"evidence": [a]}))
    memory.remove(1)
    memory.credit([a, lesson], 1.0, episode="e", task="t", eligible=[a, lesson])
    assert memory.export_jsonl(tmp_path / "out.jsonl", vectors=vectors) == 2
    with Memory(embedder=EMBEDDER) as other:
        assert other.import_jsonl(tmp_path / "out.jsonl") == [1, 2]
        assert [r.text for r in other.records()] == ["kept é", "learned"]
        assert other.get(1).data == {"x": 1}
        assert other.get(2).data == {"evidence": [1]}
        assert other.credits()[0].ids == {1, 2}
        assert other.recall("kept", 1)[0].relevance == memory.recall("kept", 1)[0].relevance


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}"], "not an exported memory"),
        (["nonsense"], "line 1 is not JSON"),
        (['{"format": "agentkit-memory", "version": 99}'], "pip install --upgrade"),
        (['{"format": "agentkit-memory", "version": 1}', '{"record": {"kind": "a"}}'], "line 2"),
        (['{"format": "agentkit-memory", "version": 1}', '{"record": {"kind": "a", "text": "b", "z": 1}}'], "field z"),
        (['{"format": "agentkit-memory", "version": 1}', "[]"], "line 2 is not a JSON object"),
    ],
)
def test_a_bad_import_names_the_line_and_adds_nothing(
    memory: Memory, tmp_path: Path, lines: list[str], message: str
) -> None:
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    with pytest.raises(InvalidValue, match=message):
        memory.import_jsonl(tmp_path / "bad.jsonl")
    assert memory.seq == 0


@pytest.mark.parametrize("field", ["importance", "outcome", "time"])
@pytest.mark.parametrize("value", ["high", float("nan")])
def test_what_is_no_number_is_refused_before_it_is_written(memory: Memory, field: str, value: Any) -> None:
    with pytest.raises(InvalidValue, match=f"{field} is {value!r}; it must be a number"):
        memory.add(Record("step", "x", **{field: value}))
    assert memory.seq == 0
    memory.add(Record("step", "y", outcome=np.float32(0.5)))  # type: ignore[arg-type]
    assert [r.outcome for r in memory.records()] == [0.5]


def test_vectors_are_checked(memory: Memory) -> None:
    with pytest.raises(InvalidValue, match=r"\(1, 64\) is needed"):
        memory.add(Record("step", "x"), np.ones(3))
    with pytest.raises(InvalidValue, match="finite"):
        memory.add(Record("step", "x"), np.full(64, np.nan))
    assert memory.seq == 0


def test_rendering_keeps_within_the_budget(memory: Memory) -> None:
    memory.add(Record("lesson", "short one"))
    memory.add(Record("lesson", "a much longer lesson " * 10))
    memory.add(Record("lesson", "short two"))
    found = [Recalled(r, 1.0, 1.0) for r in memory.records()]
    text, ids = render(found, 5, lambda t: len(t.split()))
    assert text == "- short one"
    assert ids == (1,)
    text, ids = render(found, 6, lambda t: len(t.split()))
    assert text == "- short one\n- short two"
    assert ids == (1, 3)
    assert render(found, 0) == ("", ())
