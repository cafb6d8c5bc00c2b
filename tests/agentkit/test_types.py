"""The values: the same after a trip through JSON, hashable, immutable, and strict where they are made."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkit.errors import InvalidValue
from agentkit.memory import Recalled, Record
from agentkit.types import (
    Action,
    Completion,
    Episode,
    Judgement,
    Lesson,
    Message,
    Options,
    Request,
    Scores,
    Step,
    StepJudgement,
    StopReason,
    Task,
    TokenLogprob,
    Usage,
    View,
    dump,
    load,
    storable,
)

texts = st.text(max_size=8)  # of all Unicode but lone surrogates, NUL and right-to-left marks included
floats = st.floats(width=64)
counts = st.integers(0, 2**40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
options = st.dictionaries(texts, json_values, max_size=3).map(Options)
ids = st.lists(st.integers(1, 2**50), max_size=4).map(tuple)
maybe = st.none() | st.lists(texts, max_size=3).map(tuple)
usages = st.builds(Usage, counts, counts, counts, floats, floats, counts)
tasks = st.builds(Task, texts, texts, st.integers(0, 2**32), options, texts)
actions = st.builds(Action, texts, texts, ids, st.none() | floats, st.booleans())
steps = st.builds(Step, texts, actions, floats, texts, maybe, texts, st.none() | floats, usages)
episodes = st.builds(
    Episode,
    texts,
    tasks,
    counts,
    counts,
    texts,
    st.lists(steps, max_size=3).map(tuple),
    st.sampled_from(StopReason),
    st.booleans(),
    floats,
    usages,
    texts,
)
messages = st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), texts)
requests = st.builds(
    Request,
    st.lists(messages, max_size=2).map(tuple),
    n=st.integers(1, 2**40),
    temperature=floats,
    seed=st.none() | counts,
    choices=maybe,
    schema=st.none() | options,
    adapter=st.none() | texts,
)
completions = st.builds(
    Completion,
    texts,
    usage=usages,
    logprobs=st.none() | st.lists(st.builds(TokenLogprob, texts, floats), max_size=2).map(tuple),
)
judgements = st.builds(
    Judgement,
    st.booleans(),
    st.floats(0, 1),
    texts,
    st.lists(st.builds(StepJudgement, counts, floats, texts)).map(tuple),
)
records = st.builds(Record, texts, texts, data=st.dictionaries(texts, json_values, max_size=2), step=st.none() | counts)
recalled = st.lists(st.builds(Recalled, records, floats, floats), max_size=2).map(tuple)
views = st.builds(View, tasks, texts, texts, maybe, st.lists(steps, max_size=2).map(tuple), recalled, recalled)
scores = st.builds(Scores, st.lists(floats, max_size=3).map(tuple), st.lists(counts, max_size=3).map(tuple))
lessons = st.builds(Lesson, texts, texts, texts, maybe.map(lambda v: v or ()))


def same(a: Any, b: Any) -> bool:
    """Equal, NaN being equal to NaN, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(episodes, requests, completions, judgements, views, scores, lessons, tasks))
def test_json_gives_the_same_value_back(value: Any) -> None:
    assert same(load(type(value), dump(value)), value)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(episodes, requests, judgements, tasks))
def test_values_pickle(value: Any) -> None:
    assert same(pickle.loads(pickle.dumps(value)), value)


@given(tasks)
def test_equal_tasks_are_one_key(task: Task) -> None:
    again = load(Task, dump(task))
    assert again == task
    assert hash(again) == hash(task)
    assert {task: 1}[again] == 1


def test_comparing_types_can_fail() -> None:
    assert not same((1.0,), (1,))
    assert not same(Message("user", "a"), Message("user", "b"))


# --- options


