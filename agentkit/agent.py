"""The agent: a composition of policy, critic, reflector and memory. Recall, act; judge, reflect, remember.

A notebook user overrides `Agent.act` or `Agent.learn`; everything else is handed in.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from agentkit.critic.base import Critic, EnvironmentCritic
from agentkit.errors import ContractError, InvalidValue, ModelError
from agentkit.llm.base import LLM
from agentkit.llm.meter import instrument, metered
from agentkit.memory import Memory, Record, Where
from agentkit.memory import View as MemoryView
from agentkit.policy.base import Policy
from agentkit.reflection.base import Reflector
from agentkit.types import Action, Episode, Judgement, View


class Remember(Protocol):
    """What of an episode goes into memory, beside the lessons."""

    def __call__(self, episode: Episode, judgement: Judgement) -> Sequence[Record]:
        """The records of one judged episode."""
        ...


class Recall(Protocol):
    """What of the memory an agent is shown before it acts."""

    def __call__(self, view: View, memory: Memory | MemoryView) -> View:
        """``view`` with its memories, lessons and skills filled in."""
        ...


@dataclass(frozen=True)
class Learned:
    """What came of a round: the judgement of each episode, by episode id, and how many records were added.

    ``failed`` is what was not learned because a model failed, with the error: an episode, by its id, or what a part of
    the agent would have made of it or of the whole round.
    """

    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    records: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def learning(subject: str, failed: dict[str, str]) -> Iterator[None]:
    """The one boundary of learning: where a model fails in the block, ``subject`` is not learned, and all else is.

    The error is left in ``failed``, for `Learned`. Only a `ModelError` is: a spent budget ends the learning of the
    round, and a recording that misses a request, or a mistake in the agent's code, the run.
    """
    try:
        yield
    except ModelError as error:
        failed[subject] = f"{type(error).__name__}: {error}"


class Agent:
    """A language agent.

    ``recall`` says what of ``memory`` is shown, ``remember`` what of an episode is kept. Without ``memory`` the agent
    is the same from trial to trial. An agent is used by many threads at once: `act` must not change it. A subclass that
    overrides `act` needs neither model nor policy.
    """

    # So that a subclass whose own __init__ forgets this one's is an agent all the same.
    llm: LLM | None = None
    policy: Policy | None = None
    memory: Memory | None = None
    reading: Memory | MemoryView | None = None
    recall: Recall | None = None
    remember: Remember | None = None
    critic: Critic = EnvironmentCritic()
    reflector: Reflector | None = None
    name: str = "agent"

    def __init__(
        self,
        llm: LLM | None = None,
        policy: Policy | None = None,
        *,
        memory: Memory | None = None,
        recall: Recall | None = None,
        remember: Remember | None = None,
        critic: Critic | None = None,
        reflector: Reflector | None = None,
        name: str = "agent",
    ) -> None:
        wrong = [
            f"{part} is {given!r}; it must be {what}"
            for part, given, needs, what in (
                ("llm", llm, "generate", "a model, such as agentkit.get_llm('local/smollm2-135m')"),
                ("policy", policy, "act", "a policy, such as agentkit.registry.get('policies', 'react')()"),
                ("memory", memory, "recall", "a memory, such as agentkit.Memory('memory.db')"),
                ("critic", critic, "judge", "a critic, with judge(episode, llm)"),
                ("reflector", reflector, "reflect", "a reflector, with reflect(episode, judgement, earlier, llm)"),
            )
            if given is not None and not hasattr(given, needs)
        ]
        if wrong:
            raise InvalidValue(f"An agent cannot be made of this: {'; '.join(wrong)}.")
        self.llm = instrument(llm) if llm is not None else None
        self.policy = policy
        self.memory = memory
        self.reading = memory
        self.recall = recall
        self.remember = remember
        self.critic = critic or EnvironmentCritic()
        self.reflector = reflector
        self.name = name

    def at(self, seq: int | None) -> Self:
        """The same agent, reading its memory as of sequence number ``seq``."""
        frozen = copy.copy(self)
        if self.memory is not None and seq is not None:
            frozen.reading = self.memory.at(seq)
        return frozen

    def act(self, view: View) -> Action:
        """Recall what bears on the situation, and let the policy choose."""
        if self.policy is None:
            raise InvalidValue(f"The agent {self.name!r} has no policy. Give it one, or override act.")
        if self.recall is not None and self.reading is not None:
            view = self.recall(view, self.reading)
            if not isinstance(view, View):
                raise ContractError(
                    f"recall returned a {type(view).__name__}; it must return the view, as dataclasses.replace(view, "
                    "memories=…) makes it."
                )
        return self.policy.act(view, self.llm)

    def learn(self, episodes: Sequence[Episode]) -> Learned:
        """Judge the episodes of a round, reflect on them, and remember what came of it, in their order.

        Of an episode for which the critic's or the reflector's model fails, nothing is learned; the others are.
        """
        judgements: dict[str, Judgement] = {}
        records: list[Record] = []
        failed: dict[str, str] = {}
        for episode in episodes:
            with learning(episode.id, failed):
                judgement, found = self._study(episode)
                judgements[episode.id] = judgement
                records += found
        # The model is done; only now is anything written, so that no transaction waits for it.
        if self.memory is not None:
            if records:
                self.memory.add_many(records)
            # Episodes that used no record are reported too: they are what the others are compared with.
            for episode in episodes:
                if not episode.stop_reason.broken and episode.id in judgements:
                    score = judgements[episode.id].score
                    self.memory.credit(episode.memory_ids, score, episode=episode.id, task=episode.task.name)
        return Learned(judgements, len(records), failed)

    def _study(self, episode: Episode) -> tuple[Judgement, list[Record]]:
        """The judgement of an episode, and what is to be remembered of it."""
        with metered(purpose="judge"):
            judgement = self.critic.judge(episode, self.llm)
        if self.memory is None:
            return judgement, []
        records = list(self.remember(episode, judgement)) if self.remember is not None else []
        if self.reflector is not None:
            own = Where(kinds=("lesson",), task=episode.task.name)
            # As of the round's start, so that a round that is learned again after a crash is learned the same.
            reading = self.memory if self.reading is None else self.reading
            earlier = [record.text for record in reading.records(own)]
            with metered(purpose="reflect"):
                lessons = self.reflector.reflect(episode, judgement, earlier, self.llm)
            records += [
                Record(
                    kind="lesson",
                    text=lesson.text,
                    key=f"{episode.goal}\n{lesson.text}",
                    data={"kind": lesson.kind, "evidence": list(lesson.evidence)},
                    task=lesson.task,
                    outcome=judgement.score,
                    episode=episode.id,
                )
                for lesson in lessons
            ]
        return judgement, records

    def __repr__(self) -> str:
        llm = self.llm.name if self.llm is not None else None
        return f"<{type(self).__name__} {self.name!r}: model {llm}, memory {self.memory!r}>"

    def describe(self) -> dict[str, Any]:
        """The configuration, for the run log: JSON values."""
        return {
            "agent": f"{type(self).__module__}.{type(self).__qualname__}",
            "name": self.name,
            "llm": self.llm.name if self.llm is not None else None,
            "memory": self.memory.embedder.name if self.memory is not None else None,
            **{part: describe(getattr(self, part)) for part in ("policy", "recall", "remember", "critic", "reflector")},
        }


def describe(part: object) -> str | None:
    """A part's configuration as text, the same in every process and without secrets.

    It is a dataclass's repr, a function's or class's name.
    """
    if part is None:
        return None
    if hasattr(part, "__dataclass_fields__") and not isinstance(part, type):
        text = _ADDRESS.sub("", repr(part))
        return _SECRET.sub(r"\1='…'", text)
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}"


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_SECRET = re.compile(r"""(\w*(?:api_?key|token|secret|password|credential)\w*)=(?:'[^']*'|"[^"]*")""", re.IGNORECASE)
