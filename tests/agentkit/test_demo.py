"""The main job, as `agentkit demo` runs it, and the log that it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentkit.demo import LEVELS, tasks

ROOT = Path(__file__).resolve().parent.parent.parent


def agentkit(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentkit.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_seed_is_a_set_of_games() -> None:
    assert tasks(3, 6) == tasks(3, 6)
    assert len({task.name for seed in range(20) for task in tasks(seed, 6)}) == 120
    for task in tasks(3, 6):
        assert task.options["level"] in LEVELS[task.options["kind"]]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.textworld
@pytest.mark.timeout(900)
def test_the_demo_killed_and_started_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("textworld")
    quick = ("demo", "--quick", "--seed", "5", "--folder")

    whole = agentkit(*quick, "whole", folder=tmp_path)
    out, err = whole.communicate(timeout=600)
    assert whole.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert set(result) == {"with_memory", "retry", "difference", "interval", "seconds", "tokens"}
    assert len(result["with_memory"]) == len(result["retry"]) == 3
    # Nothing is remembered before the first trial, and the arms have the same seeds.
    assert result["with_memory"][0] == result["retry"][0]
    assert result["tokens"] > 0
    assert (tmp_path / "whole" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")

    cut = agentkit(*quick, "cut", folder=tmp_path)
    log = tmp_path / "cut" / "run.db"
    while not log.exists() or log.with_name("run.db-wal").stat().st_size < 100_000:
        assert cut.poll() is None, "the demo was over before it could be killed"
        time.sleep(0.05)  # until it has written some episodes
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    again = agentkit(*quick, "cut", folder=tmp_path)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    resumed = json.loads(out.splitlines()[-1])
    assert {**resumed, "seconds": 0} == {**result, "seconds": 0}

    shown = agentkit("log", "cut/run.db", "--episode", "with memory/1/2/1", folder=tmp_path)
    out, err = shown.communicate(timeout=60)
    assert shown.returncode == 0, err
    assert "records that shaped it: [" in out
    unknown = agentkit("log", "cut/run.db", "--run", "with memory/9", folder=tmp_path)
    _, err = unknown.communicate(timeout=60)
    assert unknown.returncode == 2
    assert "Did you mean" in err
