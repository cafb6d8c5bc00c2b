"""One episode: what each way of ending is called, and what a broken world does to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.errors import BudgetExceeded, ContractError, InvalidValue
from agentkit.llm import Ledger, ScriptedLLM, instrument, metered
from agentkit.llm.errors import RateLimited
from agentkit.llm.meter import Call
from agentkit.rollout import rollout
from agentkit.types import Action, Message, Request, StopReason, Task, View, dump, load
from agentkit.types import Episode as Episode
from tests.agentkit.corridor import Breaks, Corridor

TASK = Task("corridor", seed=3)


class Walks:
    """Takes the given actions in turn, and keeps what it saw."""

    def __init__(self, *actions: str | Action) -> None:
        self.actions = actions
        self.views: list[View] = []

    def act(self, view: View) -> Action:
        self.views.append(view)
        action = self.actions[view.step % len(self.actions)]
        return action if isinstance(action, Action) else Action(action)


def way(seed: int = 3) -> list[str]:
    world = Corridor()
    world.reset(seed=seed)
    return world.right


def play(env: gymnasium.Env[str, str], *actions: str | Action, **options: Any) -> Episode:
    return rollout(Walks(*(actions or way())), env, TASK, **{"max_steps": 5, **options})


def test_a_solved_episode() -> None:
    actor = Walks(*way())
    episode = rollout(actor, Corridor(), TASK, trial=2, seed=9, id="e1")
    assert (episode.success, episode.stop_reason, episode.return_) == (True, StopReason.SUCCESS, 1.0)
    assert episode.goal == "Reach the garden."
    assert [s.action.text for s in episode.steps] == way()
    assert [s.score for s in episode.steps] == [1 / 3, 2 / 3, 1.0]
    assert [s.next_observation for s in episode.steps] == [s.observation for s in episode.steps[1:]] + [
        "You are in the garden."
    ]
    assert [(v.step, v.steps_left, v.trial, len(v.history)) for v in actor.views] == [
        (0, 50, 2, 0),
        (1, 49, 2, 1),
        (2, 48, 2, 2),
    ]
    assert len({v.seed for v in actor.views}) == 3
    assert load(Episode, dump(episode)) == episode


def test_the_tasks_own_goal_comes_first() -> None:
    assert rollout(Walks("red"), Corridor(), dataclasses.replace(TASK, goal="Stay."), max_steps=1).goal == "Stay."


def test_a_world_that_never_says_success_never_succeeds() -> None:
    def silent(reply: Any) -> Any:
        text, _, terminated, truncated, _ = reply
        return text, 1.0, terminated, truncated, {}

    episode = play(Breaks(answered=silent))
    assert episode.steps[-1].reward == 1.0
    assert (episode.success, episode.stop_reason) == (False, StopReason.FAILURE)
    truncates = Breaks(answered=lambda r: (r[0], 1.0, False, True, {}))
    assert (play(truncates).success, play(truncates).stop_reason) == (False, StopReason.STEP_LIMIT)


def test_success_ends_the_episode_even_where_the_world_goes_on() -> None:
    episode = play(Breaks(answered=lambda r: (r[0], 0.0, False, False, {"success": np.bool_(True)})))
    assert (len(episode.steps), episode.success, episode.stop_reason) == (1, True, StopReason.SUCCESS)
    assert episode.success is True


def test_steps_and_invalid_answers_run_out() -> None:
    assert play(Corridor(), "no door", max_steps=4).stop_reason == StopReason.STEP_LIMIT
    bad = Action("?", valid=False)
    assert len(play(Corridor(), bad, max_steps=9).steps) == 3
    assert play(Corridor(), bad, max_steps=9).stop_reason == StopReason.INVALID
    assert play(Corridor(), bad, bad, "red", max_steps=9).stop_reason == StopReason.STEP_LIMIT


# --- worlds that break

BROKEN_RESETS: dict[str, tuple[Callable[[str, dict[str, Any]], Any], str]] = {
    "not text": (lambda text, info: ({"obs": text}, info), "The observation is a dict; it must be text"),
    "bytes": (lambda text, info: (text.encode(), info), "The observation is a bytes; it must be text"),
    "no info": (lambda text, info: (text, None), "info is a NoneType; it must be a dict"),
    "the old interface": (lambda text, info: text, "reset returned a str; it must return (observation, info)"),
    "a goal that is none": (lambda text, info: (text, {"goal": 3}), "info['goal'] is a int; it must be text"),
    "actions in a set": (lambda text, info: (text, {"admissible_actions": {"a"}}), "is a set; it must be a list"),
    "actions in one text": (lambda text, info: (text, {"admissible_actions": "go"}), "is a str; it must be a list"),
    "no action": (lambda text, info: (text, {"admissible_actions": []}), "is empty and the episode is not over"),
    "numbers as actions": (lambda text, info: (text, {"admissible_actions": [1, 2]}), "holds 1; each must be a text"),
    "an empty action": (
        lambda text, info: (text, {"admissible_actions": ["a", " "]}),
        "holds ' '; each must be a text",
    ),
}
BROKEN_STEPS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "not text": (lambda r: (3, *r[1:]), "The observation is a int; it must be text"),
    "NaN reward": (lambda r: (r[0], math.nan, *r[2:]), "The reward is nan; it must be a finite number"),
    "infinite reward": (lambda r: (r[0], -math.inf, *r[2:]), "The reward is -inf; it must be a finite number"),
    "no reward": (lambda r: (r[0], None, *r[2:]), "The reward is None; it must be a finite number"),
    "reward in words": (lambda r: (r[0], "1.0", *r[2:]), "The reward is '1.0'; it must be a finite number"),
    "success in words": (lambda r: (*r[:4], {"success": "no"}), "info['success'] is 'no'; it must be True or False"),
    "success as 1": (lambda r: (*r[:4], {"success": 1}), "info['success'] is 1; it must be True or False"),
    "no success": (lambda r: (*r[:4], {"success": None}), "info['success'] is None; it must be True or False"),
    "terminated in words": (lambda r: (r[0], 0.0, "yes", False, {}), "terminated is 'yes'; it must be True or False"),
    "four values": (lambda r: r[:4], "step returned 4 values; it must return"),
    "nothing": (lambda r: None, "step returned a NoneType; it must return"),
    "NaN score": (lambda r: (*r[:4], {"score": math.nan}), "info['score'] is nan; it must be a finite number"),
    "score in words": (lambda r: (*r[:4], {"score": "high"}), "info['score'] is 'high'; it must be a finite number"),
    "feedback": (lambda r: (*r[:4], {"feedback": ["a"]}), "info['feedback'] is a list; it must be text"),
    "it raises": (lambda r: 1 / 0, "ZeroDivisionError"),
    "it exits": (lambda r: exit(3), "SystemExit: 3"),
    "it says that a model failed": (lambda r: _raise(RateLimited("slow down")), "RateLimited: slow down"),
    "it says that the budget is spent": (lambda r: _raise(BudgetExceeded("spent")), "BudgetExceeded: spent"),
}


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(("began", "rule"), BROKEN_RESETS.values(), ids=BROKEN_RESETS)
def test_a_world_that_begins_badly(began: Callable[[str, dict[str, Any]], Any], rule: str) -> None:
    episode = play(Breaks(began=began))
    assert (episode.stop_reason, episode.success, episode.steps) == (StopReason.ENV_ERROR, False, ())
    assert rule in episode.error
    assert "Traceback" in episode.error


@pytest.mark.parametrize(("answered", "rule"), BROKEN_STEPS.values(), ids=BROKEN_STEPS)
def test_a_world_that_goes_wrong_on_its_way(answered: Callable[[Any], Any], rule: str) -> None:
    later = Breaks(answered=lambda r: answered(r) if later.room == 2 else r)
    episode = play(later)
    assert (episode.stop_reason, episode.success) == (StopReason.ENV_ERROR, False)
    assert len(episode.steps) == 1, "what went well before is kept"
    assert rule in episode.error
    assert load(Episode, dump(episode)) == episode


def test_the_traceback_names_the_line_of_the_world() -> None:
    assert "test_rollout.py" in play(Breaks(answered=BROKEN_STEPS["it raises"][0])).error


def test_odd_answers_that_are_no_mistake() -> None:
    def odd(reply: Any) -> Any:
        text, reward, terminated, truncated, info = reply
        kinds = {"success": np.bool_(info["success"]), "score": np.float32(0.5), "feedback": None}
        return np.str_(text), np.float32(reward), np.bool_(terminated), np.bool_(truncated), kinds

    episode = play(Breaks(answered=odd))
    assert episode.success
    assert type(episode.steps[0].next_observation) is str
    assert type(episode.steps[0].score) is float
    assert load(Episode, dump(episode)) == episode


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec=None), max_size=20))
def test_any_text_can_be_seen_and_kept(text: str) -> None:
    world = Breaks(
        began=lambda _text, info: (text, {"goal": text, "admissible_actions": ["a", f"b{text}"]}),
        answered=lambda r: (text, 0.0, False, False, {"feedback": text}),
    )
    episode = play(world, f"do {text}", max_steps=2)
    assert episode.stop_reason == StopReason.STEP_LIMIT
    assert load(Episode, dump(episode)) == episode


# --- agents and models that break


def test_a_mistake_of_the_agent_is_raised_and_not_laid_on_the_world() -> None:
    class Wrong:
        def act(self, view: View) -> Any:
            return "north"

    with pytest.raises(ContractError, match=r"act returned a str; it must return an agentkit\.Action"):
        rollout(Wrong(), Corridor(), TASK)

    class Raises:
        def act(self, view: View) -> Action:
            raise KeyError("my own mistake")

    with pytest.raises(KeyError, match="my own mistake"):
        rollout(Raises(), Corridor(), TASK)
    with pytest.raises(InvalidValue, match="an action is text"):
        rollout(Walks(Action("x"), None), Corridor(), TASK)  # type: ignore[arg-type]


class Asks:
    """Asks the model for every action."""

    def __init__(self, llm: ScriptedLLM) -> None:
        self.llm = instrument(llm)

    def act(self, view: View) -> Action:
        ((answer,),) = self.llm.generate([Request((Message("user", view.observation),), max_tokens=2)])
        return Action(answer.text)


def test_a_model_that_fails_ends_the_episode_and_its_calls_are_kept() -> None:
    def answer(request: Request) -> str:
        if "room 1" in request.messages[0].content:
            raise RateLimited("still too fast")
        return way()[0]

    calls: list[Call] = []
    episode = rollout(Asks(ScriptedLLM(answer)), Corridor(), TASK, calls=calls)
    assert (episode.stop_reason, len(episode.steps)) == (StopReason.MODEL_ERROR, 1)
    assert "RateLimited: still too fast" in episode.error
    assert [bool(call.error) for call in calls] == [False, True]
    assert episode.usage == episode.steps[0].usage
    assert episode.usage.completion_tokens == 1


def test_a_spent_budget_ends_the_episode_and_what_was_played_is_kept() -> None:
    ledger = Ledger(tokens=25)
    with metered(ledger=ledger):
        episode = rollout(Asks(ScriptedLLM(lambda r: "red")), Corridor(), TASK)
    assert episode.stop_reason == StopReason.BUDGET
    assert "25 tokens" in episode.error
    assert 0 < episode.usage.tokens == ledger.spent.tokens <= 25
    assert len(episode.steps) > 0


def test_the_same_seed_is_the_same_episode() -> None:
    class Samples:
        def act(self, view: View) -> Action:
            return Action(str(np.random.default_rng(view.seed).choice(view.admissible or ())))

    first, again, other = (rollout(Samples(), Corridor(), TASK, seed=seed, max_steps=20) for seed in (1, 1, 2))
    assert first == again
    assert first.steps != other.steps
