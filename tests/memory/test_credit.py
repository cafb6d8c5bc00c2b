"""Credit: the estimator against its formula, and against a simulation where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from agentkit.memory import HashingEmbedder, Memory, Record

EMBEDDER = HashingEmbedder(16)


def test_the_formula_by_hand() -> None:
    with Memory(embedder=EMBEDDER) as memory:
        a, b = memory.add_many([Record("lesson", "a"), Record("lesson", "b")])
        assert memory.credit_of([a])[0].uses == 0
        for ids, outcome in (([a], 1.0), ([a, b], 1.0), ([b], 0.0), ([], 0.0)):
            memory.credit(ids, outcome, task="t")
        (credit,) = memory.credit_of([a])
        # held twice, mean 1; not held twice, mean 0, pulled by one pseudo-episode at the mean 0 of the others
        weight = 2 * 3 / 5
        assert credit.utility == pytest.approx(weight * 1.0 / (weight + 2.0))
        # within the group: squares about the mean 1/2 are 1; two pseudo-outcomes of 1/4 each; 3 + 2 degrees
        assert credit.deviation == pytest.approx(np.sqrt(1.5 / 5) / np.sqrt(weight + 2.0))
        assert (credit.uses, credit.controls) == (2, 2)
        assert memory.utility(b) == pytest.approx(0.0 - (weight * 0.0))


def test_a_hard_task_does_not_blame_its_records() -> None:
    with Memory(embedder=EMBEDDER) as memory:
        a, b = memory.add_many([Record("lesson", "used on the hard task"), Record("lesson", "on the easy one")])
        for _ in range(20):
            for task, record, outcome in (("hard", a, 0.0), ("easy", b, 1.0)):
                memory.credit([record], outcome, task=task)
                memory.credit([], outcome, task=task)
        assert abs(memory.utility(a)) < 0.1
        assert abs(memory.utility(b)) < 0.1


def test_only_those_that_could_have_used_it_are_compared() -> None:
    with Memory(embedder=EMBEDDER) as memory:
        memory.credit([], 1.0)  # before the record was there
        a = memory.add(Record("lesson", "late"))
        memory.credit([a], 1.0)
        memory.credit([], 0.0)
        memory.credit([], 1.0, eligible=[])  # it says that nothing could have been used
        memory.credit([], 0.0, eligible=[a])
        assert memory.credit_of([a])[0].controls == 2


def test_what_is_harmful_is_quarantined_reported_and_let_out_again() -> None:
    with Memory(embedder=EMBEDDER) as memory:
        bad, good = memory.add_many(
            [Record("lesson", "press the red button"), Record("lesson", "press the green button")]
        )
        for _ in range(10):
            memory.credit([bad], 0.0, task="t")
            memory.credit([good], 1.0, task="t")
        worst = memory.seq
        assert [r.record.id for r in memory.recall("press the red button")] == [good]
        assert len(memory.recall("press the red button", quarantined=True)) == 2
        ((record, credit),) = memory.quarantined()
        assert (record.id, credit.utility < 0, credit.uses) == (bad, True, 10)
        assert memory.recall("press the red button", as_of=2)[0].record.id == bad
        for _ in range(60):
            memory.credit([bad], 1.0, task="t")
        assert memory.quarantined() == []
        assert len(memory.recall("press the red button")) == 2
        assert memory.quarantined(as_of=worst)[0][0].id == bad


def test_useful_useless_and_harmful_are_told_apart() -> None:
    """The error rates that docs/memory.md states: 3 kinds of 20 records, 3 held by each of 1,000 episodes on 4 tasks of
    different difficulty, so about 50 uses each; a useful record adds 0.2 to the chance of success, a harmful one takes
    0.2; 10 worlds."""
    caught = blamed_useless = blamed_useful = ordered = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        effect = np.repeat([0.2, 0.0, -0.2], 20)
        with Memory(embedder=EMBEDDER) as memory:
            memory.add_many([Record("lesson", str(i)) for i in range(60)], np.ones((60, 16)))
            with memory.transaction():
                for _ in range(1000):
                    task = int(rng.integers(4))
                    held = rng.choice(60, 3, replace=False)
                    chance = np.clip(0.3 + 0.1 * task + effect[held].sum(), 0.0, 1.0)
                    memory.credit((held + 1).tolist(), float(rng.random() < chance), task=str(task))
            utility = np.array([c.utility for c in memory.credit_of(range(1, 61))])
            harmful = np.zeros(60, bool)
            harmful[[record.id - 1 for record, _ in memory.quarantined()]] = True
        caught += int(harmful[40:].sum())
        blamed_useless += int(harmful[20:40].sum())
        blamed_useful += int(harmful[:20].sum())
        ordered += int((utility[:20, None] > utility[None, 40:]).sum())
    print(
        f"caught {caught}/200, useless blamed {blamed_useless}/200, useful blamed {blamed_useful}/200, order {ordered}/4000"
    )
    assert caught >= 120
    assert blamed_useless <= 8
    assert blamed_useful == 0
    assert ordered >= 3960
