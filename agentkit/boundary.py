"""The boundary around a world: what it says is checked before anyone relies on it, what it raises becomes data.

The rules are those of `agentkit.envs`. Here stands what the loop and the log depend on; `agentkit.testing.check_env`
finds all that breaks the contract.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from agentkit.errors import ContractError
from agentkit.types import storable

_STEP = "(observation, reward, terminated, truncated, info)"


class WorldError(Exception):
    """What an environment raised, as the text of its traceback."""


@contextmanager
def world() -> Iterator[None]:
    """Whatever leaves the block is a `WorldError`. A world that calls ``exit`` ends its episode, not the run."""
    try:
        yield
    except (Exception, SystemExit):
        raise WorldError(storable(traceback.format_exc())) from None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a world answered. ``goal`` is that of a reset; ``reward`` is 0 there."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    success: bool
    admissible: tuple[str, ...] | None
    score: float | None
    feedback: str
    goal: str


def began(answer: object) -> Seen:
    """What ``reset`` returned. Raises `ContractError` with the broken rule."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        _broken(f"reset returned {_shape(answer)}; it must return (observation, info).")
    observation, info = answer
    return _seen(observation, 0.0, False, False, info)


def answered(answer: object) -> Seen:
    """What ``step`` returned. Raises `ContractError` with the broken rule."""
    if not isinstance(answer, tuple) or len(answer) != 5:
        _broken(f"step returned {_shape(answer)}; it must return {_STEP}.")
    return _seen(*answer)


def _seen(observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Seen:
    if not isinstance(observation, str):
        _broken(
            f"The observation is a {type(observation).__name__}; it must be text. "
            "Wrap the environment in agentkit.envs.TextAdapter and describe the observation."
        )
    if not isinstance(info, Mapping):
        _broken(f"info is a {type(info).__name__}; it must be a dict.")
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, (bool, np.bool_)):
            _broken(f"{name} is {value!r}; it must be True or False.")
    success = info.get("success", False)
    if not isinstance(success, (bool, np.bool_)):
        _broken(f"info['success'] is {success!r}; it must be True or False.")
    score = info.get("score")
    return Seen(
        observation=storable(str(observation)),
        reward=_number("The reward", reward),
        terminated=bool(terminated),
        truncated=bool(truncated),
        success=bool(success),
        admissible=_admissible(info.get("admissible_actions"), over=bool(terminated or truncated or success)),
        score=None if score is None else _number("info['score']", score),
        feedback=_text(info, "feedback"),
        goal=_text(info, "goal"),
    )


def _number(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, str):
        _broken(f"{what} is {value!r}; it must be a finite number.")
    return number


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key)
    if value is not None and not isinstance(value, str):
        _broken(f"info[{key!r}] is a {type(value).__name__}; it must be text.")
    return storable(str(value or ""))


def _admissible(listed: Any, *, over: bool) -> tuple[str, ...] | None:
    if listed is None or (over and not listed):
        return None
    if not isinstance(listed, (list, tuple)):  # the order of a set differs from process to process
        _broken(f"info['admissible_actions'] is a {type(listed).__name__}; it must be a list of texts.")
    if not listed:
        _broken("info['admissible_actions'] is empty and the episode is not over. Leave it out, or end the episode.")
    for action in listed:
        if not isinstance(action, str) or not action.strip():
            _broken(f"info['admissible_actions'] holds {action!r}; each must be a text that is not empty.")
    return tuple(dict.fromkeys(storable(str(action)) for action in listed))


def _shape(answer: object) -> str:
    return f"{len(answer)} values" if isinstance(answer, tuple) else f"a {type(answer).__name__}"


def _broken(rule: str) -> NoReturn:
    raise ContractError(rule)
