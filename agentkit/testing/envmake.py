"""Making the environment that is checked, here and in another process; and what its methods take."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import gymnasium

from agentkit.envs import make, register_all
from agentkit.envs.extras import MissingProgram
from agentkit.envs.registration import creator
from agentkit.errors import InvalidValue, UnknownName
from agentkit.testing.envwatch import Broken, Env, Findings, home, said

Subject = str | Env | Callable[..., Env]
_REGISTER = (
    'register it first, in this process: gymnasium.register("mine/Guess-v0", "guess:Guess") for the class Guess in '
    'guess.py; or install the package that names it in [project.entry-points."agentkit.envs"]'
)
_RESET = "def reset(self, *, seed=None, options=None):"


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the ``subject`` with its arguments, and notes why it cannot."""

    subject: Subject
    kwargs: dict[str, Any]
    findings: Findings

    def __post_init__(self) -> None:
        if not isinstance(self.subject, str | gymnasium.Env) and not callable(self.subject):
            raise InvalidValue(
                f"check_env({self.subject!r}): give an id, an environment, or a class or function that makes one"
            )
        if isinstance(self.subject, gymnasium.Env) and self.kwargs:
            raise InvalidValue(
                f"an environment is there already: give its class for the arguments {sorted(self.kwargs)}"
            )

    @property
    def name(self) -> str:
        if isinstance(self.subject, str):
            return self.subject
        if isinstance(self.subject, gymnasium.Env):
            return self.subject.spec.id if self.subject.spec is not None else type(self.subject.unwrapped).__name__
        return str(getattr(self.subject, "__qualname__", self.subject))

    def make(self) -> Env:
        """The environment. Raises `Broken` where it cannot be made; what is not installed is raised as what it is."""
        if isinstance(self.subject, gymnasium.Env):
            return self.subject
        function = self._creator(self.subject) if isinstance(self.subject, str) else self.subject
        where = f"the constructor{home(function)}"
        if isinstance(function, type) and not issubclass(function, gymnasium.Env):
            remedy = f"class {function.__name__}(gymnasium.Env): …"
            self._broken(where, f"{function.__name__} is no gymnasium.Env", remedy)
        self._check_arguments(where, function)
        try:
            env: object = (
                make(self.subject, **self.kwargs) if isinstance(self.subject, str) else function(**self.kwargs)
            )
        except (ImportError, MissingProgram):
            raise  # no fault of the environment
        except (Exception, SystemExit) as error:
            given = ", ".join(f"{k}={v!r}" for k, v in self.kwargs.items()) or "no arguments"
            self._broken(where, said(error), f"it must not raise; it was called with {given}", error)
        if isinstance(env, type):
            self._broken(where, f"made the class {env.__name__}, not an environment", f"return {env.__name__}()")
        if not isinstance(env, gymnasium.Env):
            kind = type(env).__name__
            self._broken(where, f"made a {kind}, which is no gymnasium.Env", "return an environment")
        return env

    def another(self) -> Env | None:
        """One more, or None where there is only the one that was given."""
        if isinstance(self.subject, gymnasium.Env):
            if self.subject.spec is None:
                return None
            register_all()
            return gymnasium.make(self.subject.spec)
        return self.make()

    def elsewhere(self) -> dict[str, Any] | None:
        """How another process makes the environment, as JSON values; None where it cannot."""
        subject: Any = self.subject
        if isinstance(subject, gymnasium.Env):
            subject = None if subject.spec is None else subject.spec.id
        if isinstance(subject, str):
            spec = gymnasium.registry.get(subject.rpartition(":")[2])
            point = None if spec is None else spec.entry_point
            entry = point if isinstance(point, str) else _path(point)
            steps = None if spec is None else spec.max_episode_steps
            kwargs = {**({} if spec is None else spec.kwargs), **self.kwargs}
            steps = kwargs.pop("max_episode_steps", steps)
        else:
            entry, steps, kwargs = _path(subject), None, dict(self.kwargs)
        found = {"entry": entry, "max_steps": steps, "kwargs": kwargs}
        return found if entry is not None and _is_json(found) else None

    def _creator(self, id: str) -> Callable[..., Any]:
        try:
            return creator(id)
        except UnknownName as error:
            registered = id.rpartition(":")[2] in gymnasium.registry
            remedy = 'correct the "module:Class" that it is registered with, or put the module on the import path'
            self._broken(
                "the entry point" if registered else "the id",
                str(error),
                remedy if registered else _REGISTER,
                error,
            )
        except ImportError as error:
            error.add_note(f"It was raised while the module of {id} was imported: install what that module needs.")
            raise
        except (Exception, SystemExit) as error:
            remedy = "mend the module: it must be importable, and do nothing but define when it is imported"
            self._broken(f"the module of {id}", said(error), remedy, error)

    def _check_arguments(self, where: str, function: Callable[..., Any]) -> None:
        spec = gymnasium.registry.get(self.subject.rpartition(":")[2]) if isinstance(self.subject, str) else None
        kwargs = {**(spec.kwargs if spec is not None else {}), **self.kwargs}
        own = {k: v for k, v in kwargs.items() if spec is None or k not in ("max_episode_steps", "disable_env_checker")}
        try:
            inspect.signature(function).bind(**own)
        except TypeError as error:
            call = f"check_env({self.name!r}, …)" if spec is not None else f"check_env({self.name}, …)"
            remedy = f"give each argument a default value, or pass it, and no other: {call} takes them by name"
            self._broken(where, f"takes {inspect.signature(function)}: {error}", remedy, error)
        except ValueError:
            return  # it has no signature to look at

    def _broken(self, where: str, problem: str, remedy: str, error: BaseException | None = None) -> NoReturn:
        self.findings.broken("make", where, problem, remedy)
        raise Broken from error


def check_signatures(env: Env, findings: Findings) -> None:
    """That there are ``reset`` and ``step``, and what they take. Raises `Broken` where they cannot be called."""
    inner = type(env.unwrapped)
    broken = False
    for name, form in (("reset", _RESET), ("step", "def step(self, action):")):
        method = getattr(inner, name)
        if method is getattr(gymnasium.Env, name):
            findings.broken(name, name, f"{inner.__name__} has no {name}", form)
            broken = True
            continue
        parameters = inspect.signature(method).parameters
        problem = ""
        if name == "reset":
            lacking = [n for n in ("seed", "options") if n not in parameters or parameters[n].kind not in _BY_NAME]
            more = _needed(parameters, {"self", "seed", "options"})
            problem = f"it lacks {' and '.join(lacking)}" if lacking else f"it needs {', '.join(more)}" if more else ""
        else:
            try:
                inspect.signature(method).bind(env.unwrapped, "look")
            except TypeError as error:
                problem = str(error)
        if problem:
            findings.broken(name, name, f"is declared as {name}{inspect.signature(method)}: {problem}", form)
            broken = True
    if broken:
        raise Broken


_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _needed(parameters: Any, known: set[str]) -> list[str]:
    return [p.name for p in parameters.values() if p.name not in known and p.default is p.empty and p.kind in _BY_NAME]


def _path(subject: object) -> str | None:
    """``"module:attr"`` of a function or class, where another process can import it."""
    if isinstance(subject, functools.partial):
        return None
    module, name = getattr(subject, "__module__", None), getattr(subject, "__qualname__", "<")
    return None if module in (None, "__main__") or "<" in name else f"{module}:{name}"


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