def test_options_are_a_mapping_equal_to_the_same_json() -> None:
    assert Options({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    assert Options({"a": (1, 2)}) == {"a": [1, 2]}
    assert Options({"b": 1, "a": 2}) == Options({"a": 2, "b": 1})
    assert hash(Options({"b": 1, "a": 2})) == hash(Options({"a": 2, "b": 1}))
    assert Options() == {}
    assert Options({"a": 1}) != {"a": 2}
    assert Options({"a": 1}) != 1


@given(options, options)
def test_equal_options_have_equal_hashes(a: Options, b: Options) -> None:
    if a == b:
        assert hash(a) == hash(b)


def test_one_and_true_are_other_options() -> None:
    assert Options({"level": 1}) != Options({"level": True})
    assert len({Options({"x": 1}), Options({"x": 1.0}), Options({"x": 1})}) == 2


def test_what_a_world_does_to_its_options_stays_with_it() -> None:
    task = Task("world", options=Options({"words": ["a", "b"], "map": {"rooms": [1]}}))
    given_to_reset = dict(task.options)
    given_to_reset["words"].pop()
    given_to_reset["map"]["rooms"].append(2)
    assert dict(task.options) == {"words": ["a", "b"], "map": {"rooms": [1]}}


@pytest.mark.parametrize("bad", [{"a": object()}, {1: "a"}, {"a": {1, 2}}, {"a": b"x"}])
def test_options_that_json_cannot_hold_are_refused(bad: dict[Any, Any]) -> None:
    with pytest.raises(InvalidValue, match="options"):
        Options(bad)
    assert Options({"a": 1}) != bad


def test_numpy_numbers_are_options_too() -> None:
    assert Options({"level": np.int64(3), "rate": np.float32(0.5)}) == {"level": 3, "rate": 0.5}


# --- strictness


def test_a_task_is_named_by_what_it_is() -> None:
    assert Task("maze", seed=3, options=Options({"size": 2})).name == "maze size=2 seed=3"
    assert Task("maze", options={"size": 2}) == Task("maze", options=Options({"size": 2}))


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_a_judgement_is_scored_between_0_and_1(score: float) -> None:
    with pytest.raises(InvalidValue, match=r"\[0, 1\]"):
        Judgement(False, score)


@pytest.mark.parametrize("text", [None, 3, b"go", ["go"]])
def test_an_action_is_text(text: Any) -> None:
    with pytest.raises(InvalidValue, match="an action is text"):
        Action(text)


@given(st.text(st.characters(codec=None), max_size=30))
def test_any_text_at_all_becomes_one_that_can_be_stored(text: str) -> None:
    kept = storable(text)
    kept.encode()
    assert storable(kept) == kept
    if all(not 0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert kept == text


def test_lone_surrogates_of_a_model_are_replaced_where_they_enter() -> None:
    assert Action("go \ud800 north").text == "go \ufffd north"
    assert Completion("\udfff").text == "\ufffd"
    assert load(Message, dump(Message("user", "a\ud83d\ude00b\ud800"))) == Message("user", "a\U0001f600b\ufffd")


def test_memory_ids_are_those_of_all_steps_once_in_order() -> None:
    taken = [Step("", Action("a", memory_ids=ids), 0.0, "") for ids in ((3, 1), (1, 2), ())]
    assert Episode("e", Task("w"), 0, 0, "", tuple(taken), StopReason.FAILURE, False, 0.0).memory_ids == (3, 1, 2)


def test_usage_adds_up() -> None:
    total = sum((Usage(1, 2, 3, 0.5, 0.25, 1), Usage(10, 20, 30, 1.5, 0.75, 1)), Usage())
    assert total == Usage(11, 22, 33, 2.0, 1.0, 2)
    assert total.tokens == 44


def test_values_cannot_be_changed() -> None:
    for value in (Task("w"), Action("a"), Usage(), Message("user", "a")):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            value.name = "x"  # type: ignore[union-attr, misc]


def test_numpy_numbers_in_an_action_are_stored_as_numbers() -> None:
    action = Action("a", memory_ids=(np.int64(7),), logprob=np.float32(-0.5))  # type: ignore[arg-type]
    assert load(Action, dump(action)) == Action("a", memory_ids=(7,), logprob=-0.5)
