"""The multi-turn tasks of the Berkeley Function Calling Leaderboard (Patil et al., BFCL, 2025).

Needs the package ``bfcl-eval`` without its dependencies, and ``mpmath``. See docs/worlds/bfcl.md.
"""

from __future__ import annotations

import copy
import decimal
import functools
import importlib
import importlib.util
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.spaces import check_action, clean, text_space
from agentkit.envs.tasks import by_seed, checked, choose, read_options
from agentkit.envs.tools import Call, parse_call
from agentkit.envs.tools_user import REPLY, Function, Message, Refusal, describe, read_action
from agentkit.errors import MissingExtra

CATEGORIES = ("base", "long_context", "miss_func", "miss_param")
_EVAL = "bfcl_eval.eval_checker.multi_turn_eval"
_RULES = (
    "This is the user's first request; others may follow. Call functions, one in each action, until the request is "
    f"fulfilled, then call {REPLY.name}. Where a function or a value that you need is missing, say so with it."
)
_MAX_ENTRIES = 10_000
_MAX_DIGITS = 1000
_lock = threading.Lock()  # mpmath's precision, and tables of the package that calls write into, are the process's


class BFCLEnv(gymnasium.Env[str, str]):
    """A conversation of several turns: the user asks, the agent calls functions, and replies.

    Args:
        category: ``base``, ``long_context``, ``miss_func`` or ``miss_param``, 200 tasks each.
        max_calls: how many actions a turn may have before the reply; one more ends the episode, as a failure.

    A seed plays task number ``seed`` of the category. Options of ``reset``: ``category``, ``task`` (an id of any
    category, ``"multi_turn_base_7"``) and ``gold``. The info of ``reset`` says the ``task``. Success, said at the end:
    after each turn the state of the APIs, and what their functions answered, were what the package's own checker wants.
    ``score`` is the share of the turns before the first in which they were not.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, category: str = "base", max_calls: int = 40) -> None:
        if any(importlib.util.find_spec(name) is None for name in ("bfcl_eval", "mpmath")):
            raise MissingExtra(
                "bfcl-eval is not installed. Run: pip install mpmath && pip install --no-deps bfcl-eval "
                "(with its dependencies it is over 6 GB, and none of them is needed here)"
            )
        self._checker = importlib.import_module(f"{_EVAL}.multi_turn_checker")
        self._category = choose("category", category, CATEGORIES)
        self._max_calls = checked("max_calls", max_calls, int, low=1)
        self.observation_space, self.action_space = text_space(), text_space(20_000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, {"category": self._category, "task": None})
        if chosen["task"] is None:
            tasks = list(_tasks(choose("category", chosen["category"], CATEGORIES)).values())
            self._task = by_seed(tasks, seed, self.np_random)
        else:
            tasks_of_all = {id: task for category in CATEGORIES for id, task in _tasks(category).items()}
            self._task = tasks_of_all[choose("task", chosen["task"], tasks_of_all)]
        self._apis, self._reference = _Apis(self._task), _Apis(self._task)
        self._offered = _functions(self._task)
        for name in (name for names in self._held_out.values() for name in names):
            del self._offered[name]
        self._turn = self._right = self._calls = 0
        self._answers: list[str] = []  # of all calls so far, as the package's checker takes them
        self._executed = 0
        self._over = False
        request = self._request()
        info = {
            "goal": f"{request}\n\n{_RULES}\n{describe([*self._offered.values(), REPLY])}",
            "task": self._task["id"],
        }
        if chosen["gold"]:
            turns = self._task["gold"]
            info["gold"] = [action for calls in turns for action in [*calls, f"{REPLY.name}(message='Done.')"]]
        return clean(request), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        feedback = ""
        if self._over:
            text = feedback = "The conversation is over."
        else:
            match read_action(action, self._offered):
                case Message():
                    text = self._end_turn()
                case Refusal(text):
                    feedback = text
                    self._count()
                case Call() as call:
                    text, failed = self._apis.call(call)
                    self._answers.append(text)
                    self._executed += 1
                    feedback = text if failed else ""
                    self._count()
        success = self._turn == self._right == len(self._task["gold"])
        info: dict[str, Any] = {"success": success, "score": self._right / len(self._task["gold"])}
        if feedback:
            info["feedback"] = clean(feedback)
        return clean(text), float(success), self._over, False, info

    @property
    def _held_out(self) -> Mapping[str, list[str]]:
        """The functions that are offered later, by the number of the turn."""
        held: Mapping[str, list[str]] = self._task.get("missed_function", {})
        return held

    def _request(self) -> str:
        """What the user says in this turn, with the functions that are new."""
        new = self._held_out.get(str(self._turn), ())
        if not new:
            return str(self._task["question"][self._turn][0]["content"])
        known = _functions(self._task)
        self._offered |= {name: known[name] for name in new}
        prompts = importlib.import_module("bfcl_eval.constants.default_prompts")
        return f"{prompts.DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC}\n{describe(known[name] for name in new)}"

    def _count(self) -> None:
        self._calls += 1
        self._over = self._calls > self._max_calls

    def _end_turn(self) -> str:
        """Judge the turn as the package does, and hear what the user asks next."""
        gold = self._task["gold"][self._turn]
        wanted = [self._reference.call(_parsed(text))[0] for text in gold]
        right = not gold or (self._executed > 0 and self._agrees(wanted))
        if right and self._right == self._turn:
            self._right += 1
        self._turn += 1
        self._calls = self._executed = 0
        self._over = self._turn == len(self._task["gold"])
        return "" if self._over else self._request()

    def _agrees(self, wanted: list[str]) -> bool:
        state = self._checker.state_checker(self._apis.instances, self._reference.instances)
        said = self._checker.response_checker(self._answers, wanted, self._turn)
        return bool(state["valid"] and said["valid"])


class _Apis:
    """The stateful APIs of a task, in the state where it begins."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        table = importlib.import_module("bfcl_eval.constants.executable_backend_config")
        self.instances: dict[str, Any] = {}
        self._owners: dict[str, str] = {}
        for name in task["involved_classes"]:
            made = getattr(importlib.import_module(table.CLASS_FILE_PATH_MAPPING[name]), name)()
            if name not in table.STATELESS_CLASSES:
                state = copy.deepcopy(task["initial_config"].get(name, {}))
                made._load_scenario(state, long_context="long_context" in task["id"])
            self.instances[name] = made
            self._owners |= dict.fromkeys(_documented(name), name)

    def call(self, call: Call) -> tuple[str, bool]:
        """What a function answers, as the text that the package makes of it, and whether that is an error."""
        owner = self._owners[call.name]
        instance = self.instances[owner]
        mpmath = importlib.import_module("mpmath")
        with _lock, decimal.localcontext(), mpmath.workdps(mpmath.mp.dps):
            try:
                _refuse_bombs(owner, instance, call)
                result = getattr(instance, call.name)(*call.args, **call.kwargs)
                text = _text(result)
            except Exception as error:  # one call of an API, with arguments that a model wrote
                return f"Error during execution: {error}", True
        return text, isinstance(result, dict) and "error" in result


