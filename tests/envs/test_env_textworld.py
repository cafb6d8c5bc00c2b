"""TextWorld: generated games, the package's own gold solutions, and what an agent must not get at."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from agentkit.envs import make
from agentkit.envs.textworld_games import Game, GenerationError, game_file, generate_games
from agentkit.errors import AgentkitError, InvalidValue, MissingExtra, UnknownName
from tests.envs.needs import need

pytestmark = pytest.mark.textworld
need("textworld", whole_module=True)

COIN: dict[str, Any] = {"kind": "coin_collector", "level": 4}
# One of each kind. Those that take long to make are few; they are made once and stay in the user's cache.
GAMES: list[dict[str, Any]] = [
    {**COIN, "seed": 0},
    {"kind": "coin_collector", "seed": 3, "level": 103, "instructions": "all"},
    {"kind": "treasure_hunter", "seed": 1},
    {"kind": "treasure_hunter", "seed": 3, "level": 13},
    {"kind": "cooking", "seed": 1, "recipe": 2, "take": 2, "go": 6, "cook": True, "open": True},
    {"kind": "cooking", "seed": 2, "recipe": 1, "cut": True, "split": "test"},
    {"kind": "simple", "seed": 0},
    {"kind": "quest", "seed": 0},
]


@pytest.fixture(scope="session")
def games() -> list[dict[str, Any]]:
    generate_games(GAMES)
    return GAMES


def play(env: Any, game: dict[str, Any], **options: Any) -> tuple[list[str], dict[str, Any], bool]:
    """Play the gold of a game: all texts, the last info, whether the episode ended."""
    settings = {k: v for k, v in game.items() if k != "seed"}
    text, info = env.reset(seed=game["seed"], options={**settings, "gold": True, **options})
    texts, terminated = [text], False
    for action in info["gold"]:
        assert not terminated
        assert action in info["admissible_actions"]
        text, _, terminated, _, info = env.step(action)
        texts.append(text)
    return texts, info, terminated


def test_gold_wins_every_kind_and_admissible_commands_hold_it(games: list[dict[str, Any]]) -> None:
    env = make("agentkit/TextWorld-v0")
    for game in games:
        texts, info, terminated = play(env, game)
        assert terminated, game
        assert info["success"] is True
        assert info["score"] == 1.0
        assert info["admissible_actions"] == []
        assert "$$" not in "".join(texts)
        assert "<score>" not in "".join(texts)
        assert ">" not in texts[-1]
    env.close()


def test_the_packages_own_environment_says_the_same(games: list[dict[str, Any]]) -> None:
    """Objective, admissible commands, score and end, step by step, against ``textworld.start``."""
    import textworld

    env = make("agentkit/TextWorld-v0")
    for game in games[:5]:
        settings = {k: v for k, v in game.items() if k != "seed"}
        file = game_file(Game.of(**game))
        request = textworld.EnvInfos(admissible_commands=True, objective=True, max_score=True, won=True)
        theirs = textworld.start(str(file), request)
        state = theirs.reset()
        _, info = env.reset(seed=game["seed"], options={**settings, "gold": True})
        assert info["goal"] == state.objective
        # Beside the gold: a detour, commands that fail, and one that the game does not know.
        plan = ["look", "go north", "go up", "examine coin", *info["gold"]]
        for action in plan:
            assert info["admissible_actions"] == state.admissible_commands
            state, _, done = theirs.step(action)
            text, _, terminated, _, info = env.step(action)
            assert terminated == done
            assert info["success"] == state.won
            assert info["score"] == (state.score or 0) / state.max_score
            assert " ".join(text.split())[:80] in " ".join(state.feedback.split())
            if done or "gold" not in info:
                info.setdefault("gold", [])
            if done:
                break
        theirs.close()
    env.close()


def test_losing_is_not_success() -> None:
    """A treasure hunter loses by taking the wrong object; the episode ends all the same."""
    env = make("agentkit/TextWorld-v0", kind="treasure_hunter", level=1)
    lost = False
    for seed in (1, 2):
        text, info = env.reset(seed=seed, options={"gold": True})
        right = info["gold"][-1]
        terminated, seen = False, {text}
        frontier: list[list[str]] = [[]]
        while frontier and not terminated:
            path = frontier.pop(0)
            text, info = env.reset(seed=seed)
            for action in path:
                text, _, terminated, _, info = env.step(action)
            for action in info["admissible_actions"]:
                if action.startswith("take ") and action != right:
                    text, _, terminated, _, info = env.step(action)
                    assert (terminated, info["success"], info["score"]) == (True, False, 0.0)
                    assert "lost" in text
                    lost = True
                    break
                if action.startswith("go ") and len(path) < 4:
                    frontier.append([*path, action])
            seen.add(text)
    assert lost


@pytest.mark.parametrize(
    "action",
    [
        "save",
        "restore",
        "script",
        "transcript on",
        "quit",
        "restart",
        "undo",
        "tw-print moves",
        "look. save",
        "look then save",
        "go north, then quit",
        "",
        "\x00look",
        "開ける",
        "look " * 60,
        "x\ud800",
    ],
)
def test_commands_to_the_interpreter_are_refused(
    action: str, games: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = make("agentkit/TextWorld-v0")
    _, before = env.reset(seed=0, options=COIN)
    text, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, info["success"]) == (0.0, False, False)
    assert text == info["feedback"]
    assert "does not understand" in text
    assert info["admissible_actions"] == before["admissible_actions"]
    assert os.listdir(tmp_path) == []
    env.close()


def test_a_second_line_is_no_second_command(
    games: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = make("agentkit/TextWorld-v0")
    env.reset(seed=0, options=COIN)
    assert env.step("look\nsave")[4]["feedback"] == "You can't see any such thing."
    assert os.listdir(tmp_path) == []


def test_a_command_that_fails_in_the_game_is_answered_in_feedback(games: list[dict[str, Any]]) -> None:
    env = make("agentkit/TextWorld-v0")
    env.reset(seed=0, options=COIN)
    assert "feedback" not in env.step("look")[4]
    text, _, _, _, info = env.step("take elephant")
    assert info["feedback"] == text != ""


def test_snapshots_restore_the_game_any_number_of_times(games: list[dict[str, Any]]) -> None:
    env: Any = make("agentkit/TextWorld-v0").unwrapped
    game = GAMES[4]
    options = {k: v for k, v in game.items() if k != "seed"}
    _, info = env.reset(seed=game["seed"], options={**options, "gold": True})
    gold = info["gold"]
    for action in gold[:3]:
        env.step(action)
    snapshot = env.snapshot()
    ends = []
    for _ in range(2):
        ends.append([env.step(a)[0] for a in gold[3:]])
        env.restore(snapshot)
    assert ends[0] == ends[1]
    env.reset(seed=0, options=COIN)  # another game in between
    env.restore(snapshot)
    assert [env.step(a)[0] for a in gold[3:]] == ends[0]


def test_threads_play_what_one_thread_plays(games: list[dict[str, Any]]) -> None:
    def transcript(game: dict[str, Any]) -> str:
        env = make("agentkit/TextWorld-v0")
        try:
            return json.dumps(play(env, game))
        finally:
            env.close()

    alone = [transcript(g) for g in games]
    together: dict[tuple[int, int], str] = {}

    def work(me: int) -> None:
        for i in range(len(games)):
            k = (i + 3 * me) % len(games)
            together[me, k] = transcript(games[k])

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 4 * len(games)
    assert all(text == alone[k] for (_, k), text in together.items())


def test_a_seed_is_a_game_and_games_limits_them(games: list[dict[str, Any]]) -> None:
    env = make("agentkit/TextWorld-v0", games=1, **COIN)
    assert env.reset(seed=7)[0] == env.reset(seed=0)[0] == env.reset()[0]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"kind": "coin"}, UnknownName, "coin_collector"),
        ({"kind": "coin_collector", "levl": 3}, UnknownName, "'level'"),
        ({"kind": "coin_collector", "level": 301}, InvalidValue, r"\[1, 300\]"),
        ({"kind": "coin_collector", "level": True}, InvalidValue, "integer"),
        ({"kind": "cooking", "recipe": 1, "take": 2}, InvalidValue, "recipe=1"),
        ({"kind": "cooking", "go": 2}, InvalidValue, "1, 6, 9, 12"),
        ({"kind": "cooking", "cook": 1}, InvalidValue, "True or False"),
        ({"kind": "simple", "goal": "long"}, InvalidValue, "'detailed'"),
        ({"kind": "quest", "length": 0}, InvalidValue, "integer"),
        ({"game": "/no/such/game.z8"}, InvalidValue, "there is no file"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_made(
    settings: dict[str, Any], error: type[AgentkitError], said: str
) -> None:
    env = make("agentkit/TextWorld-v0")
    with pytest.raises(error, match=said):
        env.reset(seed=0, options=settings)


def test_a_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from agentkit.envs import extras

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'agentkit\[textworld\]'"):
        extras.require("textworld", "textworld", "textworld")


@pytest.mark.slow
def test_generation_from_nothing_by_two_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both see whole games, and the same as those of the user's cache."""
    import subprocess
    import sys

    there = [Path(p).read_bytes() for p in generate_games([{**COIN, "seed": s} for s in (0, 1)])]
    monkeypatch.setenv("AGENTKIT_CACHE", str(tmp_path))
    code = (
        "from agentkit.envs.textworld_games import generate_games\n"
        f"said = []\ngenerate_games([{{**{COIN!r}, 'seed': s}} for s in (0, 1)], workers=1,"
        " progress=lambda *a: said.append(a))\nprint(said)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0
        assert said.strip() == "[(0, 2), (1, 2), (2, 2)]"
    files = [game_file(Game.of(**COIN, seed=s)) for s in (0, 1)]
    assert [f.read_bytes() for f in files] == there
    assert {f.suffix for f in (tmp_path / "textworld").iterdir()} == {".z8", ".json"}


def test_a_game_that_cannot_be_made_is_told_and_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("INFORM_HOME", str(tmp_path / "nowhere"))  # the package takes its compiler from there
    done: list[tuple[int, int]] = []
    with pytest.raises(GenerationError, match="coin_collector seed=5"):
        generate_games([{**COIN, "seed": 5}], progress=lambda *a: done.append(a))
    assert done == [(0, 1), (1, 1)]
    assert [p.name for p in (tmp_path / "textworld").iterdir()] == []
