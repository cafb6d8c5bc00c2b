"""Self-consistency: several samples of an action, and the one they agree on.

Works around any policy: each sample is the policy acting with a seed of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from agentkit.dialogue import derive
from agentkit.errors import ContractError, InvalidValue
from agentkit.llm.base import LLM, ScoringLLM
from agentkit.policy.base import Policy
from agentkit.types import Action, Message, Request, View
from agentkit.votes import Aggregate, likelihood, majority, settled


@dataclass(frozen=True)
class Consistent:
    """Samples ``policy`` up to ``samples`` times and takes one answer.

    ``how`` is ``"majority"`` (the most frequent action), ``"soft"`` (the likeliest, by ``aggregate`` over the tokens;
    the model must score) or ``"adaptive"`` (the majority, as soon as it is settled with ``confidence``). Invalid
    samples have no vote; when all are invalid, so is the action.
    """

    policy: Policy
    samples: int = 5
    how: Literal["majority", "soft", "adaptive"] = "majority"
    confidence: float = 0.95
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InvalidValue(f"samples is {self.samples}; it must be at least 1.")
        if self.how not in ("majority", "soft", "adaptive"):
            raise InvalidValue(f"how is {self.how!r}; it must be majority, soft or adaptive.")

    def act(self, view: View, llm: LLM | None) -> Action:
        """The action that the samples agree on; its ``logprob`` is left out, since no one sample has it."""
        drawn: list[Action] = []
        for i in range(self.samples):
            drawn.append(self.policy.act(replace(view, seed=derive(view.seed, i)), llm))
            if self.how == "adaptive" and settled([a.text for a in drawn if a.valid], self.confidence):
                break
        valid = [action for action in drawn if action.valid]
        if not valid:
            return drawn[0]
        text = self._likeliest(view, valid, llm) if self.how == "soft" else majority([a.text for a in valid])[0]
        return replace(next(a for a in valid if a.text == text), logprob=None)

    def _likeliest(self, view: View, drawn: list[Action], llm: LLM | None) -> str:
        """Scores each distinct action as the answer to the situation, as the model sees it."""
        if not isinstance(llm, ScoringLLM):
            name = llm.name if llm is not None else None
            raise ContractError(f"The model {name!r} cannot score answers; how='soft' needs it. Use 'majority'.")
        texts = tuple(dict.fromkeys(action.text for action in drawn))
        said = "\n".join(
            [view.goal, *(f"> {s.action.text}\n{s.next_observation}" for s in view.history[-3:]), view.observation]
        )
        scores = llm.score([Request((Message("user", said),), choices=texts)])[0]
        # Only the sum over an answer's tokens is known: its mean stands for each token.
        tokens = [[total / n] * n for total, n in zip(scores.logprobs, scores.lengths, strict=True)]
        values = [likelihood(t, self.aggregate) for t in tokens]
        return texts[max(range(len(texts)), key=lambda i: (values[i], -i))]
