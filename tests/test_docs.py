"""The README is true: its programs run, its files exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run_program(program: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.textworld
@pytest.mark.timeout(600)
def test_the_readme_s_notebook_code_learns_and_recalls(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("textworld")
    out = run_program(BLOCKS[0], tmp_path)
    assert "12 episodes" in out
    assert re.search(r"\d+ records now, \d+ at event 40", out)
    assert (tmp_path / "coins.db").exists()
    assert (tmp_path / "coins_run.db").exists()


@pytest.mark.model
def test_the_readme_s_own_environment_learns(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run_program(BLOCKS[1], tmp_path)
    rates = re.search(r"success by trial: ([\d%, ]+);", out)
    assert rates is not None
    # Three buttons can be wrong; each is pressed once and never again, so the last trials succeed.
    assert rates.group(1).split(", ")[-3:] == ["100%"] * 3


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", (ROOT / "README.md").read_text()))
def test_the_readme_links_to_what_exists(target: str) -> None:
    assert (ROOT / target).exists()
