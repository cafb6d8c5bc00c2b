"""A program that plays a run and can be killed at any event of it. Not a test itself: see test_resume.py.

    python killed_run.py FOLDER [--workers N] [--memory FILE] [--die-at K]     plays the run once
    python killed_run.py --serve                                              forks a process for each line of arguments

With ``--die-at K`` the process sends SIGKILL to itself at its K-th event: a statement or commit of the run log, a write of
the memory before and after it is stored, a model call, an episode that ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # it runs as a program too

import sqlalchemy as sa

from agentkit.agents.reflexion import reflexion
from agentkit.llm import ScriptedLLM
from agentkit.memory import Memory
from agentkit.runlog import RunLog
from agentkit.runner import Run, run
from agentkit.types import Episode, Judgement, Lesson, Message, Request, Task
from tests.agentkit import corridor

TASKS = [Task("tests/Corridor-v0", seed=i) for i in range(4)]
TRIALS = 3


class Reflects:
    """A lesson that depends on how many there were before: learning a round twice would show."""

    def reflect(self, episode: Episode, judgement: Judgement, earlier: Sequence[str], llm: Any) -> list[Lesson]:
        said = f"{episode.id}: {judgement.score:.2f}, after {len(earlier)} lessons"
        ((answer,),) = llm.generate([Request((Message("user", said),), max_tokens=9)])
        return [Lesson(answer.text, task=episode.task.name, evidence=(episode.id,))]


class Events:
    """Notes what happens, and ends this process at the given event, counted from 1."""

    def __init__(self, die_at: int = 0) -> None:
        self.die_at, self.lock = die_at, threading.Lock()
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        with self.lock:
            self.names.append(name)
            if len(self.names) == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def play(
    folder: Path | None, *, workers: int = 1, memory: str = "", event: Events | None = None
) -> tuple[Run, Memory | None, RunLog]:
    """The run, its memory, and its log; in memory without ``folder``."""
    event = event or Events()

    def answer(request: Request) -> str:
        event("answer")
        return f"noted {request.messages[0].content}"

    def scorer(request: Request) -> list[float]:
        event("score")
        return corridor.prefers(request)

    log = RunLog(folder / "run.db" if folder else ":memory:")
    sa.event.listen(log._engine, "before_cursor_execute", lambda *a: event(" ".join(a[2].split()[:4])))
    sa.event.listen(log._engine, "commit", lambda _: event("commit"))
    kept = Memory(folder / memory if folder else ":memory:", clock=lambda: 0.0) if memory else None
    if kept is not None:
        append = kept._backend.append

        def appended(*arguments: Any) -> Any:
            event("before memory")
            result = append(*arguments)
            event("after memory")
            return result

        setattr(kept._backend, "append", appended)  # noqa: B010 -- the type checker would see another signature
    agent = reflexion(ScriptedLLM(answer, scorer=scorer), kept, reflector=Reflects())
    played = run(
        agent, TASKS, trials=TRIALS, workers=workers, max_steps=6, seed=3, log=log, progress=lambda _: event("episode")
    )
    return played, kept, log


def state(played: Run, memory: Memory | None, log: RunLog) -> dict[str, Any]:
    """All by which two runs can be told apart, as JSON values."""
    records = (
        []
        if memory is None
        else [
            [r.id, r.kind, r.text, r.key, dict(r.data), r.task, r.outcome, r.episode, r.step] for r in memory.records()
        ]
    )
    credits = [] if memory is None else [[e.seq, e.episode, e.task, e.outcome] for e in memory.credits()]
    calls = "select round, episode, purpose, request_hash, prompt, answer, prompt_tokens from calls order by 1, 2, id"
    return {
        "fingerprint": played.fingerprint(),
        "usage": [played.usage.tokens, played.usage.calls],
        "memory": [records, credits, 0 if memory is None else memory.seq],
        "calls": [list(row.values()) for row in log.query(calls)],
        "judgements": [list(row.values()) for row in log.query("select * from judgements order by episode")],
        "steps": [list(row.values()) for row in log.query("select * from steps order by episode, step")],
        "rounds": [list(row.values()) for row in log.query("select * from rounds order by round")],
    }


def once(arguments: list[str]) -> None:
    """Play, and write the state to ``FOLDER/state.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", default="")
    parser.add_argument("--die-at", type=int, default=0)
    given = parser.parse_args(arguments)
    played, memory, log = play(given.folder, workers=given.workers, memory=given.memory, event=Events(given.die_at))
    result = json.dumps(state(played, memory, log))
    if memory is not None:
        memory.close()
    (given.folder / "state.json").write_text(result)


def serve() -> None:
    """For each line of arguments a fork plays; its process id is printed, then how it ended."""
    play(None, memory="warm")  # imports all that a run imports late
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                once(json.loads(line))
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else once(sys.argv[1:])
