"""Choose among the admissible actions: how likely the model finds each, tilted by what became of it before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentkit.errors import ContractError, InvalidValue
from agentkit.llm.base import LLM, ScoringLLM
from agentkit.memory import Recalled
from agentkit.prompts import digest, render
from agentkit.types import Action, Message, Request, View


@dataclass(frozen=True)
class Experience:
    """Episodic control: the values of actions from the outcomes of the recalled steps.

    The value of an action is the mean outcome of the neighbours in which it was taken, each weighed by the kernel
    ``w = width / (width + d^2)`` of its Euclidean distance ``d^2 = 2 - 2 cosine`` (Pritzel et al. 2017, "Neural
    Episodic Control", eq. 5, scaled to 1 at distance 0), shrunk towards ``optimism`` as by ``prior`` more neighbours
    of that outcome::

        Q(a) = (prior * optimism + sum_i w_i * outcome_i) / (prior + sum_i w_i)

    so that what was never tried looks better than what failed, and worse than what worked. ``strength`` is the inverse
    temperature at which values move the choice.
    """

    width: float = 1e-3
    optimism: float = 0.3
    prior: float = 1.0
    strength: float = 24.0

    def values(self, actions: Sequence[str], memories: Sequence[Recalled]) -> np.ndarray:
        """``Q`` of each action: (A,) float64."""
        weight = dict.fromkeys(actions, self.prior)
        total = dict.fromkeys(actions, self.prior * self.optimism)
        for found in memories:
            action = found.record.data.get("action")
            if action in weight and found.record.outcome is not None:
                w = self.width / (self.width + max(2.0 - 2.0 * found.relevance, 0.0))
                weight[action] += w
                total[action] += w * found.record.outcome
        return np.array([total[a] / weight[a] for a in actions])


@dataclass(frozen=True)
class Choose:
    """Samples an admissible action from the model's distribution over them, tilted by experience::

        pi(a) is proportional to p_model(a | prompt)^(1 / temperature) * exp(strength * Q(a) - repeat_penalty * n(a))

    ``p_model`` is the likelihood of the action's text as the model's next answer, the mean over its tokens,
    so that short actions are not favoured. ``n(a)`` is how often the action was taken in this very situation earlier in
    the episode: a small model likes to repeat itself. Without ``experience``, or with nothing recalled, it is the model
    alone.
    Needs a model that scores and an environment that names its admissible actions.
    """

    temperature: float = 1.0
    experience: Experience | None = Experience()
    prompt: str = "choose"
    prompt_folder: str | None = None
    history: int = 0
    repeat_penalty: float = 2.0

    def __post_init__(self) -> None:
        if not self.temperature > 0 or self.history < 0:
            raise InvalidValue(
                f"temperature is {self.temperature} and history {self.history}; the first must be above 0, the second "
                "not below. For the likeliest action, take a temperature near 0."
            )

    def act(self, view: View, llm: LLM | None) -> Action:
        """The action sampled with ``view.seed``."""
        if not view.admissible:
            raise ContractError(
                f"{view.task.env_id} named no admissible actions, which this policy chooses among. "
                "Use the policy 'react' or 'direct', or have the environment put info['admissible_actions']."
            )
        if not isinstance(llm, ScoringLLM):
            name = llm.name if llm is not None else None
            raise ContractError(f"The model {name!r} cannot score answers, which this policy needs. Use a local model.")
        history = view.history[max(len(view.history) - self.history, 0) :]
        prompt = render(self.prompt, {"view": view, "history": history}, folder=self.prompt_folder)
        request = Request((Message("user", prompt),), choices=view.admissible)
        scores = llm.score([request])[0]
        logits = np.array(scores.logprobs) / np.maximum(scores.lengths, 1) / self.temperature
        here = [
            s.action.text for s in view.history if (s.observation, s.admissible) == (view.observation, view.admissible)
        ]
        logits = logits - self.repeat_penalty * np.array([here.count(action) for action in view.admissible])
        shaped: list[int] = [r.record.id for r in view.lessons]
        if self.experience is not None and view.memories:
            logits = logits + self.experience.strength * self.experience.values(view.admissible, view.memories)
            shaped += [r.record.id for r in view.memories if r.record.data.get("action") in view.admissible]
        logprobs = logits - np.logaddexp.reduce(logits)
        chosen = int(np.random.default_rng(view.seed).choice(len(logprobs), p=np.exp(logprobs)))
        return Action(view.admissible[chosen], memory_ids=tuple(shaped), logprob=float(logprobs[chosen]))

    def __repr__(self) -> str:
        return (
            f"Choose(temperature={self.temperature}, experience={self.experience!r}, "
            f"prompt={self.prompt}@{digest(self.prompt, folder=self.prompt_folder)}, history={self.history}, "
            f"repeat_penalty={self.repeat_penalty})"
        )
