"""Every error of the package: of one root, a standard error too, and the same after pickling."""

from __future__ import annotations

import builtins
import importlib
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

import agentkit
from agentkit.errors import AgentkitError, MissingExtra, UnknownName


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(agentkit.__path__, "agentkit."):
        if not found.name.startswith("agentkit.envs.sandbox.inside"):  # these run in a process of their own
            yield found.name


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.fixture(scope="module")
def errors() -> list[type[BaseException]]:
    """All of them; it takes seconds, for it imports every module."""
    for name in modules():
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # an extra that is not installed
    ours = {e for e in subclasses(AgentkitError) if e.__module__.startswith("agentkit")}
    return sorted(ours, key=lambda e: e.__qualname__)


STANDARD = tuple(
    e for e in vars(builtins).values() if isinstance(e, type) and issubclass(e, Exception) and e is not Exception
)


def test_all_errors_are_found(errors: list[type[BaseException]]) -> None:
    names = {e.__name__ for e in errors}
    assert {"UnknownName", "RunLogError", "NotAStore", "ContextTooLong", "ContractError"} <= names
    assert len(names) == len(errors), "two errors have the same name"


def test_an_error_is_a_standard_one_and_survives_pickling(errors: list[type[BaseException]]) -> None:
    message = "what was given 'x', what is accepted, what to do: ünïcode"
    for error in errors:
        assert issubclass(error, STANDARD), f"{error.__name__} refines no standard error"
        try:
            raise error(message)
        except STANDARD as caught:
            again = pickle.loads(pickle.dumps(caught))
        assert type(again) is error
        assert str(again) == message, error
        assert again.args == (message,), error


def test_an_unknown_name_answers_with_near_ones() -> None:
    error = UnknownName.among("agent", "reflexoin", ["reflexion", "voyager"])
    assert str(error) == "unknown agent 'reflexoin'. Did you mean 'reflexion'? Known: reflexion, voyager."
    assert "Known" not in str(UnknownName.among("agent", "reflexio", ["reflexion", *(f"x{i}" for i in range(20))]))
    assert str(UnknownName.among("agent", "q", [])) == "unknown agent 'q'."


def test_a_missing_extra_names_the_pip_command() -> None:
    assert str(MissingExtra.of("torch", "local")) == "torch is not installed. Run: pip install 'agentkit[local]'"


def test_an_unknown_name_among_very_many_does_not_list_them_all() -> None:
    said = str(UnknownName.among("episode", "zzz", [f"run/{i:05}" for i in range(10_000)]))
    assert "run/00000" in said
    assert "and 9,940 more" in said
    assert len(said) < 1000