def _text(result: object) -> str:
    if isinstance(result, str):
        return result
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except TypeError:  # a number of many digits, which the package shows as Python does
            pass
    return str(result)


def _refuse_bombs(owner: str, instance: Any, call: Call) -> None:
    """Raise ValueError for a call that would take all memory or time: the package's APIs do what they are told."""
    if owner == "MathAPI":
        numbers = [v for v in (*call.args, *call.kwargs.values()) if isinstance(v, int)]
        bounded = call.name in ("logarithm", "power", "round_number", "square_root")
        if bounded and any(abs(n) > _MAX_DIGITS for n in numbers[-1:]):
            raise ValueError(f"the last argument of {call.name} must be between -{_MAX_DIGITS} and {_MAX_DIGITS}")
    elif owner == "GorillaFileSystem" and call.name == "cp":
        entries, frontier = 0, [instance.root]  # copies share what is in them, so that they could grow by doubling
        while frontier:
            entries += 1
            if entries > _MAX_ENTRIES:
                raise ValueError("the file system is full")
            frontier.extend(getattr(frontier.pop(), "contents", {}).values())


def _parsed(text: str) -> Call:
    call = parse_call(text)
    assert call is not None, f"the package's gold call {text!r} is no call"
    return call


def _data() -> Path:
    spec = importlib.util.find_spec("bfcl_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


@functools.cache
def _tasks(category: str) -> dict[str, dict[str, Any]]:
    """The tasks of a category by id, each with its ``gold``: the calls of each turn. Shared, and never changed."""
    name = f"BFCL_v4_multi_turn_{category}.json"
    gold = {row["id"]: row["ground_truth"] for row in _lines(_data() / "possible_answer" / name)}
    return {row["id"]: {**row, "gold": gold[row["id"]]} for row in _lines(_data() / name)}


@functools.cache
def _documented(api: str) -> dict[str, Function]:
    """The functions of an API, by name, from the package's own documentation of them."""
    table = importlib.import_module("bfcl_eval.constants.executable_backend_config")
    rows = _lines(_data() / "multi_turn_func_doc" / table.MULTI_TURN_FUNC_DOC_FILE_MAPPING[api])
    mark = "Tool description: "  # before it stands what the API is for, again for each function
    return {r["name"]: Function(r["name"], r["description"].rpartition(mark)[2], r["parameters"]) for r in rows}


def _functions(task: Mapping[str, Any]) -> dict[str, Function]:
    return {name: function for api in task["involved_classes"] for name, function in _documented(api).items()}
