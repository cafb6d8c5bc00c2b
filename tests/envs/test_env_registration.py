"""Ids, what their import costs, what is said about an unknown one; and each id keeps the contract."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import agentkit.envs
from agentkit.envs import TextAdapter
from agentkit.envs.extras import MissingProgram
from agentkit.envs.registration import WORLDS, register_all
from agentkit.errors import MissingExtra, UnknownName
from agentkit.testing import check_env
from tests.envs.needs import INSTALL, need

# What `check_env` is given where its defaults would take long, or where a world has no data of its own.
ARGUMENTS: dict[str, dict[str, Any]] = {
    # The smallest rooms: a bathroom.
    "agentkit/ALFWorld-v0": {"steps": 5, "options": {"task": "pick_and_place_simple", "scene": 401}},
    "agentkit/CodeTasks-v0": {"path": "tasks.jsonl"},
    "agentkit/Search-v0": {"questions": "questions.jsonl", "cache": "pages.jsonl"},
    "agentkit/TextWorld-v0": {"games": 2, "options": {"kind": "coin_collector", "level": 4}},
    "agentkit/BabyAIProgram-v0": {"steps": 3},
    "agentkit/CrafterProgram-v0": {"steps": 3},
    "agentkit/HumanEval-v0": {"steps": 3},
    "agentkit/TextCraftProgram-v0": {"steps": 3},
}
LINES: dict[str, list[dict[str, Any]]] = {
    "tasks.jsonl": [
        {"task_id": 1, "text": "Add one.", "code": "def f(x):\n    return x + 1", "test_list": ["assert f(1) == 2"]},
    ],
    "questions.jsonl": [{"question": "When did Creed disband?", "answer": "2004"}],
    "pages.jsonl": [{"entity": "Creed", "text": "A band.\nIt disbanded in 2004."}],
}


def test_every_id_is_on_the_page(root: Path) -> None:
    page = (root / "docs" / "environments.md").read_text()
    assert [world.id for world in WORLDS if f"`{world.id}`" not in page] == []


@pytest.mark.slow
@pytest.mark.parametrize("id", [world.id for world in WORLDS])
def test_it_keeps_the_contract(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with seeds that are not the defaults."""
    monkeypatch.chdir(tmp_path)
    for name, rows in LINES.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        report = check_env(id, **{"seeds": (11, 3), "steps": 10, **ARGUMENTS.get(id, {})})
    except (MissingExtra, MissingProgram) as missing:
        message = f"SKIPPED, NOT PASSED: {id}: {missing}"
        warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    assert report.skipped == ()


@pytest.mark.parametrize("package", sorted(INSTALL))
def test_a_skipped_test_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match=f"{package} is not installed: pip install "):
        need(package)


def test_registering_twice_changes_nothing() -> None:
    register_all()
    before = dict(gymnasium.registry)
    register_all()
    assert dict(gymnasium.registry) == before
    assert {w.id for w in WORLDS} <= set(before)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("my guess", "guess:Guess", "is no id"), ("agentkit/Taxi-v0", "guess:Guess", "is not used: the id is that of")],
)
def test_a_wrong_entry_point_does_not_keep_the_others_from_being_made(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [EntryPoint(name, value, "agentkit.envs")]
    monkeypatch.setattr("agentkit.envs.registration.entry_points", lambda group: wrong)
    with pytest.warns(UserWarning, match=f"'{name}'.*{words}"):
        env = agentkit.envs.make("agentkit/Taxi-v0")
    assert isinstance(env.unwrapped, TextAdapter)


@pytest.mark.parametrize(
    ("id", "near"),
    [
        ("agentkit/TextWord-v0", "agentkit/TextWorld-v0"),
        ("TextWorld-v0", "The id in full is 'agentkit/TextWorld-v0'"),
        ("nothing-like-it", "docs/environments.md"),
    ],
)
def test_an_unknown_id_is_answered_with_near_ones(id: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        agentkit.envs.make(id)
    assert near in str(caught.value)


def test_gymnasiums_own_make_works_after_register_all() -> None:
    register_all()
    env = gymnasium.make("agentkit/FrozenLake-v0", is_slippery=False, max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step("go left")[3] for _ in range(3)] == [False, False, True]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, agentkit.envs; print([m for m in ('gymnasium', 'numpy', 'textworld') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_bare_name_is_refused() -> None:
    code = "import sys; sys.path.insert(0, '.')\nimport envs"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode
    assert "import agentkit.envs" in answer.stderr


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'mke'"):
        _ = agentkit.envs.mke
