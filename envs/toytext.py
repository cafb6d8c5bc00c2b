"""Gymnasium's toy-text environments as worlds of text: the shortest examples of `TextAdapter`.

Each states its own success rule. None of them is "the episode ended" or "something was paid": FrozenLake ends in a hole
too, Taxi pays for nothing on the way, and Blackjack ends with a loss.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from agentkit.envs.adapter import TextAdapter
from agentkit.envs.tasks import check_names, checked, choose
from agentkit.errors import InvalidValue

_MAPS = ("4x4", "8x8")
_SUITS = ("red", "green", "yellow", "blue")


def frozen_lake(**kwargs: Any) -> TextAdapter:
    """FrozenLake-v1. ``kwargs`` are its own: ``map_name``, ``is_slippery`` (True by default), ``desc``, …

    Success: the agent stands on the goal. What lies under a tile is seen only by stepping on it.
    """
    if (rows := kwargs.get("desc")) is not None:
        texts = isinstance(rows, list | tuple) and all(isinstance(row, str) for row in rows)
        kinds = set("".join(rows)) if texts else set()
        if not set("SG") <= kinds <= set("SFHG") or len(set(map(len, rows))) > 1:
            raise InvalidValue(f'desc={rows!r}: rows of one length made of S, F, H and G are needed, ["SFF", "FHG"]')
    choose("map_name", kwargs.get("map_name", "4x4"), _MAPS)
    lake = _inner("FrozenLake-v1", kwargs)
    tiles = [str(tile) for tile in lake.desc.astype(str).ravel()]
    goal_row, goal_column = (i + 1 for i in divmod(tiles.index("G"), lake.ncol))

    @functools.cache
    def describe(cell: int) -> str:
        row, column = cell // lake.ncol + 1, cell % lake.ncol + 1
        where = f"row {row} of {lake.nrow}, column {column} of {lake.ncol}"
        match tiles[cell]:
            case "H":
                return f"The ice breaks at {where}: you fell into a hole."
            case "G":
                return f"You have reached the goal at {where}."
            case _:
                return f"You stand on firm ice at {where}."

    return TextAdapter(
        lake,
        goal=f"Walk over the frozen lake to row {goal_row}, column {goal_column} without falling into a hole.",
        describe=describe,
        actions={"go left": 0, "go down": 1, "go right": 2, "go up": 3},
        success=lambda outcome: tiles[outcome.observation] == "G",
        options=(),
    )


def cliff_walking(**kwargs: Any) -> TextAdapter:
    """CliffWalking-v1. ``kwargs`` are its own: ``is_slippery`` (False by default).

    Success: the agent stands on the goal. A fall from the cliff costs 100 and leads back to the start.
    """
    cliff = _inner("CliffWalking-v1", kwargs)
    rows, columns = cliff.shape

    @functools.cache
    def describe(cell: int) -> str:
        row, column = int(cell) // columns + 1, int(cell) % columns + 1
        return f"You are at row {row} of {rows}, column {column} of {columns}."

    return TextAdapter(
        cliff,
        goal=(
            f"Walk to row {rows}, column {columns}. The tiles between it and row {rows}, column 1 are a cliff: "
            "who steps there falls and starts again."
        ),
        describe=describe,
        actions={"go up": 0, "go right": 1, "go down": 2, "go left": 3},
        success=lambda outcome: int(outcome.observation) == rows * columns - 1,
        options=(),
    )


def taxi(**kwargs: Any) -> TextAdapter:
    """Taxi-v4. ``kwargs`` are its own: ``is_rainy``, ``fickle_passenger``.

    Success: the passenger has been put down at the destination. Admissible are the actions that change something.
    """
    cab = _inner("Taxi-v4", kwargs)
    actions = {"go south": 0, "go north": 1, "go east": 2, "go west": 3, "pick up": 4, "put down": 5}

    def place(index: int) -> str:
        row, column = cab.locs[index]
        return f"the {_SUITS[index]} stop (row {row + 1}, column {column + 1})"

    @functools.cache
    def describe(state: int) -> str:
        row, column, passenger, destination = cab.decode(state)
        where = "in the taxi" if passenger == 4 else f"at {place(passenger)}"
        return (
            f"The taxi is at row {row + 1} of 5, column {column + 1} of 5. The passenger is {where} and wants to go to "
            f"{place(destination)}."
        )

    @functools.cache
    def delivered(state: int) -> bool:
        _, _, passenger, destination = cab.decode(state)
        return bool(passenger == destination)

    @functools.cache
    def possible(state: int) -> tuple[str, ...]:
        mask = cab.action_mask(state)
        return tuple(name for name, a in actions.items() if mask[a])

    return TextAdapter(
        cab,
        goal="Fetch the passenger and put them down at their destination.",
        describe=describe,
        actions=actions,
        success=lambda outcome: delivered(outcome.observation),
        admissible=lambda state, _info: possible(state),
        options=(),
    )


def blackjack(**kwargs: Any) -> TextAdapter:
    """Blackjack-v1. ``kwargs`` are its own: ``natural``, ``sab``.

    Success: the hand is over and won. A draw is none.
    """
    table = _inner("Blackjack-v1", kwargs)

    @functools.cache
    def describe(hand: tuple[int, int, int]) -> str:
        total, dealer, usable_ace = hand
        ace = ", counting an ace as 11" if usable_ace else ""
        shown = "an ace" if dealer == 1 else f"a {dealer}"
        return f"Your cards sum to {total}{ace}. The dealer shows {shown}."

    return TextAdapter(
        table,
        goal="Win the hand: come closer to 21 than the dealer without going over it.",
        describe=describe,
        actions={"stick": 0, "hit": 1},
        success=lambda outcome: outcome.terminated and outcome.reward > 0,
        options=(),
    )


def _inner(id: str, kwargs: dict[str, Any]) -> Any:
    """Gymnasium's environment, whose arguments are of their defaults' types; its numbers are probabilities."""
    creator = load_env_creator(str(gymnasium.spec(id).entry_point))
    check_names(id, creator, kwargs)
    for name, value in kwargs.items():
        default = inspect.signature(creator).parameters[name].default
        if isinstance(default, float):
            checked(name, value, float, low=0, high=1)
        elif default is not None:
            checked(name, value, type(default))
    return gymnasium.make(id, disable_env_checker=True, **kwargs).unwrapped
