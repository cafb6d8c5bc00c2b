"""What every registered world says to arguments, options and actions that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentkit.envs import make
from agentkit.envs.extras import MissingProgram
from agentkit.envs.registration import WORLDS
from agentkit.envs.tasks import as_dict, as_path, checked, choose, read_options
from agentkit.envs.worker import WorkerEnv, WorkerVectorEnv
from agentkit.envs.wrappers import EndLoops, ScaleReward, ShowHistory, TellStepsLeft
from agentkit.errors import ContractError, InvalidValue, MissingExtra, UnknownName
from tests.envs.test_env_registration import ARGUMENTS, LINES

_PROGRAM = ("programs", "program_steps", "episode_steps", "timeout_s", "limits", "allow_unisolated")
_CODE = ("tries", "timeout_s", "limits", "packages", "allow_unisolated")
# Each world's arguments, and its options of reset beside ``gold``.
TAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ALFWorld": (("split", "tasks", "timeout_s"), ("task", "split", "scene", "variation", "game")),
    "AgentDojo": (("suite", "attack", "version", "victim", "max_calls"), ("suite", "task", "attack", "injection_task")),
    "BFCL": (("category", "max_calls"), ("category", "task")),
    "BabyAI": (("level",), ("level",)),
    "BabyAIProgram": (("level", *_PROGRAM), ("level", "skills")),
    "Blackjack": (("natural", "sab"), ()),
    "CliffWalking": (("is_slippery",), ()),
    "CodeTasks": (("path", "show_tests", *_CODE), ("task",)),
    "Crafter": (("achievement",), ("achievement",)),
    "CrafterProgram": (_PROGRAM, ("achievement", "skills")),
    "FrozenLake": (("map_name", "is_slippery", "desc"), ()),
    "HumanEval": (_CODE, ("task",)),
    "MiniGrid": (("level",), ("level",)),
    "MiniWoB": (("task",), ("task",)),
    "ReasoningGym": (("dataset", "size", "attempts", "dataset_seed", "config"), ("dataset", "config", "index")),
    "ScienceWorld": (
        ("task", "split", "simplifications", "admissible"),
        ("task", "split", "simplifications", "admissible", "variation"),
    ),
    "Search": (("questions", "cache", "wiki"), ("index",)),
    "Taxi": (("is_rainy", "fickle_passenger"), ()),
    "TextCraft": (("min_depth", "max_depth"), ("goal", "admissible")),
    "TextCraftProgram": (("min_depth", "max_depth", *_PROGRAM), ("goal", "admissible", "skills")),
    "TextWorld": (("kind", "games", "level", "instructions"), ("kind", "level", "instructions", "game")),
    "TextWorldExpress": (("game", "fold", "params"), ("game", "fold", "params", "game_seed")),
}
OUT_OF_RANGE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AgentDojo": ({"max_calls": 0}, {}),
    "BFCL": ({"max_calls": 0}, {}),
    "BabyAIProgram": ({"programs": 0}, {"skills": {"1x": ""}}),
    "CodeTasks": ({"tries": 0}, {"task": 99}),
    "CrafterProgram": ({"episode_steps": 0}, {}),
    "HumanEval": ({"timeout_s": -1}, {"task": -1}),
    "ReasoningGym": ({"size": 0}, {"index": 500}),
    "ScienceWorld": ({}, {"variation": -1}),
    "Search": ({}, {"index": 7}),
    "Taxi": ({"rainy_probability": 7.0}, {}),
    "TextCraft": ({"min_depth": 0}, {}),
    "TextWorld": ({"games": 0}, {"level": 0}),
    "TextWorldExpress": ({}, {"game_seed": -1}),
}
IDS = [world.id for world in WORLDS]


@contextmanager
def made(id: str, **more: Any) -> Iterator[Any]:
    kwargs = {k: v for k, v in ARGUMENTS.get(id, {}).items() if k not in ("steps", "options")}
    try:
        env = make(id, **{**kwargs, **more})
    except (MissingExtra, MissingProgram) as missing:
        pytest.skip(str(missing))
    try:
        yield env
    finally:
        env.close()


@pytest.fixture(autouse=True)
def _in_a_folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in LINES.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def name_of(id: str) -> str:
    return id.removeprefix("agentkit/").removesuffix("-v0")


def test_the_table_names_every_world() -> None:
    assert sorted(TAKES) == sorted(map(name_of, IDS))


@pytest.mark.parametrize("id", IDS)
def test_a_wrong_argument_is_told(id: str) -> None:
    arguments, _ = TAKES[name_of(id)]
    for name in arguments:
        with pytest.raises(InvalidValue) as caught, made(id, **{name: object()}):
            pass
        assert name in str(caught.value)
        assert "needed" in str(caught.value)
    for name, value in OUT_OF_RANGE.get(name_of(id), ({}, {}))[0].items():
        with pytest.raises(InvalidValue, match=name), made(id, **{name: value}):
            pass
    with pytest.raises(UnknownName, match="no_such_argument"), made(id, no_such_argument=1):
        pass
    for limit in ("a", 0, 2.5):
        with pytest.raises(InvalidValue, match="max_episode_steps"), made(id, max_episode_steps=limit):
            pass


@pytest.mark.parametrize("id", IDS)
def test_a_wrong_option_is_told_and_the_next_reset_works(id: str) -> None:
    _, options = TAKES[name_of(id)]
    with made(id) as env:
        for name in ("gold", *options):
            if id in TOY and name == "gold":
                continue  # taken and without effect: there is none
            with pytest.raises(InvalidValue) as caught:
                env.reset(seed=1, options={name: object()})
            assert name in str(caught.value)
        for name, value in OUT_OF_RANGE.get(name_of(id), ({}, {}))[1].items():
            with pytest.raises(InvalidValue):
                env.reset(seed=1, options={name: value})
        with pytest.raises(UnknownName, match="no_such_option"):
            env.reset(seed=1, options={"no_such_option": 1})
        for wrong in ("gold", 7, [1]):
            with pytest.raises(InvalidValue, match="options="):
                env.reset(seed=1, options=wrong)
        text, info = env.reset(seed=1, options=ARGUMENTS.get(id, {}).get("options"))
        assert isinstance(text, str)
        assert info["goal"]


TOY = {f"agentkit/{name}-v0" for name in ("Blackjack", "CliffWalking", "FrozenLake", "Taxi")}


@pytest.mark.parametrize("id", IDS)
def test_an_action_that_is_no_text_is_told_the_same_way_everywhere(id: str) -> None:
    with made(id) as env:
        env.reset(seed=1, options=ARGUMENTS.get(id, {}).get("options"))
        for action in (None, 7, b"look", ["look"]):
            with pytest.raises(ContractError) as caught:
                env.step(action)
            assert isinstance(caught.value, TypeError)
            said = f"the action is {action!r} ({type(action).__name__}); an action is a text (str)."
            assert str(caught.value).startswith(said)
        assert isinstance(env.step("look")[0], str)  # the episode goes on


def test_wrappers_and_workers_tell_it_too() -> None:
    wrong: Any = ["look"]
    for wrap in (EndLoops, ShowHistory):
        env = wrap(make("agentkit/Taxi-v0"))
        env.reset(seed=0)
        with pytest.raises(ContractError, match="an action is a text"):
            env.step(wrong)
    vector = WorkerVectorEnv("agentkit/Blackjack-v0", 2)
    try:
        vector.reset(seed=0)
        with pytest.raises(ContractError, match="an action is a text"):
            vector.step(["stick", wrong])
        assert vector.step(["stick", "stick"])[2].tolist() == [True, True]
    finally:
        vector.close()


def test_wrong_values_for_wrappers_and_workers() -> None:
    env = make("agentkit/Taxi-v0")
    wrong: Any = "a"
    for make_wrapper in (lambda: TellStepsLeft(env, wrong), lambda: EndLoops(env, 1), lambda: ScaleReward(env, wrong)):
        with pytest.raises(InvalidValue, match="is needed"):
            make_wrapper()
    with pytest.raises(InvalidValue, match="timeout_s=0: a number of at least"):
        WorkerEnv("agentkit/Taxi-v0", timeout_s=0)
    with pytest.raises(InvalidValue, match="JSON"):
        WorkerEnv("agentkit/Taxi-v0", {"is_rainy": object()})
    worker = WorkerEnv("agentkit/Taxi-v0")
    try:
        with pytest.raises(InvalidValue, match="JSON"):
            worker.reset(seed=0, options={"x": b"x"})
        with pytest.raises(UnknownName, match="unknown option 'x'"):  # it crosses as what it is, without a traceback
            worker.reset(seed=0, options={"x": 1})
        with pytest.raises(InvalidValue, match="is_rainy='a': True or False is needed"):
            WorkerEnv("agentkit/Taxi-v0", {"is_rainy": "a"})
    finally:
        worker.close()


def test_values_are_checked_in_one_place() -> None:
    assert checked("n", 3, int, low=1, high=3) == 3
    assert checked("x", 3, float) == 3.0
    assert checked("flag", False, bool) is False
    wrong: list[tuple[object, type, str]] = [
        ("a", int, "n='a': an integer in [1, 3] is needed"),
        (True, int, "n=True: an integer"),
        (2.0, int, "n=2.0: an integer"),
        (0, int, "n=0: an integer in [1, 3]"),
        (4, int, "n=4: an integer"),
        (float("nan"), float, "n=nan: a number"),
        (True, float, "n=True: a number"),
        (1, bool, "n=1: True or False"),
        (b"a", str, "n=b'a': a text"),
    ]
    for value, kind, message in wrong:
        with pytest.raises(InvalidValue) as caught:
            checked("n", value, kind, low=1, high=3)
        assert str(caught.value).startswith(message)
    with pytest.raises(InvalidValue, match=r"x=.{80}…: a text is needed"):
        checked("x", [1] * 100_000, str)


def test_options_are_of_their_defaults_types() -> None:
    assert read_options(None, {"a": 1}) == {"a": 1, "gold": False}
    assert read_options({"b": None, "gold": True}, {"b": None}, b=int) == {"b": None, "gold": True}
    with pytest.raises(InvalidValue, match="a='x': an integer is needed"):
        read_options({"a": "x"}, {"a": 1})
    with pytest.raises(InvalidValue, match="b='x': an integer is needed"):
        read_options({"b": "x"}, {"b": None}, b=int)
    with pytest.raises(UnknownName, match="Did you mean 'task'"):
        read_options({"tsk": 1}, {"task": None})
    with pytest.raises(InvalidValue, match="'one' or 'two'"):
        choose("number", 3, ["one", "two"])
    with pytest.raises(InvalidValue, match="options=5: a dict is needed"):
        as_dict("options", 5)
    for path in (5, b"x", "a\0b"):
        with pytest.raises(InvalidValue, match="the path of a file is needed"):
            as_path("path", path)
