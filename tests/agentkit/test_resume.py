"""kill -9 at any moment, the same command again: the result is that of a run that was never interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentkit.agents.reflexion import reflexion
from agentkit.llm import ScriptedLLM
from agentkit.memory import Memory
from agentkit.runlog import RunLog, RunLogError
from agentkit.runner import run
from agentkit.types import Episode
from tests.agentkit import killed_run
from tests.agentkit.corridor import prefers

PROGRAM = str(Path(killed_run.__file__))
KILLED = -signal.SIGKILL


class Server:
    """Starts a process for each run, without importing everything anew."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads do not survive a fork
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, "--serve"], stdin=pipe, stdout=pipe, text=True, env=one_thread
        )

    def play(self, *arguments: str, kill_after_s: float | None = None) -> int:
        """The exit code of a run; after ``kill_after_s`` seconds it is killed from outside."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        timer = None
        if kill_after_s is not None:
            timer = threading.Timer(kill_after_s, _kill, [child])
            timer.start()
        code = int(self.process.stdout.readline())
        if timer is not None:
            timer.cancel()
            timer.join()
        return code


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    assert started.process.stdin is not None
    started.process.stdin.close()
    started.process.wait(30)
    assert started.process.stdout is not None
    started.process.stdout.close()


@pytest.fixture(scope="module", params=["memory.db", ""], ids=["memory", "no memory"])
def memory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def uninterrupted(memory: str) -> Any:
    return json.loads(json.dumps(killed_run.state(*killed_run.play(None, memory=memory))))


def outcome(folder: Path) -> Any:
    return json.loads((folder / "state.json").read_text())


def test_the_run_that_is_killed_has_something_to_lose(uninterrupted: Any, memory: str) -> None:
    assert len(uninterrupted["judgements"]) == len(killed_run.TASKS) * killed_run.TRIALS
    lessons = [call for call in uninterrupted["calls"] if call[2] == "reflect"]
    assert len(lessons) == (12 if memory else 0)
    assert any("after 2 lessons" in call[4] for call in lessons) == bool(memory)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_event(server: Server, memory: str, uninterrupted: Any, seed: int, tmp_path: Path) -> None:
    moments = random.Random(f"{seed} {memory}")
    kills = 0
    while True:
        arguments = [str(tmp_path), "--memory", memory, "--workers", str(moments.choice([1, 4]))]
        code = server.play(*arguments, "--die-at", str(moments.randint(1, 120)))
        if code != KILLED:
            break
        kills += 1
        assert not (tmp_path / "state.json").exists()
    assert code == 0
    assert kills >= 2
    assert outcome(tmp_path) == uninterrupted


def test_killed_while_it_learns(server: Server, uninterrupted: Any, memory: str, tmp_path: Path) -> None:
    """At each kind of event from the first judgement to the end of the round: what the memory holds by then is learned
    once, what it does not is learned anew."""
    (tmp_path / "whole").mkdir()
    events = killed_run.Events()
    killed_run.play(tmp_path / "whole", memory=memory, event=events)
    end = next(i for i, name in enumerate(events.names) if name.startswith("update rounds"))
    start = len(events.names[:end]) - events.names[:end][::-1].index("episode")
    window = dict(zip(events.names[start : end + 2], range(start + 1, end + 3), strict=True))  # the last of each kind
    assert ("answer" in window, "after memory" in window) == (bool(memory), bool(memory))
    assert "commit" in window
    for name, at in window.items():
        folder = tmp_path / str(at)
        folder.mkdir()
        assert server.play(str(folder), "--memory", memory, "--die-at", str(at)) == KILLED
        with RunLog(folder / "run.db") as log:
            assert log.query("select round, learned from rounds") == [{"round": 0, "learned": 0}], name
        assert server.play(str(folder), "--memory", memory) == 0
        assert outcome(folder) == uninterrupted, f"killed at: {name}"


def test_killed_from_outside_at_random_times(server: Server, memory: str, uninterrupted: Any, tmp_path: Path) -> None:
    moments = random.Random(7)
    codes = []
    for patience in range(60):  # it grows, so that a slow machine comes to the end too
        kill_after_s = moments.uniform(0.02, 0.4 + 0.1 * patience)
        codes.append(server.play(str(tmp_path), "--memory", memory, "--workers", "2", kill_after_s=kill_after_s))
        if codes[-1] != KILLED:
            break
    assert codes[-1] == 0
    assert outcome(tmp_path) == uninterrupted


def test_the_same_command_in_a_shell(uninterrupted: Any, memory: str, tmp_path: Path) -> None:
    """A process of its own each time, with another hash seed, killed and not killed."""
    command = [sys.executable, PROGRAM, str(tmp_path), "--memory", memory]
    killed = subprocess.run([*command, "--die-at", "70"], env={**os.environ, "PYTHONHASHSEED": "1"}, check=False)
    assert killed.returncode == KILLED
    again = subprocess.run([*command, "--workers", "8"], env={**os.environ, "PYTHONHASHSEED": "2"}, check=False)
    assert again.returncode == 0
    assert outcome(tmp_path) == uninterrupted


def test_a_finished_run_is_read_and_not_played_again(
    server: Server, uninterrupted: Any, memory: str, tmp_path: Path
) -> None:
    for _ in range(2):
        assert server.play(str(tmp_path), "--memory", memory) == 0
        assert outcome(tmp_path) == uninterrupted


def stop_after(n: int) -> Any:
    told: list[Episode] = []

    def progress(episode: Episode) -> None:
        told.append(episode)
        if len(told) == n:
            raise InterruptedError("stop here")

    return progress


def play_until(n: int, memory: Memory, log: Path) -> None:
    agent = reflexion(ScriptedLLM(scorer=prefers), memory)
    run(agent, killed_run.TASKS, trials=3, max_steps=6, log=log, progress=stop_after(n))


def test_a_memory_that_was_not_kept_is_missed(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        play_until(6, Memory(), tmp_path / "run.db")
    with pytest.raises(RunLogError, match="not the memory that round 2 of the run 'reflexion'"):
        play_until(99, Memory(), tmp_path / "run.db")


def test_another_memory_is_told_from_the_runs_own(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        play_until(6, Memory(tmp_path / "memory.db"), tmp_path / "run.db")
    with pytest.raises(InterruptedError):
        play_until(11, Memory(tmp_path / "other.db"), tmp_path / "other-run.db")
    other = Memory(tmp_path / "other.db")
    before = other.seq
    with pytest.raises(RunLogError, match="not the memory"):
        play_until(99, other, tmp_path / "run.db")
    assert other.seq == before
    play_until(99, Memory(tmp_path / "memory.db"), tmp_path / "run.db")


def test_a_finished_run_does_not_need_its_memory(tmp_path: Path) -> None:
    play_until(99, Memory(), tmp_path / "run.db")
    play_until(99, Memory(), tmp_path / "run.db")


def test_two_processes_at_one_run_at_once_agree(memory: str, uninterrupted: Any, tmp_path: Path) -> None:
    command = [sys.executable, PROGRAM, str(tmp_path), "--memory", memory, "--workers", "2"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()[-2000:]
    result = outcome(tmp_path)
    assert {k: result[k] for k in ("fingerprint", "memory", "steps", "judgements", "rounds")} == {
        k: uninterrupted[k] for k in ("fingerprint", "memory", "steps", "judgements", "rounds")
    }
