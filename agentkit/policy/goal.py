"""A policy in two calls: a controller names the next goal, an executor the action that serves it (CLIN)."""

from __future__ import annotations

from dataclasses import dataclass

from agentkit import parsing
from agentkit.dialogue import derive
from agentkit.llm.base import LLM
from agentkit.policy.generate import Generate, invalid
from agentkit.types import Action, View


@dataclass(frozen=True, repr=False)
class GoalThenAct(Generate):
    """Controller and executor (Majumder et al. 2023, "CLIN", section 3.1).

    The controller sees everything: task, memory, and the attempt so far. The executor sees task, attempt and goal, and
    not the memory; where the world lists what can be done, its action must be one of those. The goal is the action's
    thought. Without a goal that can be read, the step is invalid.
    """

    prompt: str = "controller"
    executor_prompt: str = "executor"

    def act(self, view: View, llm: LLM | None) -> Action:
        """The executor's action."""
        said, ids = self.context(view)
        expected = "End with one line 'Next goal: …'."
        goal = self.ask(llm, self.write(said), parsing.goal, expected, seed=derive(view.seed, "goal"))
        if goal.value is None:
            return invalid(goal, ids)
        expected = "Answer with one action and nothing else."
        if view.admissible:
            expected += f" The actions are: {'; '.join(view.admissible)}."
        answer = self.ask(
            llm,
            self.write({**said, "next_goal": goal.value}, self.executor_prompt),
            lambda text: parsing.action(text, view.admissible),
            expected,
            seed=view.seed,
            stop=("\nObservation",),
        )
        if answer.value is None:
            return invalid(answer, ids)
        return Action(answer.value, thought=goal.value, memory_ids=ids)
