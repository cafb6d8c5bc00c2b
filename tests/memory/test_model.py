"""The store against a simple model of it, under random sequences of what can be done to it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentkit.memory import Memory, Record, Where

WORDS = [f"w{i}" for i in range(6)]
TASKS = ["a", "b"]


class Coarse:
    """Few different vectors, so that equal scores are common."""

    name, dim = "coarse", 4

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        block = np.array([[1.0 + (int(t[1:]) >> bit & 1) for bit in range(4)] for t in texts], np.float32)
        block = block.reshape(len(texts), 4)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        return block


EMBEDDER = Coarse()
State = tuple[dict[int, tuple[str, str]], list[tuple[str, float, frozenset[int]]]]


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "m.db"
        self.memory = Memory(self.path, embedder=EMBEDDER)
        self.states: list[State] = [({}, [])]  # by sequence number

    def teardown(self) -> None:
        self.memory.close()
        self.folder.cleanup()

    def step(self) -> State:
        records, credits = self.states[-1]
        self.states.append((dict(records), list(credits)))
        return self.states[-1]

    def known(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.states[-1][0])))

    @rule(texts=st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(TASKS)), min_size=1, max_size=4))
    def add(self, texts: list[tuple[str, str]]) -> None:
        ids = self.memory.add_many([Record("step", text, task=task) for text, task in texts])
        for id_, item in zip(ids, texts, strict=True):
            self.step()[0][id_] = item
            assert id_ == len(self.states) - 1

    @precondition(lambda self: self.states[-1][0])
    @rule(data=st.data(), text=st.sampled_from(WORDS))
    def edit(self, data: st.DataObject, text: str) -> None:
        id_ = self.known(data)
        self.memory.edit(id_, text=text)
        records, _ = self.step()
        records[id_] = (text, records[id_][1])

    @precondition(lambda self: self.states[-1][0])
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        id_ = self.known(data)
        self.memory.remove(id_)
        del self.step()[0][id_]

    @precondition(lambda self: self.states[-1][0])
    @rule(data=st.data(), outcome=st.sampled_from([0.0, 1.0]))
    def credit(self, data: st.DataObject, outcome: float) -> None:
        ids = data.draw(st.sets(st.sampled_from(sorted(self.states[-1][0])), max_size=3))
        episode = f"e{len(self.states)}"
        self.memory.credit(ids, outcome, episode=episode)
        self.step()[1].append((episode, outcome, frozenset(ids)))

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(0, len(self.states) - 1))
        self.memory.rollback(seq)
        records, credits = self.states[seq]
        self.states.append((dict(records), list(credits)))

    @rule(text=st.sampled_from(WORDS))
    def transaction(self, text: str) -> None:
        with self.memory.transaction():
            new = self.memory.add(Record("step", text, task="a"))
            self.memory.credit([new], 1.0, episode="in")
        records, _ = self.step()
        id_ = len(self.states) - 1
        records[id_] = (text, "a")
        self.step()[1].append(("in", 1.0, frozenset([id_])))

    @rule()
    def reopen(self) -> None:
        self.memory.close()
        self.memory = Memory(self.path, embedder=EMBEDDER)

    @rule(data=st.data(), word=st.sampled_from(WORDS), k=st.integers(1, 5), task=st.sampled_from([None, *TASKS]))
    def read(self, data: st.DataObject, word: str, k: int, task: str | None) -> None:
        seq = data.draw(st.integers(0, len(self.states) - 1))
        records, credits = self.states[seq]
        view = self.memory.at(seq)
        assert {r.id: (r.text, r.task) for r in view.records()} == records
        assert [(e.episode, e.outcome, e.ids) for e in self.memory.credits(as_of=seq)] == credits
        allowed = sorted(i for i, item in records.items() if task in (None, item[1]))
        query = EMBEDDER.embed([word])[0].astype(np.float64)
        scores = {i: float(np.clip((EMBEDDER.embed([records[i][0]])[0] * query).sum(), -1, 1)) for i in allowed}
        best = sorted(allowed, key=lambda i: (-scores[i], i))[:k]
        found = view.recall(word, k, where=Where(task=task))
        assert [r.record.id for r in found] == best
        assert [r.relevance for r in found] == [scores[i] for i in best]

    @invariant()
    def the_number_is_the_count_of_events(self) -> None:
        assert self.memory.seq == len(self.states) - 1


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
