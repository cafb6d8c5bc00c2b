"""ALFWorld with games of our own making: gold, the same games everywhere, and files in the official format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentkit.envs import make
from agentkit.envs.alfworld_games import SPLITS, TASKS, make_game, scenes
from agentkit.errors import AgentkitError, InvalidValue, UnknownName
from tests.envs.needs import need

need("alfworld", whole_module=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("split", SPLITS)
def test_gold_solves_every_task_type(split: str) -> None:
    env = make("agentkit/ALFWorld-v0", split=split)
    try:
        for seed in range(100, 100 + len(TASKS)):
            _, info = env.reset(seed=seed, options={"gold": True})
            terminated = False
            for action in info["gold"]:
                assert not terminated
                assert action in info["admissible_actions"]
                _, reward, terminated, _, info = env.step(action)
                assert "feedback" not in info
            assert (terminated, info["success"], reward) == (True, True, 1.0)
    finally:
        env.close()


def test_every_scene_has_games_and_they_are_never_solved_at_the_start() -> None:
    made = 0
    for split in SPLITS:
        for scene in scenes(split):
            for task in TASKS:
                game = make_game(task, scene, 0)
                if game is not None:
                    made += 1
                    assert len(game.gold) >= 3
                    assert game == make_game(task, scene, 0)
                    assert game != make_game(task, scene, 1)
    assert made > 350
    assert not set(scenes("train")) & set(scenes("unseen"))


@pytest.mark.slow
def test_a_game_file_is_played_and_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    game = make_game("pick_and_place_simple", 402, 3)
    assert game is not None
    file = tmp_path / "game.tw-pddl"
    file.write_text(json.dumps(game.data))
    env = make("agentkit/ALFWorld-v0")
    try:
        made, info = env.reset(seed=0, options={"task": game.task, "scene": 402, "variation": 3})
        read, same = env.reset(seed=1, options={"game": str(file)})
        assert (read, same) == (made, info)
        text, reward, terminated, _, info = env.step("eat the sink")
        assert (text, reward, terminated, info["success"]) == ("Nothing happens.", 0.0, False, False)
        assert "eat the sink" in info["feedback"]
        wrong: list[tuple[dict[str, Any], type[AgentkitError]]] = [
            ({"task": "pick_and_place"}, UnknownName),
            ({"split": "test"}, UnknownName),
            ({"scene": "402"}, InvalidValue),
            ({"game": "/no/such/file"}, InvalidValue),
        ]
        for options, error in wrong:
            with pytest.raises(error):
                env.reset(seed=0, options=options)
        with pytest.raises(AgentkitError, match="has nothing for the task"):
            env.reset(seed=0, options={"task": "pick_heat_then_place_in_recep", "scene": 402})
    finally:
        env.close()
