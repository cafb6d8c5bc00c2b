"""Worlds of text and code: Gymnasium environments whose observations and actions are text.

An environment here is a plain ``gymnasium.Env`` with `gymnasium.spaces.Text` spaces. What agents need beyond that
travels in ``info``:

======================  ==========================================================================================
``goal``                str, at reset: what is to be done
``success``             bool, in the info of every step: whether the goal is reached (neither ``terminated`` nor the
                        reward says so)
``admissible_actions``  list of str, optional: what can be done now, sorted the same way in every process
``score``               float in [0, 1], optional: the part of the task that is done
``feedback``            str, optional: errors, test output, why an action was refused
``gold``                list of str, only when ``reset(options={"gold": True})`` asks for it: actions that succeed
======================  ==========================================================================================

Names are imported when they are first used; ``import agentkit.envs`` loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "agentkit.envs":
    raise ImportError("import agentkit.envs: the bare name 'envs' is left to users' own folders")

if TYPE_CHECKING:
    from agentkit.envs.adapter import Outcome, TextAdapter
    from agentkit.envs.registration import env_ids, make, register_all
    from agentkit.envs.spaces import clean, text_space

_NAMES = {
    "Outcome": "adapter",
    "TextAdapter": "adapter",
    "clean": "spaces",
    "env_ids": "registration",
    "make": "registration",
    "register_all": "registration",
    "text_space": "spaces",
}
__all__ = ["Outcome", "TextAdapter", "clean", "env_ids", "make", "register_all", "text_space"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'agentkit.envs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"agentkit.envs.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
