"""One agent, with one kind of memory at a time: which of them helps, by how much, and how sure that is.

::

    result = agentkit.ablate(agentkit.reflexion(llm), "agentkit/FrozenLake-v0", arms=["none", "knn"], seeds=5)
    print(result)
    result.plot("ablation.png")
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import cycle
from pathlib import Path

from agentkit.agent import Agent, Recall, Remember
from agentkit.agents.learning import Consolidating
from agentkit.agents.memories import (
    RecallEpisodes,
    RecallInsights,
    RecallLessons,
    RecallRoutines,
    Recalls,
    RecallWays,
    RememberEpisodes,
    Remembers,
    RememberWays,
)
from agentkit.bench.compare import Comparison, compare
from agentkit.bench.statistics import Interval
from agentkit.critic.base import Critic
from agentkit.errors import InvalidValue, MissingExtra, UnknownName
from agentkit.llm.base import LLM
from agentkit.llm.meter import Ledger
from agentkit.memory import Embedder, Memory
from agentkit.policy.base import Policy
from agentkit.policy.choose import Choose
from agentkit.policy.choose_shown import ChooseShown
from agentkit.policy.simple import Resume
from agentkit.recall import RecallSteps, RememberSteps
from agentkit.reflection.base import Reflector
from agentkit.reflection.insights import Insights
from agentkit.reflection.trace import TraceReflector
from agentkit.reflection.verbal import VerbalReflector
from agentkit.runlog import RunLog
from agentkit.types import Episode, Task

ARMS = ("none", "retry", "icl", "recency", "knn", "reflections", "insights", "skills", "all")
"""The arms, by what the agent is shown of its experience:

