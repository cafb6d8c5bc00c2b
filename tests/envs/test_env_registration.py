"""Ids, what their import costs, and what is said about an unknown one."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest

import agentkit.envs
from agentkit.envs.registration import WORLDS, register_all
from agentkit.errors import UnknownName


def test_registering_twice_changes_nothing() -> None:
    register_all()
    before = dict(gymnasium.registry)
    register_all()
    assert dict(gymnasium.registry) == before
    assert {w.id for w in WORLDS} <= set(before)


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
