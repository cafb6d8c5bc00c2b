"""Every model call, charged to the run's budget and reported to its log.

The runner says where both are, for its own thread, and the wrapped models find them::

    with metered(ledger=Ledger(tokens=10_000), sink=calls, purpose="act"):
        instrument(llm).generate([request])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from agentkit.errors import AgentkitError
from agentkit.llm.base import LLM, ScoringLLM
from agentkit.llm.hashing import identity, request_hash
from agentkit.llm.ledger import Ledger, Reservation, reservation
from agentkit.llm.remote import answer_tokens, prompt_bytes
from agentkit.types import Completion, Request, Scores, Usage

__all__ = ["Call", "Ledger", "Reservation", "instrument", "metered", "note_cache"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model and what came of it.

    ``kind`` is ``"generate"`` or ``"score"``; ``cache`` is ``""``, ``"prefix"`` (a part of the prompt was not computed
    again), ``"kept"`` (the whole answer was known) or ``"replay"``; ``error`` is empty where there is an answer.
    """

    purpose: str
    model: str
    kind: str
    request_hash: str
    request: Request
    completions: tuple[Completion, ...] = ()
    scores: Scores | None = None
    usage: Usage = field(default_factory=Usage)
    cache: str = ""
    error: str = ""


Sink = MutableSequence[Call] | Callable[[Call], object]


@dataclass(frozen=True, slots=True)
class _Meter:
    ledger: Ledger | None = None
    sink: Sink | None = None
    purpose: str = ""


_meter: ContextVar[_Meter] = ContextVar("agentkit_meter", default=_Meter())  # noqa: B039 -- frozen
_caches: ContextVar[dict[str, str] | None] = ContextVar("agentkit_caches", default=None)


@contextmanager
def metered(ledger: Ledger | None = None, sink: Sink | None = None, purpose: str | None = None) -> Iterator[None]:
    """Within the block, and in this thread, instrumented models charge ``ledger`` and report to ``sink``.

    What is not given stays as it was outside, so that an inner block can name another ``purpose`` alone.
    """
    outer = _meter.get()
    inner = _Meter(
        outer.ledger if ledger is None else ledger,
        outer.sink if sink is None else sink,
        outer.purpose if purpose is None else purpose,
    )
    token = _meter.set(inner)
    try:
        yield
    finally:
        _meter.reset(token)


def note_cache(key: str, state: str) -> None:
    """Said by a wrapper below, within a call: the request of hash ``key`` was answered from ``state``."""
    states = _caches.get()
    if states is not None:
        states[key] = state


def instrument(llm: LLM) -> LLM:
    """``llm`` with its calls charged and reported. A model that can score still can; instrumenting twice is once."""
    if isinstance(llm, _Metered):
        return llm
    return _MeteredScoring(llm) if isinstance(llm, ScoringLLM) else _Metered(llm)


class _Metered:
    def __init__(self, inner: LLM) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def identity(self) -> str:
        return identity(self.inner)

    def identity_of(self, request: Request) -> str:
        return identity(self.inner, request)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        with _Report(self, "generate", requests) as report:
            answers = self.inner.generate(requests)
            report.done([(tuple(a), None, sum((c.usage for c in a), Usage())) for a in answers])
        return answers

    def bounds(self, kind: str, requests: Sequence[Request], ledger: Ledger) -> tuple[int, float]:
        """The most tokens and dollars that ``requests`` can cost, as far as ``ledger`` limits either."""
        if ledger.tokens is None and ledger.usd is None:
            return 0, 0.0
        prices: Callable[[], tuple[float, float]] | None = getattr(self.inner, "prices", None)
        per_prompt, per_answer = prices() if prices is not None and ledger.usd is not None else (0.0, 0.0)
        per_sample = kind == "generate" and getattr(self.inner, "reads_prompt_per_sample", False)
        prompts = sum(self._prompt_bound(r) * (r.n if per_sample else 1) for r in requests)
        answers = sum(r.n * answer_tokens(r) for r in requests) if kind == "generate" else 0
        return prompts + answers, per_prompt * prompts + per_answer * answers

    def _prompt_bound(self, request: Request) -> int:
        count: Callable[[Sequence[Any]], int] | None = getattr(self.inner, "count_tokens", None)
        if count is None:
            return prompt_bytes(request)
        return count(request.messages) + sum(len(choice.encode()) for choice in request.choices or ())


class _MeteredScoring(_Metered):
    def score(self, requests: Sequence[Request]) -> list[Scores]:
        assert isinstance(self.inner, ScoringLLM)
        with _Report(self, "score", requests) as report:
            scores = self.inner.score(requests)
            report.done([((), s, s.usage) for s in scores])
        return scores


class _Report:
    """Holds the reservation of one call, and writes its `Call`s when it ends, well or badly."""

    def __init__(self, llm: _Metered, kind: str, requests: Sequence[Request]) -> None:
        self.llm, self.kind, self.requests = llm, kind, requests
        self.meter = _meter.get()
        self.results: list[tuple[tuple[Completion, ...], Scores | None, Usage]] = []

    def __enter__(self) -> _Report:
        ledger = self.meter.ledger
        self._held = None if ledger is None else ledger.reserve(*self.llm.bounds(self.kind, self.requests, ledger))
        self._reservation = None if self._held is None else self._held.__enter__()
        self._tokens = _caches.set({}), reservation.set(self._reservation)
        return self

    def done(self, results: list[tuple[tuple[Completion, ...], Scores | None, Usage]]) -> None:
        self.results = results
        if self._reservation is not None:
            self._reservation.settle(sum((usage for _, _, usage in results), Usage()))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        wasted: Usage | None = getattr(error, "usage", None)  # an answer that was paid for and is of no use
        if wasted is not None and self._reservation is not None:
            self._reservation.settle(wasted)
        caches = _caches.get() or {}
        _caches.reset(self._tokens[0])
        reservation.reset(self._tokens[1])
        if self._held is not None:
            # The reservation ends the same way whatever happened; what it did cost is in `settle`.
            self._held.__exit__(None, None, None)
        if self.meter.sink is None or (error is not None and not isinstance(error, AgentkitError)):
            return
        report = self.meter.sink.append if isinstance(self.meter.sink, MutableSequence) else self.meter.sink
        nothing = [((), None, wasted if wasted is not None and i == 0 else Usage()) for i in range(len(self.requests))]
        results = self.results or nothing
        for request, (completions, scores, usage) in zip(self.requests, results, strict=True):
            key = request_hash(self.llm.identity_of(request), request, self.kind)
            cache = caches.get(key, "")
            if not cache and usage.cached_tokens:
                cache = "kept" if usage.cached_tokens == usage.prompt_tokens else "prefix"
            call = Call(self.meter.purpose, self.llm.name, self.kind, key, request, completions, scores, usage, cache)
            report(call if error is None else replace(call, error=f"{type(error).__name__}: {error}"))
