"""The protocol behind which every model stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from agentkit.types import Completion, Request, Scores


@runtime_checkable
class LLM(Protocol):
    """A language model. Calls may come from many threads at once; a backend gathers them into batches by itself.

    Raises `agentkit.errors.ModelError` when a request fails for good and `agentkit.errors.BudgetExceeded` when the
    run's budget is spent.
    """

    @property
    def name(self) -> str:
        """The name by which logs and recordings call the model, for example ``"local/smollm2-135m"``."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """``request.n`` completions for each request, in the order of the requests."""
        ...


@runtime_checkable
class ScoringLLM(LLM, Protocol):
    """A model that can also say how likely it finds given answers."""

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """The log-probabilities of each request's ``choices`` (which must be given) as the model's next answer."""
        ...
