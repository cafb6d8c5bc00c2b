"""Going back to an earlier moment of an episode, in any world: by replaying the actions that led there.

Search and Go-Explore need it (Ecoffet et al., 2021, section "Return"). A world that can save its state cheaply offers
``snapshot()`` and ``restore(snapshot)`` itself, as `agentkit.envs.textworld.TextWorldEnv` does; a replay works with any
world that keeps the contract, and with all wrappers below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentkit.envs.wrappers import Answer, TextWrapper
from agentkit.errors import ContractError, InvalidValue


@dataclass(frozen=True, slots=True)
class Prefix:
    """A moment of an episode: how it began, and the actions since. It holds values only and may be kept on disk."""

    seed: int
    options: tuple[tuple[str, Any], ...]
    actions: tuple[str, ...]
    observation: str


class Replay(TextWrapper):
    """Adds `snapshot` and `restore` to an environment. Episodes must begin with a seed."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._now: Prefix | None = None
        self._over = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        text, info = self.env.reset(seed=seed, options=options)
        self._now = None if seed is None else Prefix(seed, tuple(sorted((options or {}).items())), (), text)
        self._over = False
        return text, info

    def step(self, action: str) -> Answer:
        answer = self.env.step(action)
        if self._now is not None:
            self._now = Prefix(self._now.seed, self._now.options, (*self._now.actions, action), answer[0])
        self._over = answer[2] or answer[3]
        return answer

    def snapshot(self) -> Prefix:
        """This moment. Raises `InvalidValue` where the episode did not begin with a seed."""
        if self._now is None:
            raise InvalidValue("an episode can be replayed when it began with a seed: reset(seed=…)")
        return self._now

    def restore(self, moment: Prefix) -> tuple[str, dict[str, Any]]:
        """Play the actions of ``moment`` again; returns the observation and info of its last step (or of reset).

        Steps on from where the episode is when that lies on the way. Raises `ContractError` where the world does not
        answer as it did then.
        """
        now, on_the_way = self._now, False
        if now is not None and not self._over and (now.seed, now.options) == (moment.seed, moment.options):
            done = len(now.actions)
            on_the_way = 0 < done < len(moment.actions) and moment.actions[:done] == now.actions
        if on_the_way and now is not None:
            text = now.observation
            info: dict[str, Any] = {}
            rest = moment.actions[len(now.actions) :]
        else:
            text, info = self.reset(seed=moment.seed, options=dict(moment.options))
            rest = moment.actions
        for action in rest:
            text, _, _, _, info = self.step(action)
        if text != moment.observation:
            raise ContractError(
                f"the world is not deterministic: after the same {len(moment.actions)} actions it said "
                f"{text[:100]!r}, not {moment.observation[:100]!r}. agentkit.testing.check_env says more"
            )
        return text, info
