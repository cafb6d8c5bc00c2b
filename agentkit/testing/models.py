"""For tests of agents: a model whose answers are given. For tests of model backends: what any backend must do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from agentkit.errors import ContractError
from agentkit.llm.base import LLM, ScoringLLM
from agentkit.llm.errors import Unsupported
from agentkit.llm.scripted import ScriptedLLM
from agentkit.types import Message, Request

__all__ = ["ScriptedLLM", "check_llm"]


def check_llm(llm: LLM, *, deterministic: bool = False) -> None:
    """Check that ``llm`` keeps the contract of `LLM`, and of `ScoringLLM` where it has ``score``.

    ``deterministic`` says that the same request with a seed has the same answer, whatever else is asked at the same
    time. Raises `ContractError` with the first breach. Makes about ten short calls.
    """
    _require(bool(llm.name), "a model has a name")
    requests = [_request(f"Say the number {i}.", seed=i, max_tokens=8, n=1 + i % 2) for i in range(3)]
    answers = llm.generate(requests)
    _require(len(answers) == len(requests), f"{len(requests)} requests had {len(answers)} answers")
    for request, completions in zip(requests, answers, strict=True):
        _require(len(completions) == request.n, f"n={request.n} gave {len(completions)} completions")
        for completion in completions:
            _require(isinstance(completion.text, str), "a completion has a text")
            _require(
                completion.finish_reason in ("stop", "length", "refused"),
                f"finish_reason is {completion.finish_reason!r}",
            )
            _require(bool(completion.request_hash), "a completion names the hash of its request")
        total = sum(c.usage.calls for c in completions)
        _require(total == 1, f"the completions of one request count {total} calls")
    _require(llm.generate([]) == [], "no requests have no answers")
    if deterministic:
        with ThreadPoolExecutor(3) as pool:
            alone = [a[0] for a in pool.map(llm.generate, [[r] for r in requests])]
        texts = [[c.text for c in completions] for completions in answers]
        again = [[c.text for c in completions] for completions in alone]
        _require(texts == again, f"the same requests, asked together and one by one, gave {texts} and {again}")
    if isinstance(llm, ScoringLLM):
        _check_score(llm)


def _check_score(llm: ScoringLLM) -> None:
    choices = ("yes", "no", "perhaps later")
    request = _request("Is water wet?", choices=choices)
    try:
        (scores,) = llm.score([request])
    except Unsupported:  # it says itself that it cannot
        return
    _require(len(scores.logprobs) == len(scores.lengths) == len(choices), "every choice has a score and a length")
    _require(all(value <= 0 for value in scores.logprobs), f"log-probabilities are at most 0: {scores.logprobs}")
    _require(all(n >= 1 for n in scores.lengths), f"a choice has at least one token: {scores.lengths}")
    (again,) = llm.score([request])
    _require(again.logprobs == scores.logprobs, "the same request is scored the same")


def _request(text: str, **options: object) -> Request:
    return Request((Message("user", text),), **options)  # type: ignore[arg-type]


def _require(kept: bool, contract: str) -> None:
    if not kept:
        raise ContractError(contract)
