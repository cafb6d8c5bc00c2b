"""Importing: light, lazy, and out of the way of users' own folders."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentkit

HEAVY = {
    *("torch", "transformers", "litellm", "openai", "faiss", "pandas", "sqlalchemy", "matplotlib", "gymnasium"),
    *("jinja2", "pydantic", "rich", "typer", "textworld", "numpy", "datasets", "peft", "trl", "httpx"),
}


def python(program: str, *, folder: Path | None = None, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
    if path:
        environment["PYTHONPATH"] = path
    return subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


def test_importing_agentkit_loads_nothing_heavy(root: Path) -> None:
    program = f"import sys; import agentkit; print(sorted({HEAVY!r} & set(sys.modules)), agentkit.__file__)"
    result = python(program, path=str(root))
    assert result.stdout.startswith("[] "), result.stdout + result.stderr


def test_importing_has_no_side_effect(root: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys, threading; before = dict(os.environ)\n"
        "import agentkit, agentkit.memory, agentkit.envs, agentkit.llm, agentkit.runner, agentkit.testing, agentkit.bench\n"
        "os.environ.pop('PYGAME_HIDE_SUPPORT_PROMPT', 0); before.pop('PYGAME_HIDE_SUPPORT_PROMPT', 0)  # gymnasium's\n"
        "assert dict(os.environ) == before; assert os.listdir() == []; assert threading.active_count() == 1\n"
        "heavy = {'torch', 'transformers', 'litellm', 'openai', 'faiss', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = python(program, folder=tmp_path, path=str(root))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_public_name_resolves_and_is_listed() -> None:
    for name in agentkit.__all__:
        assert getattr(agentkit, name) is not None
        assert name in dir(agentkit)
    assert sorted(set(agentkit.__all__)) == sorted(agentkit.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        agentkit.no_such_name  # noqa: B018
    for part in ("memory", "envs", "llm", "testing"):
        module = importlib.import_module(f"agentkit.{part}")
        for name in module.__all__:
            try:
                assert getattr(module, name) is not None
            except ImportError as error:  # an extra that is not installed
                assert not (error.name or "").startswith("agentkit"), f"{part}.{name}: {error}"  # noqa: PT017


def test_a_public_name_is_the_same_whatever_was_imported_before(root: Path) -> None:
    """A module of the same name must not take a function's place."""
    program = (
        "import agentkit, importlib, pkgutil\n"
        "first = {n: getattr(agentkit, n) for n in agentkit.__all__}\n"
        "import agentkit.runner, agentkit.rollout, agentkit.bench.compare, agentkit.agents.reflexion, agentkit.demo\n"
        "changed = [n for n in agentkit.__all__ if getattr(agentkit, n) is not first[n]]\n"
        "print(changed)\n"
    )
    for before in ("", "import agentkit.runner, agentkit.rollout, agentkit.cli\n"):
        result = python(before + program, path=str(root))
        assert result.stdout.strip() == "[]", result.stdout + result.stderr
        kinds = "import agentkit, types; print([n for n in agentkit.__all__ if isinstance(getattr(agentkit, n), types.ModuleType)])"
        result = python(before + kinds, path=str(root))
        assert result.stdout.strip() == "[]", result.stdout + result.stderr


@pytest.mark.parametrize("name", ["memory", "envs"])
def test_the_bare_names_are_refused_from_the_checkout(root: Path, name: str) -> None:
    result = python(f"import {name}", path=str(root))
    assert result.returncode == 1
    assert "ImportError" in result.stderr
    assert f"agentkit.{name}" in result.stderr.splitlines()[-1]
