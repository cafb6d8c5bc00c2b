"""Function-calling worlds with a user: functions that come with JSON schemas, and a user who is answered.

An action is one call, in the notations of `agentkit.envs.tools.parse_call`, or a message to the user. The user is
reached by calling ``reply``, or by writing a text that is no call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentkit.envs.spaces import quoted
from agentkit.envs.tools import Call, parse_call

_DIGITS = 18
_LARGEST: int = 10**_DIGITS - 1
_MAX_DEPTH = 20
_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*[(\[]")


@dataclass(frozen=True, slots=True)
class Function:
    """What may be called. ``parameters`` is the JSON schema of the arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        properties: Mapping[str, Any] = self.parameters.get("properties", {})
        required = self.parameters.get("required", ())
        arguments, notes = [], []
        for name, schema in properties.items():
            default = "" if name in required else f" = {schema.get('default')!r}"
            arguments.append(f"{name}: {_type(schema)}{default}")
            if schema.get("description"):
                notes.append(f"    {name}: {' '.join(schema['description'].split())}")
        head = f"{self.name}({', '.join(arguments)}): {' '.join(self.description.split())}"
        return "\n".join([head, *notes])


@dataclass(frozen=True, slots=True)
class Message:
    """What is said to the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an action is neither a call nor a message."""

    text: str


REPLY = Function(
    "reply",
    "Say something to the user: what came of the request, or what is missing. It ends your turn.",
    {"properties": {"message": {"type": "string"}}, "required": ["message"]},
)


def describe(functions: Iterable[Function]) -> str:
    """The functions with their arguments, a paragraph of lines for each."""
    return "\n".join(["Functions:", *map(str, functions)])


def read_action(action: str, names: Iterable[str]) -> Call | Message | Refusal:
    """What an action is, where the functions ``names`` and ``reply`` may be called.

    The arguments of the call are plain data: texts, numbers, truth values, None, and lists and dicts of them. Refused
    are calls of another function, of arguments that are no such data, and what begins like a call and is none.
    """
    known = [*names, REPLY.name]
    call = parse_call(action)
    if call is None:
        begun = _CALL.match(action[:200])
        if action.lstrip()[:1] == "{" or (begun and begun[1] in known):
            return Refusal(f"{quoted(action)} cannot be read as a call. Arguments are literal values, by name.")
        return Message(action)
    if call.name not in known:
        return Refusal(f"There is no function {quoted(call.name)}. Functions: {', '.join(known)}.")
    if not is_plain([list(call.args), dict(call.kwargs)]):
        return Refusal(
            f"{call.name}: an argument is a text, a number of at most {_DIGITS} digits, true, false, null, or a "
            "list or object of them."
        )
    if call.name != REPLY.name:
        return call
    said = [*call.args, *call.kwargs.values()]
    if len(said) != 1 or set(call.kwargs) - {"message"} or not isinstance(said[0], str):
        return Refusal("reply takes one text: reply(message='…').")
    return Message(said[0])


def is_plain(value: object, depth: int = _MAX_DEPTH) -> bool:
    """Whether ``value`` is what JSON can hold, neither deep nor with numbers of hundreds of digits."""
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(is_plain(v, depth - 1) for v in value)
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(k, str) and is_plain(v, depth - 1) for k, v in value.items())
    if isinstance(value, int):
        return -_LARGEST <= value <= _LARGEST
    return value is None or isinstance(value, (str, float))


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_type(s) for s in schema["anyOf"])
    name = str(schema.get("type", "any"))
    return f"{name} of {_type(schema['items'])}" if name == "array" and schema.get("items") else name
