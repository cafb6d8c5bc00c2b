"""The contract tests that are shipped: what keeps the contract passes, and each breach is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import ContractError
from agentkit.memory import Memory, Record
from agentkit.testing import HashingEmbedder, ScriptedLLM, check_llm, check_memory
from agentkit.types import Completion, Request, Scores, Usage


def scripted() -> ScriptedLLM:
    return ScriptedLLM(lambda r: f"{r.messages[0].content} {r.seed}", scorer=lambda r: [-1.0] * len(r.choices or ()))


def test_the_scripted_model_keeps_the_contract() -> None:
    check_llm(scripted(), deterministic=True)
    check_llm(ScriptedLLM(["one"] * 50))


class Wraps:
    """A model of which one answer is put wrong."""

    name = "wrong"

    def __init__(self, **wrong: Any) -> None:
        self.inner, self.wrong = scripted(), wrong
        self.calls = 0

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.calls += 1
        answers = self.inner.generate(requests)
        if "fewer" in self.wrong:
            return answers[:-1]
        if "one_sample" in self.wrong:
            return [a[:1] for a in answers]
        if "drifts" in self.wrong:
            return [[replace(c, text=f"{c.text} {self.calls}") for c in a] for a in answers]
        return [[replace(c, **self.wrong) for c in a] for a in answers]


class WrapsScores(Wraps):
    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        return self.inner.generate(requests)

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        return [replace(s, **self.wrong) for s in self.inner.score(requests)]


@pytest.mark.parametrize(
    ("llm", "contract"),
    [
        (Wraps(fewer=True), "requests had"),
        (Wraps(one_sample=True), "gave 1 completions"),
        (Wraps(drifts=True), "asked together and one by one"),
        (Wraps(finish_reason="eos"), "finish_reason"),
        (Wraps(request_hash=""), "hash"),
        (Wraps(usage=Usage()), "count 0 calls"),
        (WrapsScores(logprobs=(-1.0,)), "every choice"),
        (WrapsScores(logprobs=(0.5, -1.0, -1.0)), "at most 0"),
        (WrapsScores(lengths=(0, 1, 1)), "at least one token"),
    ],
    ids=lambda v: str(v.wrong) if isinstance(v, Wraps) else "",
)
def test_a_model_that_breaks_the_contract_is_found(llm: Any, contract: str) -> None:
    with pytest.raises(ContractError, match=contract):
        check_llm(llm, deterministic=True)


def test_a_memory_in_a_file_and_one_that_is_not_kept_keep_the_contract(tmp_path: Path) -> None:
    check_memory(Memory)
    made: list[Path] = []

    def make() -> Memory:
        made.append(tmp_path / f"{len(made)}.db")
        return Memory(made[-1], embedder=HashingEmbedder(64))

    check_memory(make)
    assert len(made) > 3


class Forgets(Memory):
    def add_many(self, records: Any, vectors: Any = None) -> list[int]:
        return super().add_many(list(records)[:1], vectors)


class SeesTheFuture(Memory):
    def recall(self, query: Any, k: int = 5, **options: Any) -> Any:
        return super().recall(query, k, **{**options, "as_of": None})


class IgnoresFilters(Memory):
    def recall(self, query: Any, k: int = 5, **options: Any) -> Any:
        return super().recall(query, k, **{**options, "where": None})


class KeepsRemoved(Memory):
    def remove(self, ids: Any, *, reason: str = "") -> None:
        self.credit([], 0.0)


class RepeatsTokens(Memory):
    def transaction(self, token: str = "") -> Any:
        return super().transaction("")


class NeverCredits(Memory):
    def utility(self, id_: int, *, as_of: int | None = None) -> float:
        return 0.0


class LosesData(Memory):
    def get(self, id_: int, *, as_of: int | None = None) -> Record:
        return replace(super().get(id_, as_of=as_of), data={})


class NewIds(Memory):
    def edit(self, id_: int, **changes: Any) -> None:
        self.add(replace(self.get(id_), **changes))


class Worst(Memory):
    def recall(self, query: Any, k: int = 5, **options: Any) -> Any:
        return super().recall(query, k, **options)[::-1]


class WontGoBack(Memory):
    def rollback(self, seq: int) -> None:
        self.credit([], 0.0)


@pytest.mark.parametrize(
    "broken",
    [
        Forgets,
        SeesTheFuture,
        IgnoresFilters,
        KeepsRemoved,
        RepeatsTokens,
        NeverCredits,
        LosesData,
        NewIds,
        Worst,
        WontGoBack,
    ],
)
def test_a_memory_that_breaks_the_contract_is_found(broken: type[Memory]) -> None:
    with pytest.raises(ContractError, match="the memory breaks its contract"):
        check_memory(broken)
