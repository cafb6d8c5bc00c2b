"""Several judgements made one: of several critics, or of one that is asked several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentkit.critic.base import Critic
from agentkit.dialogue import derive
from agentkit.errors import InvalidValue
from agentkit.llm.base import LLM
from agentkit.types import Episode, Judgement
from agentkit.votes import majority, settled

Rule = Literal["majority", "all", "any", "mean"]


@dataclass(frozen=True)
class Ensemble:
    """Asks every critic. ``rule`` says when the attempt succeeds: more than half of the critics say so, all of them,
    any of them, or their mean score is at least one half. The score is the mean of theirs; critiques are joined; steps
    are those of the first critic that judges steps."""

    critics: tuple[Critic, ...]
    rule: Rule = "majority"

    def __post_init__(self) -> None:
        if not self.critics:
            raise InvalidValue("an ensemble needs at least one critic.")
        if self.rule not in ("majority", "all", "any", "mean"):
            raise InvalidValue(f"rule is {self.rule!r}; it must be majority, all, any or mean.")

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The joint judgement."""
        return joint([critic.judge(episode, llm) for critic in self.critics], self.rule)


@dataclass(frozen=True)
class SelfConsistent:
    """Asks one critic up to ``samples`` times, each with a seed of its own, and takes the majority's word.

    ``how`` is ``"majority"``, ``"soft"`` (the mean of the scores decides, not the count of verdicts) or ``"adaptive"``:
    it stops as soon as the majority is settled with ``confidence`` (see `agentkit.votes.settled`). The score is the
    mean of those drawn. Give the critic a temperature above 0: at 0, which judges have by default, all samples are one.
    """

    critic: Critic
    samples: int = 5
    how: Literal["majority", "soft", "adaptive"] = "majority"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.samples < 1 or self.how not in ("majority", "soft", "adaptive"):
            raise InvalidValue(
                f"samples is {self.samples} (at least 1), how {self.how!r} (majority, soft or adaptive)."
            )

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The majority's judgement, with the critique of one that is of its mind."""
        drawn: list[Judgement] = []
        for i in range(self.samples):
            drawn.append(self.critic.judge(replace(episode, seed=derive(episode.seed, i)), llm))
            if self.how == "adaptive" and settled([j.success for j in drawn], self.confidence):
                break
        score = sum(j.score for j in drawn) / len(drawn)
        success = score >= 0.5 if self.how == "soft" else majority([j.success for j in drawn])[0]
        agreeing = next((j for j in drawn if j.success == success), drawn[0])
        return Judgement(success, score, agreeing.critique, agreeing.steps)


def joint(judgements: Sequence[Judgement], rule: Rule) -> Judgement:
    """One judgement from several."""
    score = sum(j.score for j in judgements) / len(judgements)
    yes = sum(j.success for j in judgements)
    decide: dict[Rule, Callable[[], bool]] = {
        "majority": lambda: 2 * yes > len(judgements),
        "all": lambda: yes == len(judgements),
        "any": lambda: yes > 0,
        "mean": lambda: score >= 0.5,
    }
    steps = next((j.steps for j in judgements if j.steps), ())
    critique = "\n".join(dict.fromkeys(j.critique for j in judgements if j.critique))
    return Judgement(decide[rule](), score, critique, steps)


@dataclass(frozen=True)
class WithSteps:
    """The verdict of ``critic`` with the steps of ``steps``: the environment says whether, a step judge says where.

    The steps of a solved attempt are not asked for.
    """

    critic: Critic
    steps: Critic

    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        """The joint judgement."""
        judgement = self.critic.judge(episode, llm)
        if judgement.success or episode.stop_reason.broken:
            return judgement
        told = self.steps.judge(episode, llm)
        critique = " ".join(part for part in (judgement.critique, told.critique) if part)
        return replace(judgement, steps=told.steps, critique=critique)
