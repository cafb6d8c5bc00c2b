"""Wrappers, replay and question worlds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from agentkit.envs import make
from agentkit.envs.questions import Question, QuestionEnv, exact_match, normalized, same_number
from agentkit.envs.replay import Prefix, Replay
from agentkit.envs.wrappers import (
    ClipObservation,
    EndLoops,
    RewardFromScore,
    ScaleReward,
    ShowHistory,
    TellStepsLeft,
)
from agentkit.errors import ContractError, InvalidValue, UnknownName
from agentkit.testing import check_env
from tests.envs import broken_worlds


def taxi() -> gymnasium.Env[str, str]:
    return make("agentkit/Taxi-v0")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: TellStepsLeft(e, 9),
        lambda e: EndLoops(e, 4),
        lambda e: ClipObservation(e, 60),
        ShowHistory,
        lambda e: ScaleReward(e, 0.1),
        RewardFromScore,
        Replay,
    ],
)
def test_every_wrapper_keeps_the_contract(wrap: Any) -> None:
    assert check_env(lambda: wrap(taxi())).ok


def test_steps_left_are_told_and_end_the_episode() -> None:
    env = TellStepsLeft(taxi(), 2)
    assert env.reset(seed=0)[0].endswith("\n[2 steps left]")
    text, _, _, truncated, _ = env.step("go south")
    assert text.endswith("\n[1 step left]")
    assert not truncated
    assert env.step("go south")[3] is True


def test_a_loop_ends_the_episode_and_is_told() -> None:
    env = EndLoops(make("agentkit/CliffWalking-v0"), 2)
    for _ in range(2):  # what was seen is forgotten at reset
        env.reset(seed=0)
        assert env.step("go left")[3] is False
        _, _, _, truncated, info = env.step("go left")
        assert truncated
        assert info["feedback"].startswith("Loop:")
        assert info["success"] is False


def test_an_action_that_moves_on_is_no_loop() -> None:
    env = EndLoops(make("agentkit/CliffWalking-v0"), 2)
    env.reset(seed=0)
    assert not any(env.step(a)[3] for a in ["go up", "go up", "go up", "go right", "go right"])


def test_a_long_observation_loses_its_middle() -> None:
    env = ClipObservation(taxi(), 100)
    whole, _ = taxi().reset(seed=0)
    text, _ = env.reset(seed=0)
    assert len(text) == 100 < len(whole)
    assert text in env.observation_space
    assert whole.startswith(text[:20])
    assert whole.endswith(text[-20:])


def test_history_shows_the_last_turns() -> None:
    env = ShowHistory(make("agentkit/CliffWalking-v0"), 2)
    first, _ = env.reset(seed=0)
    env.step("go up")
    env.step("go up")
    text, *_ = env.step("go right")
    at = "You are at row {}, column {} of 12.".format
    assert text == f"{at('3 of 4', 1)}\n> go up\n{at('2 of 4', 1)}\n> go right\n{at('2 of 4', 2)}"
    assert env.reset(seed=0)[0] == first


def test_rewards_are_scaled_or_follow_the_score() -> None:
    env = ScaleReward(make("agentkit/CliffWalking-v0"), 0.5)
    env.reset(seed=0)
    assert env.step("go right")[1] == -50
    scored = RewardFromScore(
        QuestionEnv([Question("?", "b")], verify=lambda a, _: 1.0 if a == "b" else 0.25, attempts=3)
    )
    scored.reset(seed=0)
    assert [scored.step(a)[1] for a in ("a", "a", "b")] == [0.25, 0.0, 0.75]
    plain = RewardFromScore(broken_worlds.Good())
    plain.reset(seed=0)
    rewards = []
    for guess in "123456789":
        _, reward, terminated, _, info = plain.step(guess)
        rewards.append(reward)
        if terminated:
            break
    assert sum(map(float, rewards)) == float(info["success"])


@pytest.mark.parametrize(
    "wrong", [lambda e: TellStepsLeft(e, 0), lambda e: EndLoops(e, 1), lambda e: ShowHistory(e, 0)]
)
def test_wrong_limits_are_told(wrong: Any) -> None:
    with pytest.raises(InvalidValue, match="at least"):
        wrong(taxi())


def test_replay_goes_back_to_any_moment() -> None:
    env = Replay(make("agentkit/FrozenLake-v0"))  # slippery: chance is part of what is replayed
    env.reset(seed=3)
    moments, texts = [env.snapshot()], []
    for _ in range(6):
        text, *_ = env.step("go up")
        texts.append(text)
        moments.append(env.snapshot())
    for moment in [moments[4], moments[5], moments[2], moments[6], moments[0]]:
        text, info = env.restore(moment)
        assert text == moment.observation
        assert env.snapshot() == moment
        assert ("success" in info) == bool(moment.actions)
    env.restore(moments[3])
    assert [env.step("go up")[0] for _ in range(3)] == texts[3:]


def test_replay_needs_a_seed_and_a_deterministic_world() -> None:
    env = Replay(taxi())
    env.reset()
    with pytest.raises(InvalidValue, match="seed"):
        env.snapshot()
    with pytest.raises(ContractError, match="not deterministic"):
        env.restore(Prefix(1, (), ("go up",), "something else"))


def test_questions_are_asked_by_seed_and_judged() -> None:
    env = QuestionEnv([Question("Capital of France?", "Paris"), Question("2 + 2?", "4")], attempts=2)
    assert env.reset(seed=2) == ("Capital of France?", {"goal": "Answer the question."})
    text, reward, terminated, _, info = env.step("Lyon")
    assert (text, reward, terminated, info["success"]) == ("That is not right. 1 attempt left.", 0.0, False, False)
    assert env.step("the PARIS!")[2:] == (True, False, {"success": True, "score": 1.0})
    assert env.reset(seed=0, options={"index": 1, "gold": True})[1]["gold"] == ["4"]
    env.step("5")
    assert env.step("5")[2] is True


def test_a_verifier_that_raises_judges_the_answer_worth_nothing() -> None:
    env = QuestionEnv([Question("?", "7")], verify=lambda answer, question: float(answer) == float(question.answer))
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step("seven")
    assert (reward, terminated, info["success"]) == (0.0, True, False)
    assert "ValueError" in info["feedback"]


@pytest.mark.parametrize(
    ("said", "reference", "right"),
    [("It is 1,250.0.", "1250", True), ("12 and then 7", "#### 7", True), ("none", "7", False), ("-7", "7", False)],
)
def test_same_number(said: str, reference: str, right: bool) -> None:
    assert same_number(said, Question("", reference)) is right


def test_exact_match_ignores_case_articles_and_punctuation() -> None:
    assert normalized(" The  Beatles, a band!") == "beatles band"
    assert exact_match("an  Apple.", Question("", "apple"))


def test_a_jsonl_file_is_a_world(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": "2 + 3?", "answer": "5", "level": 1}) + "\n\n")
    env = QuestionEnv(file, verify="same_number")
    env.reset(seed=0)
    assert env.step("= 5")[4]["success"] is True
    assert check_env(lambda: QuestionEnv(file)).ok
    file.write_text('{"question": "?"}\n')
    with pytest.raises(InvalidValue, match="line 1"):
        QuestionEnv(file)
    with pytest.raises(UnknownName, match="exact_match"):
        QuestionEnv([Question("", "")], verify="exact_mach")
    with pytest.raises(UnknownName, match="'index'"):
        QuestionEnv([Question("", "")]).reset(options={"idx": 0})
    with pytest.raises(InvalidValue, match=r"index=1: an integer in \[0, 0\] is needed"):
        QuestionEnv([Question("", "")]).reset(options={"index": 1})


def test_a_verifier_that_is_none_is_told() -> None:
    questions = [Question("?", "!")]
    wrong: list[tuple[Any, str]] = [
        (lambda answer: True, "verify must take an answer and its Question"),
        (7, "verify=7: a text is needed, for example 'exact_match'"),
    ]
    for function, words in wrong:
        with pytest.raises(InvalidValue, match=words):
            QuestionEnv(questions, verify=function)
    for judged in (None, "yes", float("nan")):
        verify: Any = lambda answer, question, judged=judged: judged  # noqa: E731
        env = QuestionEnv(questions, verify=verify)
        env.reset(seed=0)
        with pytest.raises(ContractError, match=f"verify returned {judged!r}"):
            env.step("!")
    given: Any = [{"question": "?", "answer": "!"}]
    with pytest.raises(InvalidValue, match="at least one"):
        QuestionEnv(given)
    with pytest.raises(InvalidValue, match="text=5: a text is needed"):
        Question(5, "!")  # type: ignore[arg-type]
