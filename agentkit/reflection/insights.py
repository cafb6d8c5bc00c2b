"""Insights with votes (Zhao et al. 2024, "ExpeL: LLM Agents Are Experiential Learners", section 4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from agentkit.dialogue import Prompted, derive
from agentkit.llm.base import LLM
from agentkit.memory import Memory, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.reflection.consolidate import Changes
from agentkit.reflection.verbal import failures, retold
from agentkit.types import Episode, Judgement

Vote = tuple[Literal["ADD", "AGREE", "EDIT", "REMOVE"], int, str]
_VOTE = re.compile(r"^[\W_]*(ADD|AGREE|EDIT|REMOVE|UPVOTE|DOWNVOTE)\W*(\d*)\W*[:.)\-]*\s*(.*)$", re.IGNORECASE)
NEW = 2  # the strength of a new insight


def votes(answer: str) -> list[Vote] | None:
    """The operations in an answer, as (operation, number of the insight from 1 or 0, text); None where none is."""
    found: list[Vote] = []
    for line in answer.splitlines():
        match = _VOTE.match(line.strip())
        if match is None:
            continue
        word, number, text = match[1].upper(), int(match[2] or 0), match[3].strip()
        word = {"UPVOTE": "AGREE", "DOWNVOTE": "REMOVE"}.get(word, word)
        if word == "ADD" and text:
            found.append(("ADD", 0, text))
        elif word == "EDIT" and number and text:
            found.append(("EDIT", number, text))
        elif word == "AGREE" and number:
            found.append(("AGREE", number, text))
        elif word == "REMOVE" and number:
            found.append(("REMOVE", number, text))
    return found or None


@dataclass
class Insight:
    """One insight while a round is learned; ``id`` is 0 for a new one."""

    text: str
    strength: int = NEW
    id: int = 0


def apply(insights: list[Insight], operations: Sequence[Vote], limit: int) -> None:
    """Make the operations: a new insight has strength 2, AGREE and EDIT add one, REMOVE takes one, and an insight of
    strength 0 is dropped at the end. Numbers that no insight has, and what would pass ``limit``, are passed over."""
    shown = list(insights)  # numbers are those of the list that the model saw
    for word, number, text in operations:
        if word == "ADD":
            if len(insights) < limit and all(text.casefold() != i.text.casefold() for i in insights):
                insights.append(Insight(text))
            continue
        if not 1 <= number <= len(shown):
            continue
        insight = shown[number - 1]
        insight.strength += -1 if word == "REMOVE" else 1
        if word == "EDIT":
            insight.text = text
    insights[:] = [i for i in insights if i.strength > 0]


@dataclass(frozen=True, repr=False)
class Insights(Prompted):
    """Extracts insights that hold across tasks, and lets the model vote on those it has.

    Two kinds of comparison: a solved attempt with a failed one at the same task (the paper's C_compare), and ``chunk``
    solved attempts at different tasks (C_success). Insights are records of kind ``"insight"``, with their strength in
    ``data``; at most ``limit`` are kept. ``comparisons`` bounds how many are made in a round (None: all there are).
    """

    prompt: str = "insights"
    chunk: int = 5
    limit: int = 20
    comparisons: int | None = None
    observation_chars: int | None = 400
    max_tokens: int = 512

    def consolidate(
        self,
        episodes: Sequence[Episode],
        judgements: Mapping[str, Judgement],
        memory: Memory | MemoryView,
        llm: LLM | None,
    ) -> Changes:
        """The insights that are new, changed and dropped."""
        held = sorted(memory.records(Where(kinds=("insight",))), key=rank)
        before = {r.id: (r.text, int(r.data["strength"])) for r in held}
        insights = [Insight(r.text, int(r.data["strength"]), r.id) for r in held]
        materials = islice(self._materials(episodes, judgements, memory), self.comparisons)
        for number, material in enumerate(materials):
            said = {**material, "insights": insights, "limit": self.limit, "full": len(insights) >= self.limit}
            expected = "Write one operation a line: 'ADD: …', 'AGREE 2: …', 'EDIT 3: …' or 'REMOVE 1: …'."
            seed = derive(episodes[0].seed, "insights", number)
            answer = self.ask(llm, self.write(said), votes, expected, seed=seed)
            if answer.value is not None:
                apply(insights, answer.value, self.limit)
        kept = {i.id: i for i in insights if i.id}
        return Changes(
            added=tuple(Record("insight", i.text, data={"strength": i.strength}) for i in insights if not i.id),
            edited={
                i.id: {"text": i.text, "data": {"strength": i.strength}}
                for i in kept.values()
                if (i.text, i.strength) != before[i.id]
            },
            removed=tuple(id_ for id_ in before if id_ not in kept),
        )

    def _materials(
        self, episodes: Sequence[Episode], judgements: Mapping[str, Judgement], memory: Memory | MemoryView
    ) -> Iterator[dict[str, object]]:
        """What is compared, one prompt each."""
        won = [e for e in episodes if judgements[e.id].success and e.steps]
        for episode in won:
            lost = failures(episode, episodes, judgements, memory, self.observation_chars)
            if lost:
                yield {"goal": episode.goal, "won": [retold(episode, self.observation_chars)], "lost": lost[-1]}
        for start in range(0, len(won), self.chunk):
            chunk = won[start : start + self.chunk]
            if len({e.task.name for e in chunk}) > 1:
                told = [f"Task: {e.goal}\n{retold(e, self.observation_chars)}" for e in chunk]
                yield {"goal": "", "won": told, "lost": ""}


def rank(record: Record) -> tuple[int, int]:
    """Orders insights: the strongest first, of equals the oldest."""
    return -int(record.data["strength"]), record.id
