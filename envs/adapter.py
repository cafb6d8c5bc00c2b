"""Any Gymnasium environment as one of text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat

import gymnasium
import numpy as np

from agentkit.envs.spaces import MAX_ACTION, check_action, clean, quoted, text_space
from agentkit.envs.tasks import as_dict, as_score, checked
from agentkit.errors import ContractError, InvalidValue, UnknownName


class Outcome(NamedTuple):
    """What a success rule looks at: the last transition of the wrapped environment, and the sum of its rewards.

    ``observation`` and ``info`` are the wrapped environment's own, hence of any type.
    """

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    return_: float


class TextAdapter(gymnasium.Env[str, str]):
    """A text environment around any Gymnasium environment.

    Args:
        env: the environment to wrap.
        goal: what is to be done, in words; or a function of the first observation.
        describe: makes text of an observation.
        actions: the wrapped environment's action for each action's name; or a function from what the agent wrote to
            an action, or to None where it is none.
        success: the rule that says, after each step, whether the goal is reached. There is no default: an episode that
            ended, or that paid, need not have succeeded.
        admissible: the names of the actions that make sense after an observation. By default all of ``actions`` when
            it is a mapping, else none are listed.
        score: the part of the task that is done, in [0, 1].
        options: the options of ``reset`` that the wrapped environment knows: others raise `UnknownName`. None hands on
            whatever is given.

    An action that is none costs a step for the agent (a `gymnasium.wrappers.TimeLimit` outside counts it), does not
    reach the wrapped environment, pays nothing, and is answered in ``info["feedback"]``. Observations that are no
    member of the text space are made one by `agentkit.envs.clean`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        goal: str | Callable[[Any], str],
        describe: Callable[[Any], str],
        actions: Mapping[str, Any] | Callable[[str], Any],
        success: Callable[[Outcome], bool],
        admissible: Callable[[Any, Mapping[str, Any]], Sequence[str]] | None = None,
        score: Callable[[Outcome], float] | None = None,
        options: Collection[str] | None = None,
    ) -> None:
        _check_parts(env, goal, actions, describe=describe, success=success, admissible=admissible, score=score)
        self._by_name: dict[str, Any] = {}
        self._names: list[str] = []
        if isinstance(actions, Mapping):
            self._names = list(actions)
            self._by_name = {_normal(name): action for name, action in actions.items()}
            if len(self._by_name) < len(actions):
                raise InvalidValue(f"two actions have the same name but for case or spaces: {sorted(actions)}")
        self.env = env
        self.observation_space = text_space()
        self.action_space = text_space(MAX_ACTION)
        self._goal, self._describe, self._actions, self._success = goal, describe, actions, success
        self._admissible, self._score, self._options = admissible, score, options
        self._text = ""
        self._last = Outcome(None, 0.0, False, False, {}, 0.0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=self._known(options) if options else None)
        inner = self.env.unwrapped
        if inner._np_random is not None and inner._np_random_seed == seed:
            # Nothing is drawn here, and a generator costs as much to seed as several steps to take.
            self._np_random, self._np_random_seed = inner._np_random, seed
        else:
            super().reset(seed=seed)
        self._last = Outcome(observation, 0.0, False, False, info, 0.0)
        goal = self._goal if isinstance(self._goal, str) else self._goal(observation)
        self._text = self._told(self._describe(observation))
        listed = {"admissible_actions": self._listed()} if self._admissible is not None or self._by_name else {}
        return self._text, {"goal": goal, **listed}

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        if action.__class__ is not str:  # asked here, for it costs less than the call
            check_action(action)
        inner = self._by_name.get(action)
        if inner is None:  # not in its plain form
            inner = self._parse(action)
        if inner is None:
            feedback = f"There is no action {quoted(action)}."
            if isinstance(self._actions, Mapping):
                feedback += f" Actions: {', '.join(self._actions)}."
            # The outcome before this step stands: nothing has happened in the world.
            text = clean(f"{feedback}\n{self._text}")
            return text, 0.0, False, False, {**self._judged(), "feedback": feedback}
        observation, reward, terminated, truncated, info = self.env.step(inner)
        paid, over, cut = float(reward), bool(terminated), bool(truncated)
        self._last = Outcome(observation, paid, over, cut, info, self._last.return_ + paid)
        text = self._describe(observation)
        self._text = text = clean(text) if text.__class__ is str else self._told(text)
        return text, paid, over, cut, self._judged()

    def close(self) -> None:
        self.env.close()

    def _parse(self, action: str) -> Any:
        if isinstance(self._actions, Mapping):
            return self._by_name.get(_normal(action)) if len(action) <= MAX_ACTION else None
        return self._actions(action)

    def _known(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options for the wrapped environment."""
        given = as_dict("options", options)
        if self._options is None:
            return given
        for name in given:
            if name not in self._options and name != "gold":  # every world takes that; none is known here
                raise UnknownName.among("option", str(name), {"gold", *self._options})
        return {name: value for name, value in given.items() if name in self._options}

    def _told(self, text: object) -> str:
        if not isinstance(text, str):
            raise ContractError(f"describe returned a {type(text).__name__}: it must return a text (str)")
        return clean(text)

    def _judged(self) -> dict[str, Any]:
        success: object = self._success(self._last)
        if success is not True and success is not False:
            if not isinstance(success, np.bool_):
                raise ContractError(f"success returned {success!r}: it must say True or False")
            success = bool(success)
        info: dict[str, Any] = {"success": success}
        if self._admissible is not None or self._by_name:
            info["admissible_actions"] = self._listed()
        if self._score is not None:
            info["score"] = as_score("score", self._score(self._last))
        return info

    def _listed(self) -> list[str]:
        if self._admissible is not None:
            return list(self._admissible(self._last.observation, self._last.info))
        return self._names.copy()


def _check_parts(env: object, goal: object, actions: object, **functions: object) -> None:
    """Raise `InvalidValue` for what a `TextAdapter` cannot be made of."""
    if not isinstance(env, gymnasium.Env):
        raise InvalidValue(f"TextAdapter wraps a gymnasium.Env, for example gymnasium.make({str(env)!r}), not {env!r}")
    if not callable(goal) and not checked("goal", goal, str).strip():
        raise InvalidValue("goal='': say in words what is to be done")
    names = actions if isinstance(actions, Mapping) else None
    if not callable(actions) and not (names and all(isinstance(name, str) for name in names)):
        wanted = "a dict from each action's name to the environment's action, {'left': 0, 'right': 1}, or a function"
        raise InvalidValue(f"actions={actions!r}: {wanted} is needed")
    for name, function in functions.items():
        if not callable(function) and not (function is None and name in ("admissible", "score")):
            raise InvalidValue(f"{name}={function!r}: a function is needed")


def _normal(name: str) -> str:
    return " ".join(name.lower().split())
