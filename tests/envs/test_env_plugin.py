"""The template of a world in a package of its own: installed as a user installs it, its own tests pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools")
pytest.importorskip("pip")
TEMPLATE = Path(__file__).parents[2] / "examples" / "plugin_world"


def test_the_template_installs_registers_and_passes_its_own_tests(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(source)], check=True, capture_output=True)
    paths = [str(target), *(p or os.getcwd() for p in sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(source / "tests")],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "3 passed" in tests.stdout
    code = (
        "import agentkit.envs as e; assert 'plugin-world/Vault-v0' in e.env_ids();"
        "print(e.make('plugin-world/Vault-v0', digits=3).reset(seed=0)[1]['goal'])"
    )
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "Open the vault: find its code of 3 digits.\n"
