"""What a run is played in: its tasks, and the environments that its workers borrow."""

from __future__ import annotations

import logging
import queue
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium

from agentkit.envs import make
from agentkit.errors import ContractError, InvalidValue
from agentkit.types import Task

logger = logging.getLogger(__name__)

Env = gymnasium.Env[str, str]


def tasks_and_worlds(given: Any, workers: int) -> tuple[list[Task], Worlds]:
    """The tasks, and where their environments come from."""
    if isinstance(given, str):
        return [Task(given)], Worlds()
    if isinstance(given, Task):
        return [given], Worlds()
    if isinstance(given, gymnasium.Env):
        if workers > 1:
            raise InvalidValue("One environment cannot serve several workers: pass a callable that makes one.")
        env_id = given.spec.id if given.spec is not None else type(given).__name__
        return [Task(env_id)], Worlds({env_id: lambda: given}, keep=True)
    if callable(given):
        env_id = getattr(given, "__name__", type(given).__name__)
        return [Task(env_id)], Worlds({env_id: given})
    tasks = list(given) if isinstance(given, Iterable) else []
    if not tasks or not all(isinstance(task, Task) for task in tasks):
        raise InvalidValue(
            f"There is nothing to play in {given!r}. Give an environment id, an environment, a callable that makes "
            "one, a Task, or a list of Task."
        )
    if len({task.name for task in tasks}) < len(tasks):
        raise InvalidValue("Two tasks have the same name; memory and reports could not tell them apart. Name them.")
    return tasks, Worlds()


class Worlds:
    """Environments lent to one episode at a time, and kept for the next of the same id."""

    def __init__(self, makers: dict[str, Callable[[], Env]] | None = None, *, keep: bool = False) -> None:
        self._makers = makers or {}
        self._keep = keep  # an environment that the user made is the user's to close
        self._idle: dict[str, queue.SimpleQueue[Env]] = defaultdict(queue.SimpleQueue)
        self._broken: set[int] = set()

    def prepare(self, env_ids: Iterable[str]) -> None:
        """Make one environment of each id. What its making raises is the user's to see, before anything is played."""
        for env_id in sorted(env_ids):
            env: object = self._make(env_id)
            if not isinstance(env, gymnasium.Env):
                raise ContractError(f"{env_id} made a {type(env).__name__}; it must make a gymnasium.Env.")
            self._idle[env_id].put(env)

    def _make(self, env_id: str) -> Env:
        return self._makers[env_id]() if env_id in self._makers else make(env_id)

    @contextmanager
    def lend(self, env_id: str) -> Iterator[Env]:
        """An environment of that id, for this caller alone."""
        idle = self._idle[env_id]
        try:
            env = idle.get_nowait()
        except queue.Empty:
            try:
                env = self._make(env_id)
            except Exception as error:  # one of this id was made before: the world broke, and that is data
                env = _Unmade(error)
        try:
            yield env
        finally:
            if id(env) in self._broken and not self._keep:
                self._broken.discard(id(env))
                _close(env)
            else:
                idle.put(env)

    def discard(self, env: Env) -> None:
        """Do not lend this environment again: it raised."""
        self._broken.add(id(env))

    def __enter__(self) -> Worlds:
        return self

    def __exit__(self, *_: object) -> None:
        for idle in self._idle.values():
            while not idle.empty() and not self._keep:
                _close(idle.get_nowait())


class _Unmade(gymnasium.Env[str, str]):
    """Stands for an environment that could not be made: it raises, when it is begun, what its making raised."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        raise self._error


def _close(env: Env) -> None:
    try:
        env.close()
    except Exception:  # a broken world may not close either, and the run does not depend on it
        logger.warning("An environment could not be closed", exc_info=True)
