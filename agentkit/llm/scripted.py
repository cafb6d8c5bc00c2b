"""A model whose answers are given: for tests, for teaching, and for trying an agent's plumbing."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence

from agentkit.errors import InvalidValue
from agentkit.llm.errors import ModelError, Unsupported
from agentkit.llm.hashing import request_hash
from agentkit.types import Completion, Request, Scores, Usage

Answers = Sequence[str] | Callable[[Request], str | Sequence[str]]


class ScriptedLLM:
    """Answers from a list, in the order of the calls, or from a callable.

    A list is used up answer by answer (``n`` at once for a request of n samples); past its end, `ModelError`. A
    callable maps a request to its answer, or to a list of ``n`` answers; with many threads it is the one whose results
    do not depend on their order. ``scorer`` maps a request to the log-probabilities of its choices. Words are its
    tokens, in usage and for ``max_tokens``.
    ``requests`` are those seen so far.
    """

    def __init__(
        self,
        answers: Answers = (),
        *,
        scorer: Callable[[Request], Sequence[float]] | None = None,
        name: str = "scripted",
    ) -> None:
        self.name = name
        self.requests: list[Request] = []
        self._answers = answers if callable(answers) else list(answers)
        self._next = 0
        self._scorer = scorer
        self._lock = threading.Lock()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The next answers of the script."""
        return [self._complete(request) for request in requests]

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """What ``scorer`` says."""
        if self._scorer is None:
            raise Unsupported(f"{self.name} was built without a scorer")
        return [self._score(request, self._scorer) for request in requests]

    def count_tokens(self, messages: Sequence[object]) -> int:
        """Words, which are this model's tokens."""
        return sum(len(str(getattr(message, "content", "")).split()) for message in messages)

    def _complete(self, request: Request) -> list[Completion]:
        with self._lock:
            self.requests.append(request)
            if callable(self._answers):
                answers = None
            else:
                answers = self._answers[self._next : self._next + request.n]
                self._next += request.n
        if answers is None:
            assert callable(self._answers)
            given = self._answers(request)
            answers = [given] * request.n if isinstance(given, str) else list(given)
        if len(answers) != request.n:
            raise ModelError(f"the script has {len(answers)} answers left, and {request.n} were asked for")
        key = request_hash(self.name, request)
        prompt = self.count_tokens(request.messages)
        completions = []
        for index, text in enumerate(answers):
            kept = (
                "".join(re.findall(r"\s*\S+", text)[: request.max_tokens])
                if _words(text) > request.max_tokens
                else text
            )
            usage = Usage(0 if index else prompt, 0, _words(kept), calls=0 if index else 1)
            completions.append(Completion(kept, "stop" if kept == text else "length", usage, request_hash=key))
        return completions

    def _score(self, request: Request, scorer: Callable[[Request], Sequence[float]]) -> Scores:
        if not request.choices:
            raise InvalidValue("score needs a request with choices")
        with self._lock:
            self.requests.append(request)
        logprobs = tuple(float(value) for value in scorer(request))
        if len(logprobs) != len(request.choices):
            raise ModelError(f"the scorer gave {len(logprobs)} values for {len(request.choices)} choices")
        lengths = tuple(max(1, len(choice.split())) for choice in request.choices)
        usage = Usage(self.count_tokens(request.messages) + sum(lengths), calls=1)
        return Scores(logprobs, lengths, usage, request_hash(self.name, request, "score"))


def _words(text: str) -> int:
    return len(text.split())
