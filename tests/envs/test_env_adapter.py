"""The adapter, the spaces, and the success rules of the toy worlds: neither the end nor the reward is success."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.envs import Outcome, TextAdapter, clean, make, text_space
from agentkit.errors import ContractError, InvalidValue, UnknownName


class Corridor(gymnasium.Env[Any, Any]):
    """Cells 0 to 4. Each step pays 1; cell 4 ends the episode, and so does cell 0 after the start."""

    observation_space = gymnasium.spaces.Discrete(5)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell = (options or {}).get("start", 2)
        return self.cell, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.cell += 1 if action else -1
        return self.cell, 1.0, self.cell in (0, 4), False, {}


def corridor(**more: Any) -> TextAdapter:
    rule: dict[str, Any] = {"success": lambda outcome: outcome.observation == 4, **more}
    return TextAdapter(
        Corridor(),
        goal="Reach cell 4.",
        describe=lambda cell: f"You are in cell {cell}.",
        actions={"left": 0, "right": 1},
        **rule,
    )


def test_the_end_and_the_reward_are_not_success() -> None:
    env = corridor()
    assert env.reset() == ("You are in cell 2.", {"goal": "Reach cell 4.", "admissible_actions": ["left", "right"]})
    env.step("left")
    _, reward, terminated, _, info = env.step("left")
    assert (reward, terminated, info["success"]) == (1.0, True, False)
    env.reset()
    env.step("right")
    assert env.step(" RIGHT ")[4]["success"] is True


def test_an_unknown_action_changes_nothing_and_is_answered() -> None:
    env = corridor()
    env.reset()
    text, reward, terminated, truncated, info = env.step("fly")
    assert text == 'There is no action "fly". Actions: left, right.\nYou are in cell 2.'
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    assert info["feedback"] == 'There is no action "fly". Actions: left, right.'
    assert env.step("right")[0] == "You are in cell 3."


def test_the_rule_sees_the_whole_outcome() -> None:
    seen: list[Outcome] = []

    def rule(outcome: Outcome) -> bool:
        seen.append(outcome)
        return outcome.return_ >= 2

    env = corridor(success=rule)
    env.reset()
    assert [env.step(a)[4]["success"] for a in ("right", "right")] == [False, True]
    assert seen[-1] == Outcome(4, 1.0, True, False, {}, 2.0)


def test_options_reach_the_world_and_score_stays_in_range() -> None:
    env = corridor(score=lambda outcome: outcome.observation / 3, admissible=lambda cell, _: ["left"])
    text, info = env.reset(options={"start": 3})
    assert (text, info["admissible_actions"]) == ("You are in cell 3.", ["left"])
    assert env.step("right")[4]["score"] == 1.0


def test_actions_may_be_a_function() -> None:
    env = TextAdapter(
        Corridor(),
        goal=lambda cell: f"Leave cell {cell}.",
        describe=str,
        actions=lambda text: int(text) if text in ("0", "1") else None,
        success=lambda outcome: outcome.observation == 4,
    )
    assert env.reset() == ("2", {"goal": "Leave cell 2."})
    assert env.step("1")[0] == "3"
    assert "no action" in env.step("x")[4]["feedback"]


@pytest.mark.parametrize("actions", [{}, {"Go": 0, " go ": 1}])
def test_wrong_actions_are_told(actions: dict[str, int]) -> None:
    with pytest.raises(InvalidValue):
        TextAdapter(Corridor(), goal="g", describe=str, actions=actions, success=lambda _: False)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"env": "CartPole-v1"}, "gymnasium.make('CartPole-v1')"),
        ({"goal": None}, "goal=None: a text is needed"),
        ({"goal": " "}, "say in words what is to be done"),
        ({"describe": "a cell"}, "describe='a cell': a function is needed"),
        ({"success": "terminated"}, "success='terminated': a function is needed"),
        ({"actions": ["left", "right"]}, "a dict from each action's name"),
        ({"actions": {0: "left"}}, "a dict from each action's name"),
        ({"score": 0.5}, "score=0.5: a function is needed"),
    ],
)
def test_what_an_adapter_cannot_be_made_of_is_told(part: dict[str, Any], words: str) -> None:
    parts: dict[str, Any] = {"goal": "Go.", "describe": str, "actions": {"left": 0}, "success": lambda outcome: True}
    with pytest.raises(InvalidValue) as caught:
        TextAdapter(**{"env": Corridor(), **parts, **part})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"describe": lambda cell: cell}, "describe returned a int: it must return a text"),
        ({"success": lambda outcome: None}, "success returned None: it must say True or False"),
        ({"success": lambda outcome: outcome.reward}, "success returned 1.0"),
        ({"score": lambda outcome: None}, "score returned None: it must return a number"),
    ],
)
def test_what_its_functions_must_return_is_told(part: dict[str, Any], words: str) -> None:
    parts: dict[str, Any] = {"goal": "Go.", "describe": str, "actions": {"left": 0}, "success": lambda outcome: True}
    env = TextAdapter(Corridor(), **{**parts, **part})
    with pytest.raises(ContractError, match=words):
        _ = env.reset(seed=0), env.step("left")


def test_only_the_options_it_was_told_of_are_taken() -> None:
    env = corridor(options=("start",))
    assert env.reset(options={"start": 3, "gold": True})[0] == "You are in cell 3."
    with pytest.raises(UnknownName, match="Did you mean 'start'"):
        env.reset(options={"strat": 3})
    with pytest.raises(InvalidValue, match="options=3: a dict is needed"):
        env.reset(options=3)  # type: ignore[arg-type]


@given(st.text(max_size=3000), st.integers(0, 200))
def test_clean_makes_members_of_the_space(text: str, length: int) -> None:
    assert clean(text, length) in text_space(length)


def test_clean_leaves_what_worlds_print_alone() -> None:
    text = "25 °C ≤ x ➞ y\tÄöß „quoted“ — Ελλάδα ├─┤ ✓ €5\n"
    assert clean(text) == text
    assert clean("a\r\nb") == "a\nb"
    assert clean("打") == "\ufffd"
    assert "characters left out" in clean("x" * 300, 200)


# The rules of the toy worlds.


def play(id: str, actions: list[str], seed: int = 0, **kwargs: Any) -> tuple[float, bool, bool]:
    """The last reward, whether the episode ended, and whether it succeeded."""
    env = make(id, **kwargs)
    env.reset(seed=seed)
    for action in actions:
        _, reward, terminated, _, info = env.step(action)
    return float(reward), terminated, info["success"]


def test_frozen_lake_succeeds_on_the_goal_and_not_in_a_hole() -> None:
    way = ["down", "down", "right", "right", "down", "right"]
    assert play("agentkit/FrozenLake-v0", [f"go {w}" for w in way], is_slippery=False) == (1.0, True, True)
    assert play("agentkit/FrozenLake-v0", ["go down", "go right"], is_slippery=False) == (0.0, True, False)
    paid: dict[str, Any] = {"is_slippery": False, "reward_schedule": (0, 5, 5)}
    assert play("agentkit/FrozenLake-v0", ["go down", "go right"], **paid) == (5.0, True, False)
    assert play("agentkit/FrozenLake-v0", [f"go {w}" for w in way], **paid) == (0.0, True, True)


def test_cliff_walking_succeeds_at_the_goal_only() -> None:
    assert play("agentkit/CliffWalking-v0", ["go up", *["go right"] * 11, "go down"]) == (-1.0, True, True)
    assert play("agentkit/CliffWalking-v0", ["go right"]) == (-100.0, False, False)


def test_blackjack_succeeds_with_a_win_only() -> None:
    outcomes = {play("agentkit/Blackjack-v0", ["stick"], seed) for seed in range(40)}
    assert outcomes == {(1.0, True, True), (0.0, True, False), (-1.0, True, False)}


def test_taxi_succeeds_when_the_passenger_is_delivered() -> None:
    env = make("agentkit/Taxi-v0")
    cab: Any = env.unwrapped.env  # type: ignore[attr-defined]
    for seed in range(6):
        _, info = env.reset(seed=seed)
        rewards, plan = [], _taxi_plan(cab)
        for action in plan:
            assert action in info["admissible_actions"]
            assert info.get("success", False) is False
            _, reward, terminated, _, info = env.step(action)
            rewards.append(reward)
        assert (terminated, info["success"], rewards[-1]) == (True, True, 20.0)


def _taxi_plan(cab: Any) -> list[str]:
    """Breadth-first search over the environment's own transition table."""
    names = ["go south", "go north", "go east", "go west", "pick up", "put down"]
    frontier: list[tuple[int, list[str]]] = [(int(cab.s), [])]
    seen = {int(cab.s)}
    for state, plan in frontier:
        for action in range(6):
            _, after, reward, _ = cab.P[state][action][0]
            if reward == 20:
                return [*plan, names[action]]
            if after not in seen:
                seen.add(after)
                frontier.append((after, [*plan, names[action]]))
    raise AssertionError("no plan")


def test_a_step_limit_leaves_success_said() -> None:
    env = make("agentkit/CliffWalking-v0", max_episode_steps=2)
    env.reset(seed=0)
    env.step("go up")
    _, _, terminated, truncated, info = env.step("go up")
    assert (terminated, truncated, info["success"]) == (False, True, False)
