"""Documentation of tools, revised from experience (Qu et al. 2025, "From Exploration to Mastery: Enabling LLMs to
Master Tools via Self-Driven Interactions", the DRAFT framework)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentkit import parsing
from agentkit.dialogue import Prompted, derive, shorten
from agentkit.llm.base import LLM
from agentkit.memory import Memory, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.reflection.consolidate import Changes
from agentkit.types import Episode, Judgement, Step


def tool_of(action: str) -> str:
    """The tool that an action uses: the name in a JSON call, or the first word of anything else."""
    if action.lstrip().startswith("{"):
        found = parsing.call(action)
        if found is not None:
            return found[0]
    match = re.match(r"\w+", action.strip())
    return match[0] if match else ""


@dataclass(frozen=True, repr=False)
class ToolDocs(Prompted):
    """Rewrites the documentation of each tool that a round used, from what its uses brought about.

    ``docs`` are the documents to begin with, by tool. A document is a record of kind ``"tool"``. It is settled, and no
    longer revised, when a revision is at least ``settled`` alike to the one before (the paper's tool-adaptive
    termination, section 3.3, which measures likeness by BLEU and embeddings; here it is `difflib`'s ratio). ``uses``
    are shown for each revision: failures before successes, since they teach more.
    """

    prompt: str = "tool_doc"
    docs: Mapping[str, str] = field(default_factory=dict)
    uses: int = 6
    settled: float = 0.9
    reasks: int = 0
    observation_chars: int = 300

    def consolidate(
        self,
        episodes: Sequence[Episode],
        judgements: Mapping[str, Judgement],
        memory: Memory | MemoryView,
        llm: LLM | None,
    ) -> Changes:
        """The documents that are new or changed."""
        held = {str(r.data["tool"]): r for r in memory.records(Where(kinds=("tool",)))}
        used: dict[str, list[Step]] = {}
        for episode in episodes:
            for step in episode.steps:
                name = tool_of(step.action.text)
                if name and step.action.valid:
                    used.setdefault(name, []).append(step)
        added, edited = [], {}
        for name, steps in sorted(used.items()):
            record = held.get(name)
            if record is not None and record.data.get("settled"):
                continue
            old = record.text.partition(": ")[2] if record is not None else self.docs.get(name, "")
            steps = sorted(steps, key=lambda s: not s.feedback)[: self.uses]
            said = {
                "tool": name,
                "doc": old,
                "uses": [{"call": s.action.text, "result": shorten(_result(s), self.observation_chars)} for s in steps],
            }
            seed = derive(episodes[0].seed, "tool", name)
            new = self.ask(llm, self.write(said), lambda t: parsing.plain(t) or None, "", seed=seed).value
            if new is None:
                continue
            new = " ".join(new.split())
            alike = bool(old) and difflib.SequenceMatcher(None, old, new).ratio() >= self.settled
            fields = {"text": f"{name}: {new}", "data": {"tool": name, "settled": alike}}
            if record is None:
                added.append(
                    Record("tool", f"{name}: {new}", key=f"{name}: {new}", data={"tool": name, "settled": alike})
                )
            else:
                edited[record.id] = {**fields, "key": f"{name}: {new}"}
        return Changes(added=tuple(added), edited=edited)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, docs={json.dumps(dict(self.docs), sort_keys=True)})"


def _result(step: Step) -> str:
    return f"{step.next_observation} ({step.feedback})" if step.feedback else step.next_observation
