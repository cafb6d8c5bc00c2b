"""A policy that criticises its own answer and writes it anew (Madaan et al. 2023, "Self-Refine")."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from agentkit import parsing
from agentkit.dialogue import Prompted, derive, transcript
from agentkit.llm.base import LLM
from agentkit.policy.base import Policy
from agentkit.policy.generate import Direct
from agentkit.types import Action, View

_DONE = re.compile(
    r"\b(?:no (?:more )?changes?(?: (?:is|are) needed)?|nothing to improve|looks good|it is good as it is)\b", re.I
)


@dataclass(frozen=True, repr=False)
class SelfRefine(Prompted):
    """Algorithm 1 of the paper, with one model as generator, critic and refiner::

        y0 = policy(x)
        for t in 0, 1, …, rounds - 1:
            feedback = model(x, y_t)                       prompt
            if the feedback asks for no change: stop
            y_{t+1} = model(x, y_0, feedback_0, …, y_t, feedback_t)     refine_prompt

    All earlier answers and feedback are shown to the refiner (section 2, equation 4). ``multiline`` is for answers that
    are programs or texts; else an answer is one action.
    """

    prompt: str = "self_feedback"
    refine_prompt: str = "self_refine"
    policy: Policy = field(default_factory=Direct)
    rounds: int = 3
    multiline: bool = False

    def act(self, view: View, llm: LLM | None) -> Action:
        """The last answer of the loop."""
        action = self.policy.act(view, llm)
        said: list[dict[str, str]] = []
        base = {"view": view, "transcript": transcript(view.history[-5:], max(0, len(view.history) - 5))}
        for turn in range(self.rounds):
            text = self.write({**base, "answer": action.text})
            feedback = self.ask(
                llm, text, lambda t: parsing.plain(t) or None, "", seed=derive(view.seed, "feedback", turn)
            )
            if feedback.value is None or _DONE.search(feedback.value):
                break
            said.append({"answer": action.text, "feedback": feedback.value})
            text = self.write({**base, "said": said}, self.refine_prompt)
            refined = self.ask(
                llm,
                text,
                lambda t: self._read(t, view),
                "Answer with the new answer alone.",
                seed=derive(view.seed, turn),
            )
            if refined.value is None:
                break
            action = replace(action, text=refined.value, thought=feedback.value, valid=True, logprob=None)
        return action

    def _read(self, answer: str, view: View) -> str | None:
        if self.multiline:
            return parsing.program(answer) or parsing.plain(answer) or None
        return parsing.action(answer, view.admissible)
