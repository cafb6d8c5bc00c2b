"""TextCraft's list of actions: what is on it can always be done, and it suffices to reach the goal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

import agentkit.envs
from tests.envs.needs import need

need("textcraft", whole_module=True)


@pytest.fixture
def env() -> Iterator[gymnasium.Env[str, str]]:
    made = agentkit.envs.make("agentkit/TextCraft-v0")
    yield made
    made.close()


def test_actions_are_listed_when_asked_for(env: Any) -> None:
    _, info = env.reset(seed=0, options={"goal": "stone slab"})
    assert "admissible_actions" not in info
    _, info = env.reset(seed=0, options={"goal": "stone slab", "admissible": True})
    before = info["admissible_actions"]
    assert "get 3 stone" in before
    assert not any(action.startswith("craft 6 stone slab") for action in before)
    _, _, _, _, info = env.step("get 3 stone")
    assert "craft 6 stone slab using 3 stone" in info["admissible_actions"]
    _, _, terminated, _, info = env.step("craft 6 stone slab using 3 stone")
    assert terminated
    assert info["success"]


@pytest.mark.parametrize("goal", ["birch slab", "end rod", "chain", "bowl", "yellow terracotta"])
def test_what_is_listed_is_never_refused(env: Any, goal: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        _, info = env.reset(seed=seed, options={"goal": goal, "admissible": True})
        for _ in range(15):
            actions = info["admissible_actions"]
            assert actions == sorted(set(actions))
            _, _, terminated, _, info = env.step(actions[int(rng.integers(len(actions)))])
            assert "feedback" not in info
            if terminated:
                break


def test_goals_are_reached_by_listed_actions_alone(env: Any) -> None:
    """Breadth first over inventories, a few steps deep: what two ways lead to is looked at once."""
    for goal in ("birch slab", "end rod", "bowl"):
        _, info = env.reset(seed=1, options={"goal": goal, "admissible": True})
        ways: list[tuple[str, ...]] = [()]
        seen: set[tuple[tuple[str, int], ...]] = set()
        reached = False
        while ways and not reached:
            way = ways.pop(0)
            _, info = env.reset(seed=1, options={"goal": goal, "admissible": True})
            for action in way:
                _, _, reached, _, info = env.step(action)
            held = tuple(sorted(env.unwrapped._world.inventory.items()))
            if reached or held in seen or len(way) > 3:
                continue
            seen.add(held)
            ways += [(*way, action) for action in info["admissible_actions"] if action != "inventory"]
        assert reached, goal
