"""The contract, and when the vault is solved."""

from __future__ import annotations

import agentkit.envs
from agentkit.testing import check_env


def test_it_keeps_the_contract() -> None:
    assert check_env("plugin-world/Vault-v0").skipped == ()


def test_the_code_opens_it() -> None:
    env = agentkit.envs.make("plugin-world/Vault-v0", digits=4)
    _, info = env.reset(seed=3, options={"gold": True})
    _, reward, terminated, _, info = env.step(info["gold"][0])
    assert (reward, terminated, info["success"], info["score"]) == (1.0, True, True, 1.0)


def test_the_end_of_the_tries_is_no_success() -> None:
    env = agentkit.envs.make("plugin-world/Vault-v0", tries=2)
    env.reset(seed=0)
    env.step("no code")
    _, _, terminated, _, info = env.step("x")
    assert terminated
    assert info["success"] is False
