"""BFCL's multi-turn tasks: the package's gold calls and its own checker are the reference."""

from __future__ import annotations

import importlib.util
import random
import time
from pathlib import Path
from typing import Any

import pytest

import agentkit
from agentkit.agents.react import react
from agentkit.envs import make
from agentkit.envs.tools_user import Message, Refusal, is_plain, read_action
from agentkit.errors import AgentkitError, InvalidValue, MissingExtra, UnknownName
from agentkit.llm import ScriptedLLM
from agentkit.policy.call import FunctionCall
from agentkit.testing import check_env
from tests.envs.needs import need

ID = "agentkit/BFCL-v0"
CATEGORIES = ("base", "long_context", "miss_func", "miss_param")


@pytest.fixture(autouse=True)
def _need() -> None:
    need("bfcl_eval")


def play(env: Any, actions: list[str]) -> dict[str, Any]:
    """The info after the last action; all but it leave the episode open."""
    info: dict[str, Any] = {}
    for left, action in zip(reversed(range(len(actions))), actions, strict=True):
        _, reward, over, truncated, info = env.step(action)
        assert (over, truncated) == (left == 0, False)
        assert reward == float(info["success"])
    return info


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_it_keeps_the_contract(category: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_env(ID, seeds=(3, 11), options={"category": category}).skipped == ()


# In this one the gold calls a function two turns before the user offers it.
UNSOLVED = {"base": [], "long_context": [], "miss_func": ["multi_turn_miss_func_49"], "miss_param": []}


@pytest.mark.parametrize("category", CATEGORIES)
def test_gold_solves_the_tasks(category: str) -> None:
    env = make(ID, category=category)
    unsolved, seen = [], set()
    for seed in range(200):
        _, info = env.reset(seed=seed, options={"gold": True})
        seen.add(info["task"])
        if not play(env, info["gold"])["success"]:
            unsolved.append(info["task"])
    env.close()
    assert len(seen) == 200
    assert unsolved == UNSOLVED[category]


def test_the_verdict_is_that_of_the_packages_checker() -> None:
    """Gold calls that lost some, or gained some of another turn: what is wrong, and by luck is not, is the same."""
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    from agentkit.envs.bfcl import _tasks

    chance = random.Random(0)
    env = make(ID)
    verdicts = {True: 0, False: 0}
    for id, task in list(_tasks("base").items())[::2]:
        turns = [list(calls) for calls in task["gold"]]
        turn, other = chance.choice(turns), chance.choice(turns)
        if chance.random() < 0.5 and turn:
            del turn[chance.randrange(len(turn))]
        else:
            turn[len(turn) :] = chance.sample(other, min(1, len(other)))
        env.reset(options={"task": id})
        info = play(env, [action for calls in turns for action in [*calls, "That is done."]])
        steps = [[[call] for call in calls] for calls in turns]
        expected = multi_turn_checker(steps, task["gold"], task, "multi_turn_base", "damaged")["valid"]
        assert info["success"] == expected, id
        verdicts[expected] += 1
    env.close()
    assert min(verdicts.values()) > 10, verdicts


def test_a_conversation_goes_on_turn_by_turn() -> None:
    env = make(ID)
    request, info = env.reset(options={"task": "multi_turn_base_0", "gold": True})
    assert info["goal"].startswith(request)
    assert "\nmv(source: string, destination: string): Move a file" in info["goal"]
    gold = info["gold"]
    assert env.step(gold[0])[0] == '{"current_working_directory": "document"}'
    text, _, _, _, info = env.step("mv(source='no such file', destination='temp')")
    assert text == '{"error": "mv: cannot move \'no such file\': No such file or directory"}'
    assert info == {"success": False, "score": 0.0, "feedback": text}
    for action in gold[1:3]:
        env.step(action)
    text, _, over, _, info = env.step('{"name": "reply", "arguments": {"message": "Moved."}}')
    assert (over, info["success"], info["score"]) == (False, False, 0.25)
    assert text.startswith("Perform a detailed search using grep")
    text, _, over, _, info = env.step("I would rather not.")  # a text that is no call is a reply too
    assert (over, info["score"]) == (False, 0.25)
    assert text.startswith("Upon identifying")
    info = play(env, [*gold[gold.index("sort('final_report.pdf')") :]])
    assert (info["success"], info["score"]) == (False, 0.25)  # the turn that was missed is not made good
    assert env.step("ls()")[2:4] == (True, False)
    env.close()


def test_held_out_functions_come_later() -> None:
    env = make(ID, category="miss_func")
    _, info = env.reset(seed=0, options={"gold": True})
    assert "sort(" not in info["goal"]
    assert env.step("sort('final_report.pdf')")[4]["feedback"].startswith('There is no function "sort".')
    play_until = info["gold"].index("sort('final_report.pdf')")
    text = ""
    for action in info["gold"][:play_until]:
        text = env.step(action)[0]
    assert text.startswith("I have updated some more functions")
    assert "sort(file_name: string): Sort the contents" in text
    assert play(env, info["gold"][play_until:])["success"]
    env.close()


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("power(base=10, exponent=1000000000)", "Error during execution: the last argument of power must be"),
        ("logarithm(value=2, base=3, precision=100000000)", "Error during execution: the last argument of logarithm"),
        ("round_number(7, -100000000)", "Error during execution: the last argument of round_number"),
        ("add(a=9999999999999999999, b=1)", "add: an argument is a text, a number of at most 18 digits"),
        ("add(a={1, 2}, b=b'x')", "add: an argument is a text"),
        ("add(a=__import__('os'), b=1)", "\"add(a=__import__('os'), b=1)\" cannot be read as a call."),
        ('{"name": "add", "arguments": ', '"{"name": "add", "arguments":" cannot be read as a call.'),
        ("add(1, 2, 3)", "Error during execution: MathAPI.add() takes 3 positional arguments but 4 were given"),
        ("_load_scenario({})", 'There is no function "_load_scenario".'),
        ("reply(1, 2)", "reply takes one text"),
    ],
)
def test_what_does_harm_or_makes_no_sense_is_refused(action: str, said: str) -> None:
    env = make(ID)
    env.reset(options={"task": "multi_turn_base_15"})
    began = time.process_time()
    text, _, over, _, info = env.step(action)
    assert text.startswith(said)
    assert (over, info["feedback"]) == (False, text)
    assert time.process_time() - began < 5
    env.close()


