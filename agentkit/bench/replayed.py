"""Plays published logs through `agentkit.run`: a replay model, a logged world, and the code world.

Neither the model nor the world knows the trial. Each keeps, for every situation, the queue of what the log answered
there, in the order of the trials: a task is attempted once a round, so the first of the queue is this trial's.
"""

from __future__ import annotations

import ast
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from agentkit import parsing
from agentkit.agents.react import react
from agentkit.agents.reflexion import reflexion
from agentkit.bench.published_programs import ProgramLog, Written
from agentkit.bench.published_questions import Attempt, QuestionLog, Turn
from agentkit.dialogue import Answer, transcript
from agentkit.envs import text_space
from agentkit.envs.code import CodeEnv
from agentkit.envs.sandbox import Sandbox
from agentkit.errors import InvalidValue, ModelError
from agentkit.llm.scripted import ScriptedLLM
from agentkit.memory import Memory
from agentkit.policy.generate import ReAct, invalid
from agentkit.policy.program import Program
from agentkit.reflection.verbal import VerbalReflector
from agentkit.runner import Run, run
from agentkit.syntax import parse_module
from agentkit.types import Action, Episode, Options, Request, Step, Task

_LONG = 100_000  # tokens: nothing of a log is cut


@dataclass
class Played:
    """What came of a log of questions: solved by trial, and each difference and remark in words."""

    solved: list[int]
    disagreements: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run: Run | None = None


@dataclass(frozen=True)
class Planned:
    """What a question's attempt in one trial is: the log's own, ``"carried"`` over from the trial that solved it, or
    without a transcript (``"counted"`` as the log counts it, or ``"absent"`` from the log)."""

    attempt: Attempt | None
    how: str
    label: str = ""


def plan(log: QuestionLog) -> list[dict[str, Planned]]:
    """For each trial, what is played for each question.

    A question that was solved is not tried again, so where a later trial has no transcript of it, the attempt that
    solved it stands for that trial too.
    """
    solved: dict[str, Attempt] = {}
    plans = []
    for trial in log.trials:
        by_name = {attempt.name: attempt for attempt in trial.attempts}
        plans.append(row := dict[str, Planned]())
        for name in log.questions:
            attempt = by_name.get(name)
            label = attempt.label if attempt is not None else ""
            if attempt is not None and attempt.turns:
                row[name] = Planned(attempt, "logged", label)
            elif name in solved and label in ("", "correct"):
                row[name] = Planned(solved[name], "carried", "correct")
            else:
                row[name] = Planned(None, "counted" if attempt is not None else "absent", label)
            if attempt is not None and attempt.succeeded:
                solved[name] = attempt
    return plans


class LoggedWorld(gymnasium.Env[str, str]):
    """Answers actions with what the log answered, and judges the attempt itself: see `Attempt.judged`."""

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, book: Book) -> None:
        self.observation_space = text_space()
        self.action_space = text_space()
        self._book = book
        self._attempt: Attempt | None = None
        self._turn = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        name, self._turn = str((options or {})["question"]), 0
        self._attempt = self._book.next_attempt(name)
        return self._book.context[name], {"goal": name}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        attempt = self._attempt
        if attempt is None or self._turn == len(attempt.turns):
            raise InvalidValue(f"turn {self._turn + 1}: the log holds no further turn, and the agent did {action!r}")
        turn = attempt.turns[self._turn]
        self._turn += 1
        logged = _as_read(_said(self._turn, turn)).text
        if action != logged:
            raise InvalidValue(f"turn {self._turn}: the agent did {action!r}, and the log answers {logged!r}")
        observation, last = turn.observation, self._turn == len(attempt.turns)
        judged = attempt.judged(action, observation, last=last)
        if judged is None:
            return observation, 0.0, False, last, {"success": False}
        return answered(attempt, observation, judged), float(judged), True, False, {"success": judged}


