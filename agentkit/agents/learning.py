"""An agent that learns from a round as a whole, beside learning from each episode."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentkit.agent import Agent, Learned, describe
from agentkit.errors import ModelError
from agentkit.llm.errors import ReplayMiss
from agentkit.llm.meter import metered
from agentkit.reflection.consolidate import Consolidator
from agentkit.types import Episode

logger = logging.getLogger(__name__)


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
        changed = 0
        for part in self.consolidators:
            try:
                with metered(purpose="reflect"):
                    changes = part.consolidate(episodes, learned.judgements, reading, self.llm)
            except ReplayMiss:
                raise
            except ModelError as error:
                logger.warning("%s learned nothing from this round: %s", type(part).__name__, error)
                continue
            changed += changes.apply(self.memory)
        return replace(learned, records=learned.records + changed)

    def describe(self) -> dict[str, Any]:
        """The configuration, for the run log."""
        return {**super().describe(), "consolidators": [describe(part) for part in self.consolidators]}
