"""Causal abstractions (Majumder et al. 2023, "CLIN: A Continually Learning Language Agent")."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentkit import parsing
from agentkit.dialogue import Prompted, derive
from agentkit.llm.base import LLM
from agentkit.memory import Memory, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.reflection.consolidate import Changes
from agentkit.reflection.verbal import retold
from agentkit.types import Episode, Judgement, Lesson

_CAUSAL = re.compile(
    r"^(?P<cause>.+?)\s+(?P<how>MAY BE NECESSARY|SHOULD BE NECESSARY|MAY CONTRIBUTE|SHOULD CONTRIBUTE"
    r"|(?:MAY|DOES|SHOULD) NOT CONTRIBUTE|IS NECESSARY)\s+(?:TO|FOR)\s+(?P<effect>.+?)\.?$",
    re.IGNORECASE,
)


def abstractions(answer: str) -> str | None:
    """The causal statements in an answer, a line each with the relation in capitals; None where there is none.

    The relations are the paper's (section 3.2): an action MAY BE or SHOULD BE NECESSARY to an effect, which are two
    degrees of certainty, or DOES NOT CONTRIBUTE to it. Near forms are brought to these.
    """
    found: list[str] = []
    for item in parsing.items(answer):
        match = _CAUSAL.match(item.strip().strip('"'))
        if match is None:
            continue
        how = match["how"].upper()
        if "NOT" in how:
            how = "DOES NOT CONTRIBUTE"
        elif how.startswith("MAY"):
            how = "MAY BE NECESSARY"
        else:
            how = "SHOULD BE NECESSARY"
        line = f"{match['cause'].strip()} {how} TO {match['effect'].strip()}."
        if line not in found:
            found.append(line)
    return "\n".join(found) or None


@dataclass(frozen=True, repr=False)
class CausalReflector(Prompted):
    """Writes the memory of a task anew after each attempt, from the attempt and the memory before it (section 3.2).

    Solved attempts are learned from too. The whole list is one lesson of kind ``"causal"``; the last of a task is its
    memory. ``earlier`` is how many memories before it are shown (the paper shows the last three).
    """

    prompt: str = "causal"
    earlier: int = 3
    observation_chars: int | None = 1000
    max_tokens: int = 512

    def reflect(
        self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: LLM | None
    ) -> Sequence[Lesson]:
        """The new memory, or none where the answer holds no causal statement."""
        if episode.stop_reason.broken:
            return []
        said = {
            "goal": episode.goal,
            "attempt": retold(episode, self.observation_chars),
            "success": judgement.success,
            "critique": judgement.critique,
            "earlier": list(earlier)[-self.earlier :] if self.earlier else [],
        }
        answer = self.ask(llm, self.write(said), abstractions, FORM, seed=derive(episode.seed, "reflect"))
        if answer.value is None:
            return []
        return [Lesson(answer.value, kind="causal", task=episode.task.name, evidence=(episode.id,))]


FORM = (
    "Write one statement a line: 'X MAY BE NECESSARY TO Y', 'X SHOULD BE NECESSARY TO Y' or "
    "'X DOES NOT CONTRIBUTE TO Y'."
)


@dataclass(frozen=True, repr=False)
class MetaMemory(Prompted):
    """One memory for tasks not met before, made from the best memories of the tasks that were (section 3.3).

    At the end of each round the lesson with the best outcome of each task, the ``most`` best of them, is abstracted
    into the one record of kind ``"meta"``, which is edited when it exists. ``about`` is ``"environment"`` (the same
    task in a world laid out otherwise) or ``"task"`` (another task).
    """

    prompt: str = "causal_meta"
    about: str = "environment"
    most: int = 10
    max_tokens: int = 512

    def consolidate(
        self,
        episodes: Sequence[Episode],
        judgements: Mapping[str, Judgement],
        memory: Memory | MemoryView,
        llm: LLM | None,
    ) -> Changes:
        """The meta-memory, added or edited. It lags a round: it is made of what was written before this one."""
        best: dict[str, Record] = {}
        for record in memory.records(Where(kinds=("lesson",))):
            held = best.get(record.task)
            if record.data.get("kind") == "causal" and (held is None or (record.outcome or 0) >= (held.outcome or 0)):
                best[record.task] = record
        chosen = sorted(best.values(), key=lambda r: (-(r.outcome or 0.0), r.id))[: self.most]
        if not chosen or not episodes:
            return Changes()
        goals = {r.task: r.key.partition("\n")[0] for r in chosen}
        said = {
            "about": self.about,
            "memories": [{"goal": goals[r.task], "success": (r.outcome or 0) >= 1, "text": r.text} for r in chosen],
        }
        answer = self.ask(llm, self.write(said), abstractions, FORM, seed=derive(episodes[-1].seed, "meta"))
        if answer.value is None:
            return Changes()
        data = {"kind": "meta", "about": self.about, "merged": sorted(r.id for r in chosen)}
        held_meta = [r for r in memory.records(Where(kinds=("meta",))) if r.data.get("about") == self.about]
        if held_meta:
            return Changes(edited={held_meta[-1].id: {"text": answer.value, "data": data}})
        return Changes(added=(Record("meta", answer.value, data=data),))
