"""Tool and chat worlds: calls are read in three forms and never evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.envs.tools import Call, ToolEnv, ToolTask, parse_call
from agentkit.errors import ContractError, InvalidValue
from agentkit.testing import check_env


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('{"name": "search", "arguments": {"q": "cats", "n": 2}}', Call("search", (), {"q": "cats", "n": 2})),
        ('{"tool": "search", "args": "{\\"q\\": 1}"}', Call("search", (), {"q": 1})),
        ("search('cats', n=2)", Call("search", ("cats",), {"n": 2})),
        (
            " shop.buy(items=['a', {'b': -1.5}], gift=None) ",
            Call("shop.buy", (), {"items": ["a", {"b": -1.5}], "gift": None}),
        ),
        ("Search[the cat (animal), 'quoted' [1]]", Call("Search", ("the cat (animal), 'quoted' [1]",))),
        ("Finish[]", Call("Finish", ("",))),
        ("hello there", None),
        ("search(open('/etc/passwd'))", None),
        ("search(q=x)", None),
        ("search(**{'q': 1})", None),
        ("(lambda: 1)()", None),
        ("__import__('os').system('true')", None),
        ("[1, 2]", None),
        ('{"name": 3}', None),
        ('{"name": "search", "arguments": [1]}', None),
        ("", None),
        ("(" * 5000, None),
        ('{"name": ' * 3000, None),
        ("f(" + "9" * 25_000 + ")", None),
    ],
)
def test_calls_are_read(text: str, call: Call | None) -> None:
    assert parse_call(text) == call


@given(st.text(max_size=200))
def test_any_text_is_read_without_harm(text: str) -> None:
    call = parse_call(text)
    assert call is None or isinstance(call.name, str)


class Bank:
    """An account: enough state to show a tool world."""

    def __init__(self, amount: int) -> None:
        self.balance, self.amount = {"you": 100, "ann": 0}, amount

    def transfer(self, to: str, amount: int) -> dict[str, int]:
        """Send money.

        The second line is not shown."""
        if amount > self.balance["you"]:
            raise ValueError("not enough money")
        self.balance["you"] -= amount
        self.balance[to] += amount
        return self.balance

    def reply(self, message: str) -> str | None:
        return None if message == "bye" else f"You said: {message}"


def bank_task(random: np.random.Generator, options: Mapping[str, Any]) -> ToolTask:
    bank = Bank(int(options.get("amount", random.integers(1, 9))))
    return ToolTask(
        goal=f"Send {bank.amount} to ann.",
        tools={"transfer": bank.transfer, "stop": lambda: "stopped"},
        succeeded=lambda: bank.balance["ann"] == bank.amount,
        reply=bank.reply if options.get("talk") else None,
        finish="stop",
        gold=(f"transfer(to='ann', amount={bank.amount})",),
    )


def bank() -> ToolEnv:
    return ToolEnv(bank_task)


def test_a_tool_world_is_played_and_judged() -> None:
    env = bank()
    _, info = env.reset(seed=0, options={"amount": 7, "gold": True})
    assert info["goal"] == "Send 7 to ann.\nTools:\ntransfer(to: str, amount: int): Send money.\nstop()"
    text, reward, terminated, _, after = env.step('{"name": "transfer", "arguments": {"to": "ann", "amount": 3}}')
    assert (text, reward, terminated, after) == (
        '{"you": 97, "ann": 3}',
        0.0,
        False,
        {"success": False, "score": 0.0},
    )
    env.reset(seed=0, options={"amount": 7})  # nothing is left of the episode before
    _, reward, terminated, _, after = env.step(info["gold"][0])
    assert (reward, terminated, after["success"]) == (1.0, True, True)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("transfer(to='ann', amount=1000)", "ValueError: not enough money"),
        ("transfer(to='bob', amount=1)", "KeyError: 'bob'"),
        ("transfer(amount=1)", "transfer(to: str, amount: int): missing a required argument: 'to'."),
        ("steal()", 'There is no tool "steal". Tools: transfer, stop.'),
        ("give ann money", '"give ann money" is no call of a tool. Tools: transfer, stop.'),
    ],
)
def test_what_cannot_be_done_is_feedback(action: str, said: str) -> None:
    env = bank()
    env.reset(seed=0)
    text, _, terminated, _, info = env.step(action)
    assert (text, terminated, info["feedback"]) == (said, False, said)


def test_the_finishing_tool_ends_without_success() -> None:
    env = bank()
    env.reset(seed=0)
    assert env.step("stop()")[2:] == (True, False, {"success": False, "score": 0.0})


def test_messages_are_answered_where_the_world_talks() -> None:
    env = bank()
    env.reset(seed=0, options={"talk": True})
    assert env.step("hello (there)")[0] == "You said: hello (there)"
    assert env.step("steal()")[0] == "You said: steal()"
    assert env.step("bye")[2] is True


def test_it_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_env(bank).ok
    assert check_env(bank, options={"talk": True}).ok


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"goal": None}, "goal=None: a text is needed"),
        ({"tools": [print]}, "a dict of functions by name is needed"),
        ({"succeeded": False}, "succeeded=False: a function is needed"),
        ({"reply": "hello"}, "reply='hello': a function is needed"),
        ({"tools": {"max": max}}, "has no signature to show"),
    ],
)
def test_what_a_task_cannot_be_made_of_is_told(parts: dict[str, Any], words: str) -> None:
    whole: dict[str, Any] = {"goal": "Go.", "tools": {}, "succeeded": lambda: False, **parts}
    with pytest.raises(InvalidValue, match=words):
        ToolEnv(lambda random, options: ToolTask(**whole)).reset(seed=0)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"succeeded": lambda: None}, "succeeded returned None: it must say True or False"),
        ({"reply": lambda text: 5}, "reply returned 5: it must return a text, or None"),
        ({"score": lambda: None}, "score returned None: it must return a number"),
    ],
)
def test_what_the_functions_of_a_task_must_return_is_told(parts: dict[str, Any], words: str) -> None:
    whole: dict[str, Any] = {"goal": "Go.", "tools": {}, "succeeded": lambda: False, **parts}
    env = ToolEnv(lambda random, options: ToolTask(**whole))
    env.reset(seed=0)
    with pytest.raises(ContractError, match=words):
        env.step("hello")


def test_what_makes_no_task_is_told() -> None:
    nothing: Any = None
    with pytest.raises(ContractError, match=r"it must return an agentkit\.envs\.tools\.ToolTask"):
        ToolEnv(lambda random, options: nothing).reset(seed=0)
    with pytest.raises(InvalidValue, match="make_task=None: a function"):
        ToolEnv(nothing)
