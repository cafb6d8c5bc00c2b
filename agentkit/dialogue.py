"""Asking a model for something that can be read, and writing down what happened for it: shared by all that prompt.

An answer that cannot be read is shown to the model with what was expected, a bounded number of times.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np

from agentkit.errors import ContractError
from agentkit.llm.base import LLM
from agentkit.memory import Recalled
from agentkit.memory.rendering import estimate_tokens
from agentkit.memory.rendering import render as render_records
from agentkit.prompts import digest, render
from agentkit.types import Completion, Message, Options, Request, Step

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a model answered: the last text, and what was read from it (None where nothing could be)."""

    text: str
    value: T | None
    completion: Completion | None = None


@dataclass(frozen=True)
class Prompted:
    """A part that asks a model through a prompt file.

    ``prompt`` is the name of the file; one of the same name in ``prompt_folder`` takes its place. ``reasks`` is how
    often an answer that cannot be read is sent back. The representation names the prompt's hash, so that a run log
    tells runs with different prompts apart.
    """

    prompt: str = ""
    prompt_folder: str | None = None
    temperature: float = 0.7
    max_tokens: int = 256
    reasks: int = 1

    def write(self, variables: Mapping[str, Any], prompt: str = "") -> str:
        """The prompt filled in."""
        return render(prompt or self.prompt, variables, folder=self.prompt_folder)

    def ask(
        self,
        llm: LLM | None,
        text: str,
        read: Callable[[str], T | None],
        expected: str,
        *,
        seed: int,
        stop: Sequence[str] = (),
        schema: Options | None = None,
    ) -> Answer[T]:
        """The model's answer to ``text``, read by ``read``. ``expected`` says in words what is wanted, for re-asks."""
        if llm is None:
            raise ContractError(f"{type(self).__name__} asks a model, and the agent has none: give the agent an llm.")
        messages: tuple[Message, ...] = (Message("user", text),)
        completion: Completion | None = None
        for attempt in range(1 + self.reasks):
            request = Request(
                messages,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                stop=tuple(stop),
                seed=seed if attempt == 0 else derive(seed, attempt),
                schema=schema,
            )
            completion = llm.generate([request])[0][0]
            value = read(completion.text)
            if value is not None:
                return Answer(completion.text, value, completion)
            again = render("reask", {"expected": expected}, folder=self.prompt_folder)
            messages = (*messages, Message("assistant", completion.text), Message("user", again))
        assert completion is not None
        return Answer(completion.text, None, completion)

    def __repr__(self) -> str:
        again = digest("reask", folder=self.prompt_folder) if self.reasks else ""
        return f"{configuration(self)[:-1]}, reask=@{again})"


def configuration(part: Any) -> str:  # Any: a dataclass of any kind
    """A dataclass's representation in which each prompt is named with the hash of its file."""
    folder = getattr(part, "prompt_folder", None)
    said = []
    for field in fields(part):
        value = getattr(part, field.name)
        if not field.repr:
            continue
        if field.name == "prompt" or field.name.endswith("_prompt"):
            said.append(f"{field.name}={value}@{digest(value, folder=folder) if value else ''}")
        else:
            said.append(f"{field.name}={value!r}")
    return f"{type(part).__name__}({', '.join(said)})"


def derive(seed: int, *path: int | str) -> int:
    """A seed below ``seed``: the same for the same path, independent of those of other paths."""
    key = tuple(zlib.crc32(p.encode()) if isinstance(p, str) else p for p in path)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint32)[0])


def transcript(steps: Sequence[Step], first: int = 0, *, observation_chars: int | None = None) -> str:
    """The steps as numbered thoughts, actions and observations, as in ReAct. ``first`` is the number of steps before.

    An observation longer than ``observation_chars`` is cut in the middle.
    """
    lines = []
    for number, step in enumerate(steps, start=first + 1):
        if step.action.thought:
            lines.append(f"Thought {number}: {step.action.thought}")
        lines.append(f"Action {number}: {step.action.text}")
        lines.append(f"Observation {number}: {shorten(step.next_observation, observation_chars)}")
        if step.feedback and step.feedback not in step.next_observation:
            lines.append(f"Feedback {number}: {shorten(step.feedback, observation_chars)}")
    return "\n".join(lines)


def shorten(text: str, chars: int | None) -> str:
    """``text``, cut in the middle to ``chars`` characters where it is longer."""
    if chars is None or len(text) <= chars:
        return text
    head = chars // 2
    return f"{text[:head]} […] {text[len(text) - (chars - head) :]}"


def show(
    found: Iterable[Recalled], budget_tokens: int, count: Callable[[str], int] = estimate_tokens
) -> tuple[str, tuple[int, ...]]:
    """Recalled records as text within a budget of tokens, and the ids of those that are in it."""
    return render_records(found, budget_tokens, count)