- ``none``: nothing;
- ``retry``: nothing, but a task that was solved is done again in the same way;
- ``icl``: every earlier episode, as far as the policy's budget of tokens goes;
- ``recency``: the last three episodes;
- ``knn``: what is nearest to the situation: steps for a policy that scores, episodes for one that writes;
- ``reflections``: the last three reflections on the task;
- ``insights``: rules that hold across tasks, with votes;
- ``skills``: the ways that solved this task or like ones;
- ``all``: knn, reflections, insights and skills together.
"""


@dataclass(frozen=True, repr=False)
class Ablation:
    """The runs of all arms, and what they say. ``control`` is the arm that the others are held against."""

    comparison: Comparison
    arms: tuple[str, ...]
    control: str

    def by_trial(self, arm: str) -> list[float]:
        """The share of tasks solved in each trial."""
        return self.comparison.by_trial(arm)

    def difference(self, arm: str) -> Interval:
        """By how much the arm solves more than the control in the trials after the first."""
        return self.comparison.difference(arm, self.control)

    def mcnemar(self, arm: str, *, trial: int = -1) -> McNemar:
        """The exact McNemar test of the arm against the control, over paired attempts (lifetime, task) of one trial."""
        ours, theirs = (self.comparison.success(name)[:, :, trial] > 0 for name in (arm, self.control))
        return mcnemar(int((ours & ~theirs).sum()), int((~ours & theirs).sum()))

    def rows(self) -> list[dict[str, object]]:
        """One row an arm: success in the first, the last and all later trials, difference, interval, test, tokens."""
        rows: list[dict[str, object]] = []
        for arm in self.arms:
            rates = self.by_trial(arm)
            row: dict[str, object] = {"arm": arm, "first": rates[0], "last": rates[-1], "by_trial": rates}
            row["tokens"] = sum(run.usage.tokens for run in self.comparison.runs[arm])
            if arm != self.control:
                interval, test = self.difference(arm), self.mcnemar(arm)
                row |= {"difference": interval.estimate, "low": interval.low, "high": interval.high}
                row |= {"better": test.better, "worse": test.worse, "p": test.p}
            rows.append(row)
        return rows

    def __repr__(self) -> str:
        return f"<Ablation, against {self.control}: {self.comparison!r}>"

    def _repr_markdown_(self) -> str:
        return str(self)  # what a notebook shows

    def __str__(self) -> str:
        """A Markdown table."""
        lines = [
            f"| arm | first trial | last trial | more than {self.control} later (95%) | McNemar p | tokens |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows():
            held = row["arm"] == self.control
            difference = "" if held else str(self.difference(str(row["arm"])))
            p = "" if held else f"{row['p']:.3f} ({row['better']} to {row['worse']})"
            lines.append(
                f"| {row['arm']} | {row['first']:.0%} | {row['last']:.0%} | {difference} | {p} | {row['tokens']:,} |"
            )
        for arm in self.arms:
            often = Counter(note for run in self.comparison.runs[arm] for note in run.notes)
            of = len(self.comparison.runs[arm])
            lines += [f"note: {arm}, {count} of {of} lifetimes: {note}" for note, count in often.items()]
        return "\n".join(lines)

    def plot(self, path: str | Path, *, title: str = "") -> Path:
        """A PNG: the learning curves of all arms, and their differences from the control with intervals. Needs the
        extra ``view``."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtra.of("matplotlib", "view") from error
        figure = Figure(figsize=(11, 4.5), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for arm, marker in zip(self.arms, cycle("os^vDPX*<"), strict=False):
            rates = self.by_trial(arm)
            left.plot(range(1, len(rates) + 1), rates, marker=marker, label=arm)
        left.set(xlabel="trial", ylabel="share of tasks solved", ylim=(0, 1), xticks=range(1, len(rates) + 1))
        left.legend(frameon=False, fontsize=8)
        left.grid(alpha=0.3)
        others = [arm for arm in self.arms if arm != self.control]
        for place, arm in enumerate(others):
            cell = self.difference(arm)
            right.plot(cell.estimate, place, "o", color="black")
            if cell.low is not None and cell.high is not None:
                right.plot([cell.low, cell.high], [place, place], color="black")
        right.axvline(0, color="grey", linewidth=1)
        right.set(
            yticks=range(len(others)), yticklabels=others, xlabel=f"solved more than {self.control} (95% interval)"
        )
        right.invert_yaxis()
        if title:
            figure.suptitle(title, fontsize=10)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        return path


@dataclass(frozen=True)
class McNemar:
    """``better`` pairs only the arm solved, ``worse`` only the control; ``p`` is two-sided and exact."""

    better: int
    worse: int
    p: float


def mcnemar(better: int, worse: int) -> McNemar:
    """The exact test of McNemar (1947): of the pairs that differ, each side wins with probability one half.

    Two-sided by doubling the smaller tail, at most 1; without a pair that differs, p is 1. It takes the pairs as
    independent, which attempts within one lifetime are not quite: read it beside the interval over lifetimes.
    """
    if better < 0 or worse < 0:
        raise InvalidValue(f"counts cannot be negative: {better} and {worse}.")
    total = better + worse
    tail = sum(math.comb(total, i) for i in range(min(better, worse) + 1)) / 2**total
    return McNemar(better, worse, min(1.0, 2 * tail))


def ablate(
    agent_or_policy: Agent | Policy,
    env_or_tasks: str | Task | Sequence[Task],
    *,
    llm: LLM | None = None,
    arms: Sequence[str] = ARMS,
    control: str = "none",
    seeds: int = 5,
    trials: int = 4,
    seed: int = 0,
    workers: int = 1,
    max_steps: int = 30,
    critic: Critic | None = None,
    embedder: Embedder | None = None,
    tokens: int | None = None,
    folder: str | Path | None = None,
    progress: Callable[[str, int, Episode], None] | None = None,
) -> Ablation:
    """Play an environment, or tasks, with each arm (see `ARMS`), for ``seeds`` paired lifetimes of ``trials`` trials.

    All arms share the policy, the model and the critic. They are those of an agent, whose own memory and reflector are
    left out, or a policy with ``llm`` and ``critic``. `Choose` becomes `ChooseShown`, so that episodes and ways can be
    shown to it. ``tokens`` is the budget of each arm, the same for all: what an arm spends on reflecting it cannot
    spend on acting. The ``control`` is played too where it is not among the ``arms``.

    The run log and the memories are kept in ``folder``; killed and called again with the same arguments, the ablation
    goes on where it was, and arms that were not asked for before are added. Without ``folder`` nothing is kept.

    Raises `UnknownName` for an arm that there is not, `InvalidValue` for an agent without policy or model, and
    `RunLogError` when the folder holds an ablation of other arguments.
    """
    chosen = tuple(dict.fromkeys([control, *arms]))
    for arm in chosen:
        if arm not in ARMS:
            raise UnknownName.among("arm", arm, ARMS)
    if isinstance(agent_or_policy, Agent):
        given, llm, critic = agent_or_policy.policy, llm or agent_or_policy.llm, critic or agent_or_policy.critic
    else:
        given = agent_or_policy
    if given is None or llm is None:
        raise InvalidValue("an ablation needs a policy and a model: give an agent that has both, or a policy and llm=.")
    tasks = [Task(env_or_tasks)] if isinstance(env_or_tasks, str) else env_or_tasks
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    made, model = _shown(given), llm
    kept = None if folder is None else Path(folder)
    runs = {}
    with ExitStack() as stack:
        log = stack.enter_context(RunLog(":memory:" if kept is None else kept / "run.db"))
        for arm in chosen:  # one at a time, since each has a budget of its own
            memories = stack.enter_context(ExitStack())

            def make(lifetime: int, arm: str = arm, memories: ExitStack = memories) -> Agent:
                memories.close()  # of the lifetime before
                if arm == "none":
                    return agent(arm, made, model, None, critic)
                file = ":memory:" if kept is None else kept / f"{arm}-{lifetime}.db"
                return agent(arm, made, model, memories.enter_context(Memory(file, embedder=embedder)), critic)

            played = compare(
                {arm: make},
                tasks,
                lifetimes=seeds,
                trials=trials,
                seed=seed,
                workers=workers,
                max_steps=max_steps,
                log=log,
                budget=None if tokens is None else Ledger(tokens=tokens),
                progress=progress,
            )
            runs[arm] = played.runs[arm]
    return Ablation(Comparison(runs, tuple(tasks)), chosen, control)


def _shown(policy: Policy) -> Policy:
    if type(policy) is not Choose:
        return policy
    values = {f.name: getattr(policy, f.name) for f in fields(policy) if f.name != "prompt"}
    return ChooseShown(**values) if policy.prompt == Choose.prompt else policy


def agent(arm: str, policy: Policy, llm: LLM, memory: Memory | None, critic: Critic | None = None) -> Agent:
    """The agent of an arm. A policy that chooses by likelihood (`Choose`) is shown steps and lessons read off the
    trace; one that writes, episodes and reflections in words."""
    scores = isinstance(policy, Choose)
    reflector: Reflector = TraceReflector() if scores else VerbalReflector()
    # A model that is asked to score is a small local one, for which writing is slow: one short comparison a round.
    insights = Insights(comparisons=1, max_tokens=96, reasks=0, observation_chars=150) if scores else Insights()
    remember: dict[str, tuple[Remember, ...]] = {
        "retry": (RememberWays(),),
        "icl": (RememberEpisodes(),),
        "recency": (RememberEpisodes(),),
        "knn": (RememberSteps(),) if scores else (RememberEpisodes(),),
        "insights": (RememberEpisodes(),),
        "skills": (RememberWays(),),
    }
    recall: dict[str, tuple[Recall, ...]] = {
        "retry": (RecallWays(),),
        "icl": (RecallEpisodes("all", k=None, newest_first=True),),
        "recency": (RecallEpisodes("recent", k=3, newest_first=True),),
        "knn": (RecallSteps(lessons=0),) if scores else (RecallEpisodes("near", k=3),),
        "reflections": (RecallLessons(last=3),),
        "insights": (RecallInsights(),),
        "skills": (RecallRoutines(),),
    }
    parts = ("knn", "reflections", "insights", "skills") if arm == "all" else (arm,)
    remembers = tuple(dict.fromkeys(r for part in parts for r in remember.get(part, ())))
    recalls = tuple(r for part in parts for r in recall.get(part, ()))
    return Consolidating(
        llm,
        Resume(policy) if arm == "retry" else policy,
        memory=memory,
        critic=critic,
        recall=Recalls(recalls) if recalls else None,
        remember=Remembers(remembers) if remembers else None,
        reflector=reflector if "reflections" in parts else None,
        consolidators=(insights,) if "insights" in parts else (),
        name=arm,
    )