def answered(attempt: Attempt, observation: str, judged: bool | None) -> str:
    """What the world says to a turn: to the answer to a question its own judgement, else what the log holds."""
    if attempt.world == "questions" and judged is not None:
        return f"Answer is {'CORRECT' if judged else 'INCORRECT'}"
    return observation


class Book:
    """A log of questions as what its model said and its world answered, situation by situation."""

    def __init__(self, plans: Sequence[dict[str, Planned]]) -> None:
        self.context: dict[str, str] = defaultdict(str)
        self._lock = threading.Lock()
        for row in plans:
            for name, planned in row.items():
                if planned.attempt is not None and planned.attempt.context:
                    self.context[name] = planned.attempt.context
        self._said: dict[str, deque[str | None]] = defaultdict(deque)
        self._attempts: dict[str, deque[Attempt | None]] = defaultdict(deque)
        self._reflected: dict[str, deque[str]] = defaultdict(deque)
        for number, row in enumerate(plans):
            for name, planned in row.items():
                self._attempts[name].append(planned.attempt)
                if planned.attempt is not None:
                    self._enter(name, planned.attempt, _next_reflection(plans, number, name))
                else:  # this trial's place in the queue is kept, and there is nothing in it
                    self._said[self._situation(name, [])].append(None)

    def next_attempt(self, name: str) -> Attempt | None:
        """The attempt of the trial that is next for this task; None where the log has no transcript of it."""
        with self._lock:
            if not self._attempts[name]:
                raise InvalidValue(f"the log holds no further attempt at {name!r}")
            return self._attempts[name].popleft()

    def answer(self, request: Request) -> str:
        """What the model answered. Raises `ModelError` where the log holds nothing (more)."""
        situation = _situation(request)
        with self._lock:
            if situation.endswith("\nReflection:"):
                queue = self._reflected[situation.partition("\nOutcome: ")[0]]
                return queue.popleft() if queue else ""
            situation, _, number = situation.rpartition("\nThought ")
            queued = self._said[situation]
            said = queued.popleft() if queued else None
            if said is None:
                raise ModelError(f"the log holds no answer here: {situation[-200:]!r}, thought {number}")
            return said

    def _enter(self, name: str, attempt: Attempt, reflection: str) -> None:
        steps: list[Step] = []
        for number, turn in enumerate(attempt.turns, start=1):
            said = _said(number, turn)
            self._said[self._situation(name, steps)].append(said)
            action = _as_read(said)
            last = number == len(attempt.turns)
            shown = answered(attempt, turn.observation, attempt.judged(action.text, turn.observation, last=last))
            steps.append(Step("", action, 0.0, shown))
        self._reflected[self._situation(name, steps)].append(reflection)

    def _situation(self, name: str, steps: Sequence[Step]) -> str:
        return "\n".join(part for part in (name, self.context[name], transcript(steps)) if part)


def _situation(request: Request) -> str:
    """What a prompt says from the task on."""
    return f"\n{request.messages[-1].content}".rpartition("\nTask: ")[2]


def _said(number: int, turn: Turn) -> str:
    """What the model wrote in a turn."""
    return f" {turn.thought}\nAction {number}: {turn.action}"


def _as_read(answer: str) -> Action:
    """The action that the policy makes of an answer."""
    read = parsing.thought_and_action(answer)
    return invalid(Answer(answer, None), ()) if read is None else Action(read[1], thought=read[0])


def _next_reflection(plans: Sequence[dict[str, Planned]], number: int, name: str) -> str:
    """The reflection that the log shows first in the next attempt at the question; empty where it shows none."""
    held = plans[number][name].attempt
    for row in plans[number + 1 :]:
        later = row[name].attempt
        if later is not None and row[name].how == "logged" and later.reflections:
            before = held.reflections if held is not None else ()
            grew = len(later.reflections) > len(before)
            return later.reflections[len(before)] if grew else later.reflections[-1]
    return ""