def test_copies_of_folders_do_not_grow_without_end() -> None:
    """A copy shares what is in it: copies of copies would be looked through for ever after forty of them."""
    env = make(ID, max_calls=10_000)
    env.reset(options={"task": "multi_turn_base_0"})
    text = ""
    for i in range(60):
        text = env.step(f"cp('document', 'copy{i}')")[0]
        if "full" in text:
            break
        for call in (f"mkdir('b{i}')", f"mv('document', 'b{i}')", f"mv('copy{i}', 'b{i}')", f"mv('b{i}', 'document')"):
            env.step(call)
    assert text == "Error during execution: the file system is full"
    assert "matches" in env.step("find('.', 'report')")[0]
    env.close()


def test_a_calculation_leaves_the_process_as_it_was() -> None:
    import decimal

    import mpmath

    env = make(ID)
    env.reset(options={"task": "multi_turn_base_15"})
    before = mpmath.mp.dps, decimal.getcontext().prec
    assert env.step("logarithm(value=8, base=2, precision=50)")[0] == "{'result': mpf('3.0')}"
    assert env.step("square_root(number=2, precision=40)")[0].startswith(
        "{'result': Decimal('1.414213562373095048801688"
    )
    assert (mpmath.mp.dps, decimal.getcontext().prec) == before
    env.close()


def test_too_many_calls_end_the_episode() -> None:
    env = make(ID, max_calls=3)
    env.reset(seed=0)
    info = play(env, ["ls()", "gibberish(1)", "ls()", "ls()"])
    assert (info["success"], info["score"]) == (False, 0.0)
    env.close()


def test_options_and_mistakes_in_them() -> None:
    env = make(ID)
    _, info = env.reset(seed=205)
    assert info["task"] == "multi_turn_base_5"
    assert env.reset(seed=0, options={"task": "multi_turn_miss_param_7"})[1]["task"] == "multi_turn_miss_param_7"
    wrong: list[tuple[dict[str, Any], type[AgentkitError], str]] = [
        ({"task": "multi_turn_bas_7"}, UnknownName, "multi_turn_base_7"),
        ({"category": "miss_fnc"}, UnknownName, "miss_func"),
        ({"taks": "multi_turn_base_7"}, UnknownName, "task"),
    ]
    for options, error, near in wrong:
        with pytest.raises(error, match=near):
            env.reset(seed=0, options=options)
    env.close()
    with pytest.raises(InvalidValue):
        make(ID, max_calls=0)


@pytest.mark.parametrize("absent", ["bfcl_eval", "mpmath"])
def test_without_the_package_it_says_how_to_install_it(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else there(name))
    with pytest.raises(MissingExtra, match="pip install mpmath && pip install --no-deps bfcl-eval"):
        make(ID)


@pytest.mark.parametrize("form", ["json", "python"])
def test_an_agent_plays_it_by_function_calls(form: Any) -> None:
    env = make(ID)
    gold = env.reset(seed=3, options={"gold": True})[1]["gold"]
    env.close()
    llm = ScriptedLLM(gold)
    agent = react(llm, policy=FunctionCall(form=form))
    (episode,) = agentkit.run(agent, agentkit.Task(ID, seed=3)).episodes
    assert (episode.success, len(episode.steps)) == (True, len(gold))
    assert "reply(message: string)" in llm.requests[0].messages[0].content
    other = agentkit.run(react(ScriptedLLM(gold), policy=FunctionCall(form=form)), agentkit.Task(ID, seed=4))
    assert not other.episodes[0].success


def test_actions_are_calls_messages_or_neither() -> None:
    names = ["find", "cd"]
    assert read_action("reply('Done.')", names) == Message("Done.")
    assert read_action("find me the file", names) == Message("find me the file")
    assert read_action("", names) == Message("")
    for refused in ("find(name=x)", "find[", "{not json}", "serach(name='x')", "reply(text='Done.')", "cd(1e400, 2j)"):
        assert isinstance(read_action(refused, names), Refusal), refused
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    assert not is_plain(deep)
    assert is_plain({"a": [1, 2.5, None, True, ("x",)]})
    assert not is_plain({1: "a"})
