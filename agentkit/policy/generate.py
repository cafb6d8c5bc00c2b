"""Policies that ask the model to write the action: directly, after a thought (ReAct), or from a numbered list.

All show the model the same things in the same order: instructions, examples, lessons, memories, skills, and then the
task with what happened so far. What was shown is what the action names in its ``memory_ids``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentkit import parsing
from agentkit.dialogue import Answer, Prompted, show, transcript
from agentkit.errors import ContractError
from agentkit.llm.base import LLM
from agentkit.types import Action, View

_INVALID_CHARS = 1000  # of an unreadable answer, passed on as the text of an invalid action


@dataclass(frozen=True, repr=False)
class Generate(Prompted):
    """What the policies that write have in common.

    ``instructions`` say how to act in this world, ``examples`` are shown verbatim before the task. ``history`` is how
    many of the last steps are shown (None: all), each observation cut to ``observation_chars``. Lessons, memories and
    skills get ``lesson_tokens``, ``memory_tokens`` and ``skill_tokens`` at most.
    """

    instructions: str = ""
    examples: str = ""
    history: int | None = None
    observation_chars: int | None = 4000
    lesson_tokens: int = 1000
    memory_tokens: int = 3000
    skill_tokens: int = 1000

    def context(self, view: View) -> tuple[dict[str, Any], tuple[int, ...]]:
        """The variables of the prompt, and the ids of the records that are in them."""
        lessons, shown = show(view.lessons, self.lesson_tokens)
        memories, also = show(view.memories, self.memory_tokens)
        skills, too = show(view.skills, self.skill_tokens)
        first = 0 if self.history is None else max(0, len(view.history) - self.history)
        opening = view.history[first].observation if view.history else view.observation
        said: dict[str, Any] = {
            "view": view,
            "instructions": self.instructions,
            "examples": self.examples,
            "lessons": lessons,
            "memories": memories,
            "skills": skills,
            "opening": opening,
            "transcript": transcript(view.history[first:], first, observation_chars=self.observation_chars),
            "number": len(view.history) + 1,
        }
        return said, (*shown, *also, *too)


def invalid(answer: Answer[Any], memory_ids: Sequence[int]) -> Action:
    """The step of an answer that could not be read: the world is told what the model wrote."""
    return Action(answer.text.strip()[:_INVALID_CHARS], memory_ids=tuple(memory_ids), valid=False)


@dataclass(frozen=True, repr=False)
class Direct(Generate):
    """Asks for the action, and nothing else. Where the world lists what can be done, it must be one of those."""

    prompt: str = "direct"
    max_tokens: int = 64

    def act(self, view: View, llm: LLM | None) -> Action:
        """The action that the model writes."""
        said, ids = self.context(view)
        expected = "Answer with one action and nothing else."
        if view.admissible:
            expected += f" The actions are: {'; '.join(view.admissible)}."
        answer = self.ask(
            llm, self.write(said), lambda text: parsing.action(text, view.admissible), expected, seed=view.seed
        )
        return invalid(answer, ids) if answer.value is None else Action(answer.value, memory_ids=ids)


@dataclass(frozen=True, repr=False)
class ReAct(Generate):
    """A thought and then an action, each step (Yao et al. 2023, "ReAct", section 2).

    Thought and action are asked for in one completion that stops at the next observation. ``strict`` asks that the
    action is one that the world lists; without it the text goes to the world as it is, which says what is wrong.
    """

    prompt: str = "react"
    strict: bool = True

    def act(self, view: View, llm: LLM | None) -> Action:
        """The first thought and action that the model writes."""
        said, ids = self.context(view)
        allowed = view.admissible if self.strict else None
        expected = "Write one line that begins with 'Thought:' and one that begins with 'Action:'."
        if allowed:
            expected += f" The action must be one of: {'; '.join(allowed)}."
        answer = self.ask(
            llm,
            self.write(said),
            lambda text: parsing.thought_and_action(text, allowed),
            expected,
            seed=view.seed,
            stop=("\nObservation",),
        )
        if answer.value is None:
            return invalid(answer, ids)
        thought, text = answer.value
        return Action(text, thought=thought, memory_ids=ids)


@dataclass(frozen=True, repr=False)
class ChooseListed(Generate):
    """Shows the admissible actions as a numbered list and asks for one, by number or text.

    For models that cannot score answers; `agentkit.policy.choose.Choose` is for those that can.
    """

    prompt: str = "choose_listed"
    max_tokens: int = 32

    def act(self, view: View, llm: LLM | None) -> Action:
        """The admissible action that the model names."""
        if not view.admissible:
            raise ContractError(
                f"{view.task.env_id} named no admissible actions, which this policy lists. Use 'react' or 'direct', or "
                "have the environment put info['admissible_actions']."
            )
        said, ids = self.context(view)
        expected = f"Answer with one number from 1 to {len(view.admissible)}."
        answer = self.ask(
            llm, self.write(said), lambda text: parsing.action(text, view.admissible), expected, seed=view.seed
        )
        return invalid(answer, ids) if answer.value is None else Action(answer.value, memory_ids=ids)