def replay_attempts(log: QuestionLog, *, workers: int = 1) -> Played:
    """Play all questions, or environments, of a log in all its trials."""
    plans = plan(log)
    book = Book(plans)
    llm = ScriptedLLM(book.answer, name="replay")
    policy = ReAct(observation_chars=None, reasks=0, max_tokens=_LONG, lesson_tokens=_LONG, strict=False)
    attempts = [a for trial in log.trials for a in trial.attempts]
    if lessons := max((len(a.reflections) for a in attempts), default=0):  # the last three in worlds
        if all(a.key for a in attempts):  # and all of them for questions
            lessons = len(plans)
        reflector = VerbalReflector(observation_chars=None, max_tokens=_LONG)
        agent = reflexion(llm, Memory(), policy=policy, reflector=reflector, lessons=lessons)
    else:
        agent = react(llm, policy=policy)
    longest = max((len(p.attempt.turns) for row in plans for p in row.values() if p.attempt is not None), default=1)
    with _registered("Questions", lambda: LoggedWorld(book)) as env_id:
        tasks = [Task(env_id, options=Options({"question": name}), name=name) for name in log.questions]
        played = run(agent, tasks, trials=len(plans), workers=workers, max_steps=longest)
    return _compare(log, plans, played, agent.memory)


def _compare(log: QuestionLog, plans: list[dict[str, Planned]], played: Run, memory: Memory | None) -> Played:
    result = Played([], run=played)
    shown = expected = 0
    by_place = {(e.trial, e.task.name): e for e in played.episodes}
    for trial, (row, logged) in enumerate(zip(plans, log.trials, strict=True)):
        solved = 0
        for name, planned in row.items():
            episode = by_place[trial, name]
            if planned.attempt is None:
                # Nothing to play: the task is counted as the log counts it.
                solved += planned.label == "correct"
                continue
            solved += episode.success
            result.disagreements += [
                f"trial {logged.number}, {name!r} ({planned.attempt.place}): {why}"
                for why in _differences(episode, planned)
            ]
            if planned.how == "logged" and planned.attempt.reflections and memory is not None:
                expected += len(planned.attempt.reflections)
                ids = episode.memory_ids
                texts = {_flat(memory.get(id_).text) for id_ in ids}
                shown += sum(_flat(text) in texts for text in planned.attempt.reflections)
        result.solved.append(solved)
        counts = [p.how for p in row.values()]
        for how, text in (
            ("carried", "solved earlier and without a transcript here: the attempt that solved them is played again"),
            ("counted", "without a transcript: counted as the log counts them"),
            ("absent", "not in the log: counted as not solved, as the log's counts have it"),
        ):
            if how in counts:
                result.notes.append(f"trial {logged.number}: {counts.count(how)} {text}")
        total = sum(logged.summary.get(k, 0) for k in ("correct", "incorrect", "halted"))
        if logged.summary and total != len(row):
            result.notes.append(f"trial {logged.number}: the log's counts add up to {total} of {len(row)} questions")
    if expected:
        note = f"of {expected} reflections that the log shows to the actor, {shown} were shown by memory"
        if shown < expected:
            note += "; the log at times reflects twice on an attempt, or on one it does not hold"
        result.notes.append(note)
    return result


def _differences(episode: Episode, planned: Planned) -> Iterator[str]:
    attempt = planned.attempt
    assert attempt is not None
    if episode.success != (planned.label == "correct"):
        last = attempt.turns[min(len(episode.steps), len(attempt.turns)) - 1]
        held = f"against the key {attempt.key!r} " if attempt.key else f"answered by {last.observation[:80]!r} "
        yield f"logged as {planned.label}; {last.action!r} {held}gives success={episode.success}"
    if episode.error:
        yield f"the replay broke off: {episode.error.strip().splitlines()[-1]}"
    ours = [(s.action.text, s.next_observation) for s in episode.steps]
    theirs = [(t.action, t.observation) for t in attempt.turns]
    for number, (mine, logged) in enumerate(zip(ours, theirs, strict=False), start=1):
        if _flat(mine[0]) != _flat(logged[0]) and episode.steps[number - 1].action.valid:
            yield f"turn {number}: the action was read as {mine[0]!r}; logged is {logged[0]!r}"
        elif _flat(mine[1]) != _flat(logged[1]):
            yield f"turn {number}: observed {mine[1][:80]!r}; logged is {logged[1][:80]!r}"
    if len(ours) != len(theirs) and not episode.error:
        yield f"{len(ours)} turns were played; {len(theirs)} are logged"


