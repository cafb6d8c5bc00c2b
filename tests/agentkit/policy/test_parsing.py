"""What weak models write, and what is read from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import parsing

DOORS = ("go east", "go west", "take key", "take key from table", "look")


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("go east", "go east"),
        ("Go East.", "go east"),
        ("Action: go east", "go east"),
        ("**Action 3:** go east", "go east"),
        ("> go east\nYou are in a kitchen.", "go east"),
        ("I will go east", "go east"),
        ('"go east"', "go east"),
        ("```\ngo east\n```", "go east"),
        ("<think>west? no</think>\ngo east", "go east"),
        ("1", "go east"),
        ("2.", "go west"),
        ("1. go west", "go west"),
        ("Option 3", "take key"),
        ("I should take key from table first", "take key from table"),
        ("The best thing is to look around", "look"),
        ("go east or go west", None),
        ("dance", None),
        ("9", None),
        ("", None),
        ("overlooked", None),
    ],
)
def test_an_action_among_those_that_are_listed(answer: str, read: str | None) -> None:
    assert parsing.action(answer, DOORS) == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("open the box", "open the box"),
        ("\n  Action: open the box\nObservation: it opens", "open the box"),
        ("'open the box'", "open the box"),
        ("   ", None),
    ],
)
def test_an_action_in_words(answer: str, read: str | None) -> None:
    assert parsing.action(answer) == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Thought: it is dark.\nAction: light lamp", ("it is dark.", "light lamp")),
        (" it is dark.\nAction 2: light lamp\nObservation 2: fine\nAction 3: eat", ("it is dark.", "light lamp")),
        ("Thought 1: a\nb\nAction 1:\nlight lamp", ("a b", "light lamp")),
        ("**Thought:** dark\n**Action:** `light lamp`", ("dark", "light lamp")),
        ("I look it up.\nSearch[Ada Lovelace]", ("I look it up.", "Search[Ada Lovelace]")),
        ("Act: Finish[a, b]", ("", "Finish[a, b]")),
        ("I would light the lamp", None),
        ("Action:", None),
        ("Observation: done", None),
    ],
)
def test_thought_and_action(answer: str, read: tuple[str, str] | None) -> None:
    assert parsing.thought_and_action(answer) == read


def test_an_unlabelled_turn_names_a_listed_action_in_its_last_line() -> None:
    assert parsing.thought_and_action("Not west again.\nSo I go east", DOORS) == ("Not west again.", "go east")
    assert parsing.thought_and_action("Action: fly", DOORS) is None


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("```python\nx = 1\nprint(x)\n```", "x = 1\nprint(x)"),
        ("Sure!\n```py\nx = 1", "x = 1"),
        ("def f():\n    return 1\nf()", "def f():\n    return 1\nf()"),
        ("Here is the code:\ndef f():\n    return 1\nf()\nThis calls f.", "def f():\n    return 1\nf()"),
        ("```bash\npip install x\n```\n```python\ny = 2\n```", "y = 2"),
        ("```python\na = 1\n```\nthen\n```python\nprint(a)\n```", "a = 1\n\nprint(a)"),
        ("I cannot do that", None),
        ("hello", None),
        ("```python\ndef f(:\n```", None),
    ],
)
def test_a_program(answer: str, read: str | None) -> None:
    assert parsing.program(answer) == read


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "move", "arguments": {"to": "hall", "fast": true}}',
        '[{"name": "move", "parameters": {"to": "hall", "fast": true}}]',
        '<tool_call>{"name": "move", "arguments": {"to": "hall", "fast": true}}</tool_call>',
        "{'name': 'move', 'arguments': {'to': 'hall', 'fast': true}}",
        '{"function": {"name": "move", "arguments": "{\\"to\\": \\"hall\\", \\"fast\\": true}"}}',
        "move(to='hall', fast=True)",
        "I call Move(to='hall', fast=True) now",
        '```json\n{"tool": "move", "args": {"to": "hall", "fast": true}}\n```',
        '{"action": "move", "to": "hall", "fast": true}',
        'Let me {think}. {"name": "move", "arguments": {"to": "hall", "fast": true}}',
    ],
)
def test_a_call_in_many_notations(answer: str) -> None:
    assert parsing.call(answer, ["move", "look"]) == ("move", {"to": "hall", "fast": True})


def test_a_call_of_no_tool_is_none_and_nothing_is_evaluated() -> None:
    assert parsing.call("fly(to='hall')", ["move"]) is None
    assert parsing.call("move(to=__import__('os').getcwd())", ["move"]) is None
    assert parsing.call("nothing here", None) is None
    assert parsing.call("move('hall')", ["move"]) == ("move", {"0": "hall"})


@pytest.mark.parametrize(
    ("answer", "value"),
    [("Score: 0.7", 0.7), ("70%", 0.7), ("I give it 7/10", 0.7), ("1", 1.0), ("score is 12", None), ("none", None)],
)
def test_a_score(answer: str, value: float | None) -> None:
    assert parsing.number(answer) == (pytest.approx(value) if value is not None else None)


def test_yes_and_items() -> None:
    assert parsing.yes("Yes, it did.") is True
    assert parsing.yes("The plan failed.") is False
    assert parsing.yes("perhaps") is None
    assert parsing.items("Here:\n1. a\n2) b\n- c") == ["a", "b", "c"]
    assert parsing.items("a\nb") == ["a", "b"]


@given(st.text(max_size=300))
def test_no_answer_breaks_a_reader(answer: str) -> None:
    assert parsing.action(answer, DOORS) in (*DOORS, None)
    turn = parsing.thought_and_action(answer)
    assert turn is None or turn[1]
    code = parsing.program(answer)
    if code is not None:
        compile(code, "answer", "exec")
    for read in (parsing.call, parsing.json_object, parsing.number, parsing.yes, parsing.items):
        read(answer)


@given(st.sampled_from(DOORS), st.sampled_from(["{}", "Action: {}", "> {}", "`{}`", "I choose {}.", "- {}"]))
def test_what_is_asked_for_is_read_back(action: str, shape: str) -> None:
    assert parsing.action(shape.format(action), DOORS) == action
