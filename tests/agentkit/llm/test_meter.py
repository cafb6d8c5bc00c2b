"""The budget and the call log, with a scripted model and real threads."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentkit.errors import BudgetExceeded, InvalidValue
from agentkit.llm import Call, Ledger, ScoringLLM, ScriptedLLM, instrument, metered
from agentkit.llm.errors import ModelError
from agentkit.types import Message, Request, Usage


def request(text: str = "go on", **options: object) -> Request:
    return Request((Message("user", text),), **options)  # type: ignore[arg-type]


def test_a_budget_of_10_000_tokens_holds_with_64_workers() -> None:
    words = random.Random(1)
    answers = [" ".join("w" for _ in range(words.randint(1, 50))) for _ in range(5000)]
    llm = instrument(ScriptedLLM(lambda r: answers[int(r.messages[0].content.split()[-1])]))
    ledger = Ledger(tokens=10_000)
    calls: list[Call] = []
    most = 0

    def work(worker: int) -> int:
        nonlocal most
        done = 0
        with metered(ledger=ledger, sink=calls, purpose="act"):
            for k in range(70):
                try:
                    llm.generate([request(f"step {worker * 70 + k}", max_tokens=50)])
                except BudgetExceeded:
                    return done
                most = max(most, ledger.spent.tokens)
                done += 1
        return done

    with ThreadPoolExecutor(64) as pool:
        done = sum(pool.map(work, range(64)))
    # The last call needed at most 52 tokens, so that is the most that may be left.
    assert 10_000 - 52 < ledger.spent.tokens <= 10_000
    assert most <= 10_000
    answered = [call for call in calls if not call.error]
    assert len(answered) == done
    assert sum(call.usage.tokens for call in answered) == ledger.spent.tokens
    assert all("BudgetExceeded" in call.error for call in calls if call.error)


def test_a_call_in_flight_is_reserved_and_another_waits_for_it() -> None:
    started, finish = threading.Event(), threading.Event()

    def answer(r: Request) -> str:
        if r.messages[0].content == "slow":
            started.set()
            assert finish.wait(20)
        return "done"

    llm = instrument(ScriptedLLM(answer))
    ledger = Ledger(tokens=100)
    order: list[str] = []

    def ask(text: str, max_tokens: int) -> None:
        with metered(ledger=ledger):
            llm.generate([request(text, max_tokens=max_tokens)])
        order.append(text)

    slow = threading.Thread(target=ask, args=("slow", 90))
    slow.start()
    assert started.wait(20)
    fast = threading.Thread(target=ask, args=("fast", 50))
    fast.start()
    assert order == []
    finish.set()
    slow.join(20)
    fast.join(20)
    assert sorted(order) == ["fast", "slow"]
    assert ledger.spent.tokens == 4


def test_dollars_and_seconds_end_too() -> None:
    with pytest.raises(BudgetExceeded, match=r"\$"), Ledger(usd=0.01).reserve(0, 0.02):
        pass
    with pytest.raises(BudgetExceeded, match="seconds"), Ledger(seconds=0).reserve(1):
        pass
    with pytest.raises(InvalidValue):
        Ledger(tokens=-1)
    resumed = Ledger(tokens=10, spent=Usage(prompt_tokens=8))
    with pytest.raises(BudgetExceeded), resumed.reserve(3):
        pass
    assert not resumed.exhausted
    with resumed.reserve(2) as held:
        held.settle(Usage(completion_tokens=2))
    assert resumed.exhausted


def test_a_failed_call_is_reported_and_gives_its_reservation_back() -> None:
    def answer(r: Request) -> str:
        raise ModelError("no answer")

    ledger, calls = Ledger(tokens=20), list[Call]()
    llm = instrument(ScriptedLLM(answer))
    for _ in range(5):
        with metered(ledger=ledger, sink=calls), pytest.raises(ModelError):
            llm.generate([request(max_tokens=15)])
    assert ledger.spent.tokens == 0
    assert [call.error for call in calls] == ["ModelError: no answer"] * 5


def test_calls_are_reported_to_the_thread_that_made_them() -> None:
    llm = instrument(ScriptedLLM(lambda r: r.messages[0].content, scorer=lambda r: [-1.0, -2.0]))
    assert instrument(llm) is llm
    assert isinstance(llm, ScoringLLM)
    calls: list[Call] = []
    with metered(sink=calls.append, purpose="act"):
        llm.generate([request("a", n=2), request("b")])
        with metered(purpose="judge"):
            llm.score([request("c", choices=("x", "y"))])
        thread = threading.Thread(target=llm.generate, args=([request("elsewhere")],))
        thread.start()
        thread.join(20)
    llm.generate([request("later")])
    assert [(c.purpose, c.kind, c.request.messages[0].content) for c in calls] == [
        ("act", "generate", "a"),
        ("act", "generate", "b"),
        ("judge", "score", "c"),
    ]
    assert [c.text for c in calls[0].completions] == ["a", "a"]
    assert calls[0].completions[0].request_hash == calls[0].request_hash
    assert calls[2].scores is not None
    assert calls[2].scores.request_hash == calls[2].request_hash
    assert calls[0].usage == Usage(prompt_tokens=1, completion_tokens=2, calls=1)


def test_a_model_that_cannot_score_still_cannot() -> None:
    class Plain:
        name = "plain"

        def generate(self, requests: object) -> list[object]:
            return []

    assert not isinstance(instrument(Plain()), ScoringLLM)  # type: ignore[arg-type]
