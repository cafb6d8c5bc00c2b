"""Multi-turn tool and chat worlds as environments: an action calls a tool, or is a message to the other side.

Calls are read, never evaluated: `parse_call` knows the three forms that models write.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from agentkit.envs.spaces import check_action, clean, quoted, text_space
from agentkit.envs.tasks import as_dict, as_score, checked
from agentkit.errors import ContractError, InvalidValue
from agentkit.syntax import parse_expression

_BRACKETS = re.compile(r"\s*([A-Za-z_][\w.]*)\[(.*)\]\s*\Z", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MAX_CALL = 20_000


@dataclass(frozen=True, slots=True)
class Call:
    """A tool's name and its arguments, which are plain values."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def parse_call(text: str) -> Call | None:
    """The call that ``text`` is, or None where it is something else.

    Three forms: ``{"name": "search", "arguments": {"query": "cats"}}`` (as models with function calling write it;
    ``tool`` and ``args`` are understood too), ``search(query="cats")`` with literal arguments, and ``search[cats]``
    (ReAct's), whose argument is the text between the brackets.
    """
    text = text.strip()
    if not text or len(text) > _MAX_CALL:
        return None
    if text.startswith("{"):
        return _from_json(text)
    if found := _BRACKETS.match(text):
        return Call(found[1], (found[2],))
    return _from_python(text)


def _from_json(text: str) -> Call | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    name = value.get("name", value.get("tool"))
    arguments = value.get("arguments", value.get("args", {}))
    if isinstance(arguments, str):  # some interfaces give the arguments as JSON text
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return Call(name, (), arguments)


def _from_python(text: str) -> Call | None:
    try:
        call = parse_expression(text)
        if not isinstance(call, ast.Call) or not isinstance(call.func, (ast.Name, ast.Attribute)):
            return None
        args = tuple(ast.literal_eval(a) for a in call.args)
        kwargs = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg is not None}
        if len(kwargs) < len(call.keywords):
            return None
        name = ast.unparse(call.func)
        return Call(name, args, kwargs) if _NAME.fullmatch(name) else None
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class ToolTask:
    """One episode of a tool world, made new for each.

    Attributes:
        goal: what is to be done.
        tools: the functions that may be called, by name; they share whatever state the episode has. What one returns is
            the observation, as text or JSON; what it raises is the feedback.
        succeeded: whether the goal is reached, looked at after every step.
        opening: the first observation.
        reply: answers a message that is no call, for worlds to talk with; None from it ends the episode. Where there is
            no ``reply``, such a message is refused.
        finish: the name of the tool that ends the episode, if one does.
        score: the part that is done, in [0, 1]; by default whether it succeeded.
        gold: calls and messages that succeed.
    """

    goal: str
    tools: Mapping[str, Callable[..., Any]]
    succeeded: Callable[[], bool]
    opening: str = ""
    reply: Callable[[str], str | None] | None = None
    finish: str = ""
    score: Callable[[], float] | None = None
    gold: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked("goal", self.goal, str)
        tools: Any = self.tools
        if not isinstance(tools, Mapping) or not all(isinstance(n, str) and callable(f) for n, f in tools.items()):
            raise InvalidValue(f'tools={tools!r}: a dict of functions by name is needed, {{"add": add}}')
        functions: dict[str, Any] = {"succeeded": self.succeeded, "reply": self.reply, "score": self.score}
        for name, function in functions.items():
            if not callable(function) and (function is not None or name == "succeeded"):
                raise InvalidValue(f"{name}={function!r}: a function is needed")


class ToolEnv(gymnasium.Env[str, str]):
    """A tool or chat world.

    Args:
        make_task: makes an episode of a seeded generator and the options of ``reset`` (without ``gold``).
        stop_on_success: end the episode as soon as the goal is reached.

    The goal ends with the tools' signatures and the first lines of their docstrings.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self,
        make_task: Callable[[np.random.Generator, Mapping[str, Any]], ToolTask],
        *,
        stop_on_success: bool = True,
    ) -> None:
        if not callable(make_task):
            raise InvalidValue(f"make_task={make_task!r}: a function (random, options) -> ToolTask is needed")
        self.observation_space, self.action_space = text_space(), text_space()
        self._make_task, self._stop_on_success = make_task, stop_on_success
        self._task: ToolTask | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = as_dict("options", options)
        gold = checked("gold", chosen.pop("gold", False), bool)
        task: object = self._make_task(self.np_random, chosen)
        if not isinstance(task, ToolTask):
            raise ContractError(f"make_task returned {task!r}: it must return an agentkit.envs.tools.ToolTask")
        self._task = task
        info: dict[str, Any] = {"goal": "\n".join(filter(None, [task.goal, describe_tools(task.tools)]))}
        if gold:
            info["gold"] = list(task.gold)
        return clean(task.opening), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        task = self._task
        assert task is not None, "call reset first"
        before = task.succeeded()
        text, refused, over = self._do(task, action)
        success: object = task.succeeded()
        if not isinstance(success, bool | np.bool_):
            raise ContractError(f"ToolTask.succeeded returned {success!r}: it must say True or False")
        success = bool(success)
        score = float(success) if task.score is None else as_score("ToolTask.score", task.score())
        info: dict[str, Any] = {"success": success, "score": score}
        if refused:
            info["feedback"] = text
        over = over or (success and self._stop_on_success)
        return text, float(success and not before), over, False, info

    def _do(self, task: ToolTask, action: str) -> tuple[str, bool, bool]:
        """The observation, whether the action was refused, and whether it ended the episode."""
        call = parse_call(action)
        if call is None or (task.reply is not None and call.name not in task.tools):
            if task.reply is None:
                names = ", ".join(task.tools)
                return clean(f"{quoted(action)} is no call of a tool. Tools: {names}."), True, False
            answer: object = task.reply(action)
            if not isinstance(answer, str | None):
                raise ContractError(f"reply returned {answer!r}: it must return a text, or None to end the episode")
            return clean(answer or ""), False, answer is None
        tool = task.tools.get(call.name)
        if tool is None:
            return clean(f"There is no tool {quoted(call.name)}. Tools: {', '.join(task.tools)}."), True, False
        try:
            bound = inspect.signature(tool).bind(*call.args, **call.kwargs)
        except TypeError as error:
            return clean(f"{call.name}{_signature(tool)}: {error}."), True, False
        try:
            result = tool(*bound.args, **bound.kwargs)
        except Exception as error:  # one call of a tool, with arguments that a model wrote
            return clean(f"{type(error).__name__}: {error}"), True, False
        text = result if isinstance(result, str) else json.dumps(result, default=str, ensure_ascii=False)
        return clean(text), False, call.name == task.finish


def describe_tools(tools: Mapping[str, Callable[..., Any]]) -> str:
    """A line for each tool: its signature and the first line of its docstring."""
    lines = []
    for name, tool in tools.items():
        summary = (inspect.getdoc(tool) or "").partition("\n")[0]
        lines.append(f"{name}{_signature(tool)}" + (f": {summary}" if summary else ""))
    return "\n".join(["Tools:", *lines]) if lines else ""


def _signature(tool: Callable[..., Any]) -> str:
    try:
        signature = str(inspect.signature(tool))
    except ValueError:  # of some that are written in C
        raise InvalidValue(f"the tool {tool!r} has no signature to show: put it into a function of your own") from None
    return re.sub(r" -> .*\Z", "", signature).replace("'", "")