def _flat(text: str) -> str:
    return " ".join(text.split())


def replay_programs(log: ProgramLog, *, workers: int = 1) -> tuple[int, list[str]]:
    """Judge all programs of a log: how many pass, and every difference from the log in words."""
    rows = {row.name: row for row in log.rows if row.task is not None}

    def answer(request: Request) -> str:
        name = _situation(request).partition("\n")[0]
        program = rows[name].solution
        fenced = f"```python\n{program}\n```"
        return fenced if parsing.program(fenced) == program.strip("\n") else program

    agent = react(ScriptedLLM(answer, name="replay"), policy=Program(reasks=0, max_tokens=_LONG))
    tasks = [row.task for row in rows.values() if row.task is not None]
    with _registered("Programs", lambda: CodeEnv(tasks, tries=1, timeout_s=10.0)) as env_id:
        todo = [Task(env_id, goal=name, options=Options({"task": name}), name=name) for name in rows]
        played = run(agent, todo, workers=workers, max_steps=1)
    disagreements = []
    with Sandbox() as sandbox:
        for episode in played.episodes:
            row = rows[episode.task.name]
            if episode.error:
                disagreements.append(f"{row.name}: {episode.error.strip().splitlines()[-1]}")
            elif episode.success != row.solved:
                why = _why(row, list(rows.values()), sandbox, episode.success)
                said = "passes" if episode.success else "fails"
                disagreements.append(f"{row.name}: {said} here, logged as solved={row.solved}. {why}".strip())
    return sum(e.success for e in played.episodes), disagreements


def _why(row: Written, rows: Sequence[Written], sandbox: Sandbox, passes: bool) -> str:
    """Tries the two explanations that a checker in one process for all programs gives: that programs before this one
    left definitions behind, and that the checker's own imports of typing names were there."""
    assert row.task is not None
    program, test = row.task.program(row.solution), "\n".join(row.task.hidden)
    own, used = _names(f"{program}\n{test}")
    left: dict[str, Written] = {}
    for other in rows[: rows.index(row)]:
        if other.task is not None:
            left.update(dict.fromkeys(_names(other.task.program(other.solution))[0], other))
    shared = {name: left[name] for name in sorted(used - own) if name in left}
    before = "\n".join(o.task.program(o.solution) for o in dict.fromkeys(shared.values()) if o.task is not None)
    if shared and sandbox.run(f"{before}\n{program}\n{test}", timeout_s=10.0).ok is not passes:
        whose = ", ".join(f"`{name}` of {other.name}" for name, other in shared.items())
        return (
            f"It {'fails' if passes else 'passes'} when programs before it ran in the same process ({whose}): the "
            "log's checker shared globals between tasks."
        )
    if not passes and sandbox.run(f"from typing import *\n{program}\n{test}", timeout_s=10.0).ok:
        return "It passes where the names of typing are imported, as in the log's checker."
    return "No program before it in the log explains it."


def _names(program: str) -> tuple[set[str], set[str]]:
    """The names that a program binds at its top level, and those that it uses."""
    try:
        tree = parse_module(program)
    except (SyntaxError, ValueError):
        return set(), set()
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            bound |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return bound, used


@contextmanager
def _registered(name: str, make: Any) -> Iterator[str]:
    """An environment that is known by an id as long as the block lasts. ``make`` makes it."""
    number = 0
    while (env_id := f"published/{name}{number}-v0") in gymnasium.registry:
        number += 1
    gymnasium.register(id=env_id, entry_point=make, disable_env_checker=True)
    try:
        yield env_id
    finally:
        del gymnasium.registry[env_id]
