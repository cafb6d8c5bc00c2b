"""What agents need of a memory beyond storing: scorers, diversity, forgetting, merging, consolidation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest

from agentkit.errors import InvalidValue, UnknownName
from agentkit.memory import HashingEmbedder, Memory, Record, Weighted, Where

EMBEDDER = HashingEmbedder(64)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory(embedder=EMBEDDER) as opened:
        yield opened


def ids(found: Iterable[object]) -> list[int]:
    return [r.record.id for r in found]  # type: ignore[attr-defined]


def test_each_weight_moves_the_order_its_way(memory: Memory) -> None:
    old, new = memory.add_many(
        [
            Record("step", "open the red door", importance=0.9, time=1.0),
            Record("step", "open the red door", importance=0.1, time=2.0),
        ]
    )
    assert ids(memory.recall("red door")) == [old, new]
    assert ids(memory.recall("red door", scorer=Weighted(recency=1.0))) == [new, old]
    assert ids(memory.recall("red door", scorer=Weighted(recency=1.0, by_time=True, half_life=1.0))) == [new, old]
    assert ids(memory.recall("red door", scorer=Weighted(recency=1.0, importance=2.0))) == [old, new]
    memory.credit([new], 1.0)
    memory.credit([old], 0.0)
    assert ids(memory.recall("red door", scorer=Weighted(utility=1.0))) == [new, old]
    assert ids(memory.recall("red door", scorer=Weighted(utility=-1.0))) == [old, new]


def test_recency_follows_its_half_life(memory: Memory) -> None:
    memory.add_many([Record("step", "same", time=t) for t in (0.0001, 10.0, 20.0)])
    found = memory.recall("same", 3, scorer=Weighted(relevance=0.0, recency=1.0, by_time=True, half_life=10.0))
    # 1/4, 1/2 and 1, scaled to [0, 1]
    assert [r.score for r in found] == pytest.approx([1.0, 1 / 3, 0.0], abs=1e-3)


def test_diversity_does_not_recall_the_same_ten_times(memory: Memory) -> None:
    memory.add_many([Record("step", "take the key from the drawer")] * 8)
    other = memory.add(Record("step", "the key opens the cellar door"))
    assert other not in ids(memory.recall("take the key", 3))
    found = memory.recall("take the key", 3, diversity=0.7)
    assert ids(found)[:2] == [1, other]
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    assert ids(memory.recall("take the key", 3, diversity=0.0)) == [1, 2, 3]
    with pytest.raises(InvalidValue, match="between 0 and 1"):
        memory.recall("x", diversity=2.0)


def test_hierarchical_recall_goes_from_episodes_to_their_steps(memory: Memory) -> None:
    for name, summary, steps in (
        ("e1", "cooked a meal in the kitchen", ["take the pan", "fry the egg"]),
        ("e2", "watered the plants in the garden", ["take the can", "water the rose", "take the pan"]),
    ):
        memory.add(Record("episode", summary, episode=name))
        memory.add_many([Record("step", s, episode=name, step=i) for i, s in enumerate(steps)])
    ((episode, steps_found),) = memory.recall_within("a meal cooked in the kitchen", 1, 5)
    assert episode.record.episode == "e1"
    assert {r.record.text for r in steps_found} == {"take the pan", "fry the egg"}
    assert len(memory.at(3).recall_within("kitchen", 2, 5)) == 1


def test_writing_what_is_known_gives_the_known_id(memory: Memory) -> None:
    first, new = memory.add_unless_known(Record("lesson", "keys open doors", task="a"))
    assert new
    assert memory.add_unless_known(Record("lesson", "Keys open doors", task="a"), 0.9) == (first, False)
    second, new = memory.add_unless_known(Record("lesson", "keys open doors", task="b"))
    assert new
    assert second != first
    assert memory.add_unless_known(Record("lesson", "plants need water", task="a"))[1]


def test_merging_keeps_the_one_that_was_used(memory: Memory) -> None:
    a, b, c = memory.add_many(
        [
            Record("lesson", "one", outcome=0.0, importance=0.1),
            Record("lesson", "two", outcome=1.0, importance=0.9, data={"x": 1}),
            Record("lesson", "three"),
        ]
    )
    memory.credit([b], 1.0)
    worth = memory.utility(b)
    assert memory.merge([a, b, c], text="one, two, three") == b
    (record,) = memory.records()
    assert (record.text, record.outcome, record.importance) == ("one, two, three", 0.5, 0.9)
    assert record.data == {"x": 1, "merged": [a, c]}
    assert memory.utility(b) == worth
    with pytest.raises(InvalidValue, match="two or more"):
        memory.merge([b])


def test_forgetting_by_age_and_by_use(memory: Memory) -> None:
    made = memory.add_many([Record("step", f"word{i}", importance=i / 10) for i in range(6)])
    memory.credit([made[0]], 1.0)
    memory.credit([made[5]], 0.0)
    assert memory.forget(4, "oldest", dry_run=True) == made[:2]
    assert len(memory) == 6
    assert memory.forget(4, "least_useful") == [made[5], made[1]]
    assert memory.forget(99, "oldest") == []
    assert memory.forget(1, "oldest", where=Where(min_outcome=0.0)) == []
    assert memory.at(6).count() == 6
    with pytest.raises(UnknownName, match="least_useful"):
        memory.forget(1, "least_usefull")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="-1"):
        memory.forget(-1, "oldest")


def test_the_reservoir_keeps_each_record_as_likely_as_any_other() -> None:
    kept = np.zeros(40)
    for seed in range(400):
        with Memory(embedder=EMBEDDER) as memory:
            for _ in range(4):  # forgetting again and again changes nothing about the odds
                memory.add_many([Record("step", "x")] * 10, np.ones((10, 64)))
                memory.forget(10, "reservoir", seed=seed)
            for record in memory.records():
                kept[_order(record.id)] += 1
    # 400 draws of a chance of 1/4: 100 each, with a standard deviation of 8.7
    assert kept.sum() == 4000
    assert abs(kept - 100).max() < 5 * 8.7


def _order(id_: int) -> int:
    """Which of the 40 it was: ids 1 to 10, then 10 more after each 10 removals."""
    return [*range(1, 11), *range(11, 21), *range(31, 41), *range(51, 61)].index(id_)


def test_forgetting_the_redundant_keeps_one_of_each(memory: Memory) -> None:
    for text in ("red apple pie", "deep blue sea", "old stone bridge"):
        memory.add_many([Record("step", text)] * 4)
    memory.credit([6], 1.0)
    gone = memory.forget(3, "most_redundant")
    assert len(gone) == 9
    left = memory.records()
    assert [r.text for r in left] == ["red apple pie", "deep blue sea", "old stone bridge"]
    assert left[1].id == 6
    assert (
        memory.forget(0, "most_redundant") == [r for r in (4, 6, 12) if r in {x.id for x in left}] or len(memory) == 0
    )


def test_consolidation_keeps_the_evidence_and_is_not_repeated(memory: Memory) -> None:
    made = memory.add_many([Record("episode", f"try {i}", task="a" if i < 4 else "b") for i in range(6)])
    given: list[list[int]] = []

    def reflect(records: Sequence[Record]) -> list[Record]:
        given.append([r.id for r in records])
        return [Record("lesson", f"learned from {len(records)}", task=records[0].task)]

    (lesson,) = memory.consolidate(reflect, where=Where(kinds="episode"))
    assert given == [made[:4]]
    assert memory.get(lesson).data == {"evidence": made[:4]}
    assert [memory.get(i).text for i in made] == [f"try {i}" for i in range(6)]
    assert memory.consolidate(reflect, where=Where(kinds="episode")) == []
    memory.add(Record("episode", "try 6", task="b"))
    assert len(memory.consolidate(reflect, where=Where(kinds="episode"))) == 1


def test_columns_hold_what_is_current(memory: Memory) -> None:
    memory.add_many([Record("step", "a", task="t1", outcome=1.0), Record("lesson", "b", task="t2")])
    memory.edit(1, task="t3")
    columns = memory.columns()
    assert columns["id"].tolist() == [1, 2]
    assert columns["kind"].tolist() == ["step", "lesson"]
    assert columns["task"].tolist() == ["t3", "t2"]
    assert np.isnan(columns["outcome"]).tolist() == [False, True]
    assert memory.columns(Where(kinds="step"), as_of=2)["task"].tolist() == ["t1"]
