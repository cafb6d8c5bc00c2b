"""An agent that learns from a round as a whole, beside learning from each episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentkit.agent import Agent, Learned, describe, learning
from agentkit.llm.meter import metered
from agentkit.reflection.consolidate import Changes, Consolidator
from agentkit.types import Episode


class Consolidating(Agent):
    """An `Agent` whose ``consolidators`` see all episodes of a round, after its reflector saw each."""

    def __init__(
        self, *args: Any, consolidators: Sequence[Consolidator] = (), **kwargs: Any
    ) -> None:  # Any: Agent's own
        super().__init__(*args, **kwargs)
        self.consolidators = tuple(consolidators)

    def learn(self, episodes: Sequence[Episode]) -> Learned:
        """Learn from each episode, and then from all of those. A consolidator whose model fails changes nothing."""
        learned = super().learn(episodes)
        episodes = [episode for episode in episodes if episode.id in learned.judgements]
        if self.memory is None or not episodes:
            return learned
        # As of the round's start, so that a round that is learned again after a crash is learned the same.
        reading = self.memory if self.reading is None else self.reading
        found: list[Changes] = []
        failed = dict(learned.failed)
        for part in self.consolidators:
            with learning(f"the round, by {type(part).__name__}", failed), metered(purpose="reflect"):
                found.append(part.consolidate(episodes, learned.judgements, reading, self.llm))
        changed = sum(changes.apply(self.memory) for changes in found)
        return Learned(learned.judgements, learned.records + changed, failed)

    def describe(self) -> dict[str, Any]:
        """The configuration, for the run log."""
        return {**super().describe(), "consolidators": [describe(part) for part in self.consolidators]}
