"""The house: what is declared is what is there, and it installs beside a user's own folders."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def tracked(root: Path) -> list[Path]:
    """The files of the project that git does not ignore, or all of them where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return sorted({Path(name) for name in listed.stdout.split("\0") if name and (root / name).exists()})
    return [p.relative_to(root) for p in root.rglob("*") if p.is_file() and ".venv" not in p.parts]


def packages(root: Path) -> set[str]:
    """The package of every folder that holds a module, by the names they install under."""
    found = set()
    for file in tracked(root):
        if file.suffix == ".py" and file.parts[0] in ("agentkit", "memory", "envs"):
            name = ".".join(file.parent.parts)
            found.add(name if file.parts[0] == "agentkit" else f"agentkit.{name}")
    return found


def test_the_declared_packages_are_the_folders(root: Path, project: dict[str, Any]) -> None:
    declared = project["tool"]["setuptools"]["packages"]
    assert len(declared) == len(set(declared))
    assert set(declared) == packages(root)
    for name in declared:
        assert (root / _folder(name) / "__init__.py").is_file(), f"{name} has no __init__.py"


def _folder(package: str) -> Path:
    parts = package.split(".")
    return Path(*parts[1:]) if parts[1:2] in (["memory"], ["envs"]) else Path(*parts)


def test_files_that_are_not_python_are_declared_too(root: Path, project: dict[str, Any]) -> None:
    declared = project["tool"]["setuptools"]["package-data"]
    for file in tracked(root):
        if file.parts[0] not in ("agentkit", "memory", "envs") or file.suffix == ".py" or (root / file).is_symlink():
            continue
        inside = [
            p
            for p, patterns in declared.items()
            for x in patterns
            if file in {f.relative_to(root) for f in (root / _folder(p)).glob(x)}
        ]
        assert inside, f"{file} is not in package-data"


def test_the_symlinks_are_there_and_committed_as_such(root: Path) -> None:
    for name in ("memory", "envs"):
        link = root / "agentkit" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../{name}"
        mode = subprocess.run(["git", "ls-files", "-s", f"agentkit/{name}"], cwd=root, capture_output=True, text=True)
        assert mode.returncode != 0 or mode.stdout.startswith("120000")


def test_the_import_rules_hold(root: Path) -> None:
    pytest.importorskip("importlinter")
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def test_the_ground_floor_imports_nothing_of_the_house_but_what_lies_below_it(root: Path) -> None:
    import ast

    for file in tracked(root):
        if file.parts[0] not in ("memory", "envs") or file.suffix != ".py":
            continue
        own = f"agentkit.{file.parts[0]}"
        for node in ast.walk(ast.parse((root / file).read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] == "agentkit":
                    below = name in ("agentkit.address", "agentkit.errors", "agentkit.syntax")
                    assert below or name == own or name.startswith(f"{own}."), f"{file}: {name}"


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The project as its wheel installs it, and the clean copy of its files from which the wheel was made."""
    if find_spec("setuptools") is None or find_spec("pip") is None:
        pytest.skip("needs pip and setuptools")
    copy = tmp_path_factory.mktemp("copy")
    for file in tracked(root):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        if (root / file).is_symlink():
            (copy / file).symlink_to(os.readlink(root / file))
        else:
            (copy / file).write_bytes((root / file).read_bytes())
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(wheels),
        str(copy),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target, copy


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path]) -> Path:
    """A folder into which the project is installed as a user gets it."""
    return built[0]


def run_there(program: str, folder: Path, installed: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_users_project_keeps_its_own_memory_and_envs(installed: Path, tmp_path: Path) -> None:
    for name in ("memory", "envs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"MINE = '{name} of mine'\n")
        (tmp_path / name / "store.py").write_text("HERE = 1\n")
    program = """
import memory, envs, memory.store
assert (memory.MINE, envs.MINE, memory.store.HERE) == ("memory of mine", "envs of mine", 1)
import agentkit, agentkit.memory, agentkit.envs
assert agentkit.memory.Memory is not None and agentkit.envs.make is not None
assert memory.MINE == "memory of mine"
from agentkit import Memory, Record, ScriptedLLM, reflexion, run
store = Memory("mine.db")
store.add(Record(kind="lesson", text="the ice is thin"))
agent = reflexion(ScriptedLLM(scorer=lambda r: [0.0] * len(r.choices)), store)
played = run(agent, "agentkit/FrozenLake-v0", trials=2, max_steps=5, log="run.db")
print(agentkit.__file__, len(played.episodes))
"""
    result = run_there(program, tmp_path, installed)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(installed / "agentkit" / "__init__.py"), "2"]


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_prompt_and_nothing_else(built: tuple[Path, Path]) -> None:
    installed, copy = built
    # Another test may have imported it from there, and left its compiled modules.
    files = (p for p in installed.rglob("*") if p.is_file() and p.suffix != ".pyc")
    there = {p.relative_to(installed) for p in files if "dist-info" not in str(p)}
    expected = set()
    for top in ("agentkit", "memory", "envs"):
        for file in (copy / top).rglob("*"):
            if file.is_file() and "egg-info" not in str(file):  # a symlink is not followed
                inside = file.relative_to(copy)
                expected.add(inside if top == "agentkit" else Path("agentkit") / inside)
    assert there == expected
    assert {p.name for p in installed.iterdir() if "dist-info" not in p.name} == {"agentkit"}
