"""Many episodes, in rounds: the same result for any number of workers, interrupted or not.

A round is one attempt at every task. In it, every episode reads memory as of the round's start; at its end, what was
learned is written in task order. So no episode sees what another of its round wrote, and their order in time is no
matter.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentkit.agent import Agent, Learned
from agentkit.errors import BudgetExceeded, ContractError, InvalidValue
from agentkit.llm.meter import Call, Ledger, metered
from agentkit.rollout import rollout
from agentkit.runlog import LoggedRun, RunLog, RunLogError
from agentkit.types import Episode, Task, Usage
from agentkit.worlds import Env, tasks_and_worlds

logger = logging.getLogger(__name__)

Progress = Callable[[Episode], None]


@dataclass(frozen=True, repr=False)
class Run:
    """What a run gives: its episodes in round and task order, and where its log is.

    ``notes`` are what a reader must know before he believes the figures, such as a memory that never reached a prompt.
    """

    name: str
    episodes: tuple[Episode, ...]
    log: str
    notes: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)

    @property
    def trials(self) -> int:
        """How many trials were played."""
        return 1 + max((e.trial for e in self.episodes), default=-1)

    @property
    def success_by_trial(self) -> list[float]:
        """The share of tasks solved in each trial. Broken episodes count as not solved."""
        return [float(np.mean([e.success for e in self.episodes if e.trial == trial])) for trial in range(self.trials)]

    def fingerprint(self) -> str:
        """A hash of all that was seen and done. Runs of equal arguments have equal fingerprints, on any machine: what
        calls cost and the text of errors do not enter."""
        content = [_without(_INCIDENTAL, asdict(episode)) for episode in self.episodes]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<{str(self).splitlines()[0]}>"  # short: a notebook shows it

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:.0%}" for rate in self.success_by_trial)
        lines = [f"{self.name}: {len(self.episodes)} episodes; success by trial: {rates}; {self.usage.tokens:,} tokens"]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, f"log: {self.log}"])


def run(
    agent: Agent,
    env_or_tasks: str | Env | Callable[[], Env] | Task | Sequence[Task],
    *,
    trials: int = 1,
    workers: int = 1,
    seed: int = 0,
    max_steps: int = 50,
    learn: bool = True,
    log: RunLog | str | Path | None = None,
    name: str | None = None,
    budget: Ledger | None = None,
    progress: Progress | None = None,
) -> Run:
    """Play every task ``trials`` times, the agent learning after each round.

    ``env_or_tasks`` is an environment id, an environment or a callable that makes one (then the task is its plain
    ``reset``), a `Task`, or several. The result is the same for any number of ``workers``.

    ``log`` is a run log or its path; killed and started again with the same arguments, the run goes on where it was and
    ends as if it had never been interrupted (for that, the agent's memory must be in a file too). ``budget`` covers
    acting, judging and reflecting; once it is spent, the remaining episodes end as ``budget``. ``progress`` is called
    with each episode as it is finished.

    What breaks in one episode ends that episode: its environment raised, its model failed, the budget is spent. Where
    the critic's or the reflector's model fails, nothing is learned of that episode, and of the others as ever. A
    mistake in the agent's own code is raised as it is, once the episodes in flight are logged; so are what an
    overridden `learn` raises and a recording's `ReplayMiss`.

    Raises `InvalidValue` for arguments out of range, `UnknownName` for an unknown environment, `RunLogError` when the
    log holds another run of the same name, or the memory is not the one that the run was begun with.
    """
    _check(agent, trials=trials, workers=workers, max_steps=max_steps, seed=seed)
    if budget is not None and not isinstance(budget, Ledger):
        raise InvalidValue(f"the budget is {budget!r}; give agentkit.Ledger(tokens=…), (usd=…) or (seconds=…).")
    tasks, worlds = tasks_and_worlds(env_or_tasks, workers)
    with ExitStack() as stack:
        stack.enter_context(worlds)
        worlds.prepare({task.env_id for task in tasks})  # an unknown name is an error before the log knows of the run
        opened = log if isinstance(log, RunLog) else stack.enter_context(RunLog(log if log is not None else ":memory:"))
        name = name or agent.name
        arguments = {"trials": int(trials), "seed": int(seed), "max_steps": int(max_steps), "learn": learn}
        logged = opened.run(name, {**arguments, "agent": agent.describe(), "tasks": [asdict(task) for task in tasks]})
        ledger = budget or Ledger()
        # A budget that is spent already ends the episodes, not the run.
        with suppress(BudgetExceeded), ledger.reserve(0) as earlier:
            earlier.settle(logged.usage())
        pool = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="agentkit"))
        for trial in range(trials):
            memory_seq, learned = logged.begin_round(trial, None if agent.memory is None else agent.memory.seq)
            done = logged.positions(trial)
            if len(done) == len(tasks) and (learned or not learn):
                continue
            _check_memory(agent, logged, trial, memory_seq)
            actor = agent.at(memory_seq)

            # 1. Every task is attempted; each episode is in the log as soon as it ends.
            def attempt(position: int, trial: int = trial, actor: Agent = actor) -> Episode:
                task, calls = tasks[position], list[Call]()
                try:
                    with metered(ledger=ledger), worlds.lend(task.env_id) as env:
                        episode = rollout(
                            actor,
                            env,
                            task,
                            trial=trial,
                            seed=episode_seed(seed, trial, position),
                            max_steps=max_steps,
                            id=f"{name}/{trial}/{position}",
                            calls=calls,
                        )
                        if episode.stop_reason == "env_error":
                            worlds.discard(env)
                except BaseException:
                    logged.add_calls(trial, calls)
                    raise
                logged.add_episode(episode, trial, position, calls)
                return episode

            pending = [pool.submit(attempt, i) for i in range(len(tasks)) if i not in done]
            try:
                for future in as_completed(pending):
                    episode = future.result()
                    if progress is not None:
                        progress(episode)
            except BaseException:
                for future in pending:
                    future.cancel()
                raise

            # 2. What they learned is written in task order, once.
            if learn:
                _learn(agent, logged, trial, memory_seq, ledger)
        episodes = logged.episodes()
        return Run(name, tuple(episodes), opened.path, tuple(_notes(agent, logged, episodes)), logged.usage())


def episode_seed(seed: int, trial: int, position: int) -> int:
    """The seed of an episode's choices: a function of the run's seed, the trial and the task's place alone."""
    return int(np.random.SeedSequence(seed, spawn_key=(trial, position)).generate_state(1, np.uint32)[0])


def _learn(agent: Agent, logged: LoggedRun, round_: int, memory_seq: int | None, ledger: Ledger) -> None:
    """Let the agent learn a round. Its memory's transaction makes this happen once, however often the run is killed."""
    calls: list[Call] = []
    memory = agent.memory
    try:
        with metered(ledger=ledger, sink=calls.append):
            if memory is None:
                learned = _learned(agent, logged, round_)
            else:
                with memory.transaction(_token(logged, round_)):
                    # What it reads is the memory as of the round's start, in a repetition after a crash too.
                    agent.reading = memory.at(memory_seq)
                    learned = _learned(agent, logged, round_)
    except BudgetExceeded as spent:
        logger.warning("Round %d was not learned: %s", round_, spent)
        logged.end_round(round_, {}, calls, learned=False)
    except BaseException:
        logged.add_calls(round_, calls)
        raise
    else:
        for subject, error in learned.failed.items():
            logger.warning("Nothing was learned of %s: %s", subject, error)
        logged.end_round(round_, learned.judgements, calls)
    finally:
        agent.reading = memory


def _learned(agent: Agent, logged: LoggedRun, round_: int) -> Learned:
    learned: object = agent.learn(logged.episodes(round_))
    if learned is None:  # an override need not return anything
        return Learned()
    if not isinstance(learned, Learned):
        raise ContractError(
            f"learn returned a {type(learned).__name__}; it must return an agentkit.Learned, or nothing."
        )
    return learned


def _token(logged: LoggedRun, round_: int) -> str:
    return f"{logged.id}/{round_}"


def _check_memory(agent: Agent, logged: LoggedRun, round_: int, memory_seq: int | None) -> None:
    """Refuse a memory that lacks what the run's earlier rounds put there: one that was lost, changed or rolled back."""
    memory = agent.memory
    if memory is None or memory_seq is None:
        return
    lost = RunLogError(
        f"This is not the memory that round {round_ + 1} of the run {logged.name!r} in {logged.log.path} needs: what "
        "the rounds before have learned is not there. Give the memory, in a file, that the run was begun with; to "
        "begin anew, give another name or another log."
    )
    if memory.seq < memory_seq:
        raise lost
    if round_ and logged.learned(round_ - 1) > 0:
        with memory.transaction(_token(logged, round_ - 1)) as transaction:
            if not transaction.done:
                raise lost


def _notes(agent: Agent, logged: LoggedRun, episodes: Sequence[Episode]) -> Iterator[str]:
    broken = Counter(episode.stop_reason for episode in episodes if episode.error)
    for reason, count in sorted(broken.items()):
        first = next(episode.error for episode in episodes if episode.error and episode.stop_reason == reason)
        said = first.strip().rpartition("\n")[2][:200]
        yield f"{count} of {len(episodes)} episodes ended as {reason}; they count as not solved. The first: {said}"
    rounds = logged.log.query(
        "select round, memory_seq, learned from rounds where run=:run order by round", run=logged.name
    )
    if unlearned := [str(row["round"] + 1) for row in rounds if row["learned"] < 0]:
        yield f"the budget was spent before round {', '.join(unlearned)} could be learned."
    (failed,) = logged.log.query(
        """select count(*) n from calls where run=:run and episode is null and purpose in ('judge', 'reflect')
           and error <> '' and error not like 'BudgetExceeded%'""",
        run=logged.name,
    )
    if failed["n"]:
        yield f"{failed['n']} model calls of learning failed; nothing was learned of what they were for."
    if agent.memory is not None:
        filled = bool(rounds and rounds[0]["memory_seq"])
        shown = [episode for episode in episodes if episode.trial > 0 or filled]
        if shown and not any(episode.memory_ids for episode in shown):
            yield "memory was on, but no record ever reached the policy: look at the agent's recall."


# Times, caches and paths differ from machine to machine.
_INCIDENTAL = ("usage", "error")


def _without(keys: Sequence[str], value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without(keys, v) for k, v in value.items() if k not in keys}
    if isinstance(value, (list, tuple)):
        return [_without(keys, v) for v in value]
    return value


def _check(agent: object, **numbers: object) -> None:
    if not isinstance(agent, Agent):
        raise InvalidValue(f"the agent is {agent!r}; it must be an agentkit.Agent, or of a class derived from it.")
    for name, value in numbers.items():
        least = 0 if name == "seed" else 1
        if not isinstance(value, (int, np.integer)) or value < least:
            raise InvalidValue(f"{name} is {value!r}; it must be a whole number of at least {least}.")
