"""A policy whose action is a function call."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from agentkit import parsing
from agentkit.llm.base import LLM
from agentkit.policy.generate import Generate, invalid
from agentkit.types import Action, Options, View


@dataclass(frozen=True)
class Tool:
    """A function that the world offers. ``parameters`` is the JSON schema of its arguments, an object."""

    name: str
    description: str = ""
    parameters: Options = field(default_factory=lambda: Options({"type": "object", "properties": {}}))

    @property
    def arguments(self) -> list[str]:
        """The names of the arguments, in order."""
        return list(self.parameters.get("properties", {}))


@dataclass(frozen=True, repr=False)
class FunctionCall(Generate):
    """Asks for one call of ``tools`` (none: of any function) and gives it to the world in one notation.

    ``form`` is ``"json"`` (``{"name": …, "arguments": …}``) or ``"python"`` (``name(key=value)``). ``constrained``
    hands the model a JSON schema, for backends that can hold it to one. A call without an argument that is required
    cannot be read.
    """

    prompt: str = "call"
    tools: tuple[Tool, ...] = ()
    form: Literal["json", "python"] = "json"
    constrained: bool = False

    def act(self, view: View, llm: LLM | None) -> Action:
        """The call that the model writes."""
        said, ids = self.context(view)
        said["tools"] = [
            {"name": t.name, "description": t.description, "parameters": json.dumps(dict(t.parameters))}
            for t in self.tools
        ]
        expected = 'Answer with one JSON object: {"name": the function, "arguments": {its arguments by name}}.'
        if self.tools:
            expected += f" The functions are: {', '.join(t.name for t in self.tools)}."
        schema = self._schema() if self.constrained else None
        answer = self.ask(llm, self.write(said), self.read, expected, seed=view.seed, schema=schema)
        return invalid(answer, ids) if answer.value is None else Action(answer.value, memory_ids=ids)

    def read(self, text: str) -> str | None:
        """The call in ``text``, in the notation of ``form``."""
        found = parsing.call(text, [t.name for t in self.tools] or None)
        if found is None:
            return None
        name, arguments = found
        tool = next((t for t in self.tools if t.name == name), None)
        if tool is not None:
            names = tool.arguments
            arguments = {names[int(k)] if k.isdigit() and int(k) < len(names) else k: v for k, v in arguments.items()}
            if any(needed not in arguments for needed in tool.parameters.get("required", ())):
                return None
        if self.form == "json":
            return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        return f"{name}({', '.join(_argument(k, v) for k, v in arguments.items())})"

    def _schema(self) -> Options:
        options = [
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": dict(tool.parameters)},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in self.tools
        ]
        return Options({"anyOf": options} if options else {"type": "object"})


def _argument(name: str, value: Any) -> str:
    return repr(value) if name.isdigit() else f"{name}={value!r}"
