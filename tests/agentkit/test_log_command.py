"""``agentkit log``: what a run left, read on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agentkit.agent import Agent
from agentkit.cli import app
from agentkit.critic.base import EnvironmentCritic
from agentkit.errors import UnknownName
from agentkit.llm.base import LLM
from agentkit.memory import Memory
from agentkit.recall import RememberSteps
from agentkit.runner import run
from agentkit.types import Action, Episode, Judgement, Task, View
from tests.agentkit import corridor  # noqa: F401 -- registers the world

HOSTILE = "[bold]red[/bold] \x1b[2J\x07 [/nope]"


class Careless(Agent):
    """Writes what a terminal must not obey."""

    def act(self, view: View) -> Action:
        return Action(HOSTILE, thought=HOSTILE)


class Strict:
    def judge(self, episode: Episode, llm: LLM | None) -> Judgement:
        made = EnvironmentCritic().judge(episode, llm)
        return Judgement(made.success, made.score, f"It wrote {HOSTILE}")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "[run].db"
    agent = Careless(memory=Memory(), remember=RememberSteps(), critic=Strict(), name="[/careless]")
    tasks = [Task("tests/Corridor-v0", seed=i, name=f"corridor {HOSTILE} {i}") for i in range(2)]
    run(agent, tasks, trials=2, max_steps=2, log=path)
    return path


def shown(*arguments: object) -> Result:
    result = CliRunner(env={"COLUMNS": "60"}).invoke(app, ["log", *map(str, arguments)])
    assert "\x1b" not in result.output
    assert "\x07" not in result.output
    return result


def test_the_runs_and_the_episodes_of_one_are_listed_with_their_ids_whole(log: Path) -> None:
    runs = shown(log)
    assert runs.exit_code == 0, runs.exception
    assert "[/careless]   4          2        0%       0" in runs.output
    episodes = shown(log, "--run", "[/careless]")
    for name in ("[/careless]/0/0", "[/careless]/1/1"):
        assert f"{name}   " in episodes.output
    assert "step_limit   2       0" in episodes.output


def test_an_episode_is_shown_from_its_goal_to_the_last_answer_and_the_judgement(log: Path) -> None:
    lines = shown(log, "--episode", "[/careless]/1/0").output.splitlines()
    plain = HOSTILE.replace("\x1b", "\ufffd").replace("\x07", "\ufffd")
    assert lines == [
        f"corridor {plain} 0: step_limit",
        "Goal: Reach the garden.",
        *(["", "You are in room 0 of 3.", f"> {plain}  ({plain})", "reward 0; records that shaped it: []"] * 2),
        "",
        "You are in room 0 of 3.",
        "",
        f"Judged no success, score 0. It wrote {plain}",
    ]


def test_unknown_names_answer_with_the_known_ones(log: Path) -> None:
    for option in ("--run", "--episode"):
        result = shown(log, option, "[/carless]/1/0")
        assert isinstance(result.exception, UnknownName)
        assert "Did you mean '[/careless]" in str(result.exception)
