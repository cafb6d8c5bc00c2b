"""Critics held against the truth: what they accept and should not, how far their scores can be believed, and whether
that changes as the agent learns.

In self-refinement an agent comes to please its critic. When that happens without its getting better, the critic's
acceptance rises over the rounds and the environment's success does not: false accepts rise (see `Calibration.drift`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentkit.critic.base import Critic
from agentkit.errors import InvalidValue
from agentkit.llm.base import LLM
from agentkit.runlog import RunLog
from agentkit.runner import Run
from agentkit.types import Episode, Judgement


@dataclass(frozen=True)
class Counts:
    """Judgements of one critic on ``episodes`` episodes, against the environment's success.

    Rates are None where they are undefined: no episode that could be accepted, or rejected, wrongly.
    """

    episodes: int
    succeeded: int
    accepted: int
    false_accepts: int
    false_rejects: int
    brier: float | None

    @property
    def false_accept_rate(self) -> float | None:
        """Of the failed episodes, the share that the critic called solved."""
        failed = self.episodes - self.succeeded
        return self.false_accepts / failed if failed else None

    @property
    def false_reject_rate(self) -> float | None:
        """Of the solved episodes, the share that the critic called failed."""
        return self.false_rejects / self.succeeded if self.succeeded else None

    @property
    def accuracy(self) -> float | None:
        """The share of episodes on which critic and environment agree."""
        return 1 - (self.false_accepts + self.false_rejects) / self.episodes if self.episodes else None

    @property
    def bias(self) -> float | None:
        """The share that the critic accepts, less the share that succeeded: above 0 it is too kind."""
        return (self.accepted - self.succeeded) / self.episodes if self.episodes else None


@dataclass(frozen=True)
class Calibration:
    """One critic's counts over all episodes, and by round. ``reliability`` are the bins of a reliability diagram:
    (mean score, share that succeeded, episodes) of each tenth of the score that has any."""

    name: str
    overall: Counts
    rounds: tuple[Counts, ...]
    reliability: tuple[tuple[float, float, int], ...]

    @property
    def drift(self) -> float | None:
        """How much the bias grows from one round to the next, by least squares; None with fewer than two rounds.

        A critic whose drift is above 0 is being pleased rather than satisfied: the sign of reward hacking.
        """
        biases = [(i, c.bias) for i, c in enumerate(self.rounds) if c.bias is not None]
        if len(biases) < 2:
            return None
        x, y = np.array(biases, float).T
        x = x - x.mean()
        return float((x * (y - y.mean())).sum() / (x * x).sum())

    @property
    def false_accept_drift(self) -> float | None:
        """The false-accept rate of the last round that has one, less that of the first; None with fewer than two."""
        rates = [c.false_accept_rate for c in self.rounds if c.false_accept_rate is not None]
        return rates[-1] - rates[0] if len(rates) > 1 else None


@dataclass(frozen=True)
class Report:
    """The calibration of several critics on the same episodes."""

    critics: tuple[Calibration, ...]

    def __str__(self) -> str:
        """A Markdown table."""
        lines = [
            "| critic | episodes | false accepts | false rejects | Brier | bias by round | drift |",
            "|---|---|---|---|---|---|---|",
        ]
        for c in self.critics:
            biases = " ".join("–" if r.bias is None else f"{r.bias:+.2f}" for r in c.rounds)
            drift = "–" if c.drift is None else f"{c.drift:+.3f}"
            brier = "–" if c.overall.brier is None else f"{c.overall.brier:.3f}"
            accepts = _rate(c.overall.false_accepts, c.overall.false_accept_rate)
            rejects = _rate(c.overall.false_rejects, c.overall.false_reject_rate)
            lines.append(f"| {c.name} | {c.overall.episodes} | {accepts} | {rejects} | {brier} | {biases} | {drift} |")
        return "\n".join(lines)


def calibrate(critics: Mapping[str, Critic], episodes: Sequence[Episode], llm: LLM | None = None) -> Report:
    """Have each critic judge the same episodes, and hold it against their success. A round is a trial.

    Episodes that were cut off (`StopReason.broken`) are left out: there is nothing to judge.
    """
    whole = [e for e in episodes if not e.stop_reason.broken]
    return Report(
        tuple(calibration(name, whole, [critic.judge(e, llm) for e in whole]) for name, critic in critics.items())
    )


def of_run(played: Run, log: RunLog, name: str = "critic") -> Calibration:
    """The calibration of the critic that judged a run, from its log."""
    rows = {
        row["episode"]: Judgement(bool(row["success"]), float(row["score"]), str(row["critique"]))
        for row in log.query("select episode, success, score, critique from judgements")
    }
    judged = [e for e in played.episodes if e.id in rows and not e.stop_reason.broken]
    return calibration(name, judged, [rows[e.id] for e in judged])


def calibration(name: str, episodes: Sequence[Episode], judgements: Sequence[Judgement]) -> Calibration:
    """The counts of judgements that were made of the episodes, in the same order."""
    if len(episodes) != len(judgements):
        raise InvalidValue(f"{len(episodes)} episodes have {len(judgements)} judgements.")
    pairs = list(zip(episodes, judgements, strict=True))
    rounds = 1 + max((e.trial for e in episodes), default=-1)
    by_round = tuple(_counts([p for p in pairs if p[0].trial == trial]) for trial in range(rounds))
    bins = []
    for tenth in range(10):
        inside = [(j.score, e.success) for e, j in pairs if min(int(j.score * 10), 9) == tenth]
        if inside:
            scores, truths = np.array(inside, float).T
            bins.append((float(scores.mean()), float(truths.mean()), len(inside)))
    return Calibration(name, _counts(pairs), by_round, tuple(bins))


def _counts(pairs: Sequence[tuple[Episode, Judgement]]) -> Counts:
    truth = np.array([e.success for e, _ in pairs], bool)
    said = np.array([j.success for _, j in pairs], bool)
    scores = np.array([j.score for _, j in pairs], float)
    return Counts(
        episodes=len(pairs),
        succeeded=int(truth.sum()),
        accepted=int(said.sum()),
        false_accepts=int((said & ~truth).sum()),
        false_rejects=int((~said & truth).sum()),
        brier=float(((scores - truth) ** 2).mean()) if pairs else None,  # Brier (1950), for two outcomes
    )


def _rate(count: int, rate: float | None) -> str:
    return f"{count}" if rate is None else f"{count} ({rate:.0%})"
