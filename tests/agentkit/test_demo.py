"""The main job, as `agentkit demo` runs it, and the log that it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from agentkit.demo import LEVELS, tasks
from agentkit.runlog import RunLog

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


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--model", "nope"), "unknown model backend 'nope'"),
        (("--model", "locla/smollm2-135m"), "Did you mean 'local'"),
        (("--model", "openai/gpt-x"), "openai/gpt-x does not tell"),
        (("--folder", "file"), "nothing can be written to file"),
        (("--folder", "file/below"), "file is no folder"),
        (("--folder", "text"), "not a readable run log"),
        (("--folder", "other", "--seed", "2"), "holds a demo of other games"),
    ],
)
def test_what_the_demo_cannot_do_is_refused_before_anything_is_made(
    arguments: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setenv("AGENTKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").touch()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.db").write_text("hello")
    (tmp_path / "other").mkdir()
    with RunLog(tmp_path / "other" / "run.db") as log:
        log.run("retry/0", {"tasks": [asdict(task) for task in tasks(1, 2)]})
    before = sorted(tmp_path.rglob("*"))
    refused = agentkit("demo", "--quick", *arguments, folder=tmp_path)
    out, err = refused.communicate(timeout=60)
    assert (refused.returncode, out) == (2, "")
    assert why in err
    assert err.startswith("agentkit: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_log_is_not_made_by_looking_at_it(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for path, what in (("empty.db", "an empty file"), (".", "no file"), ("none.db", "no file")):
        looked = agentkit("log", path, folder=tmp_path)
        _, err = looked.communicate(timeout=60)
        assert looked.returncode == 2
        assert err == f"agentkit: {path} is {what}, and no run log.\n"
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("empty.db", 0)]
