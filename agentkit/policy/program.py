"""A policy whose action is a program (Wang et al. 2024, "CodeAct"; Wang et al. 2023, "Voyager").

The program may call the skills that were recalled. Before it goes to the world, the code of those that it calls, and of
those that they require, is put in front of it.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from agentkit import parsing
from agentkit.llm.base import LLM
from agentkit.memory import Recalled
from agentkit.memory.skill import Skill
from agentkit.memory.skills_code import join
from agentkit.policy.generate import Generate, invalid
from agentkit.syntax import parse_module
from agentkit.types import Action, View


@dataclass(frozen=True, repr=False)
class Program(Generate):
    """Asks for a Python program. ``instructions`` should name the primitives that the world gives to programs."""

    prompt: str = "program"
    max_tokens: int = 1024

    def act(self, view: View, llm: LLM | None) -> Action:
        """The program that the model writes, with the skills that it calls in front."""
        said, ids = self.context(view)
        expected = "Write one Python program in a code block, without syntax errors."
        answer = self.ask(llm, self.write(said), parsing.program, expected, seed=view.seed)
        if answer.value is None:
            return invalid(answer, ids)
        return Action(with_skills(answer.value, view.skills), thought=_prose(answer.text), memory_ids=ids)


def with_skills(program: str, recalled: Sequence[Recalled]) -> str:
    """The program behind the code of the recalled skills that it calls, dependencies first.

    A skill that the program defines anew is not put in front: the program's own definition would hide it.
    """
    known = {skill.name: skill for skill in (Skill.of(found.record) for found in recalled)}
    if not known or program[:1] in " \t":  # the rest of a function that the prompt began: nothing can go before it
        return program
    tree = parse_module(program)
    defined = {
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
    }
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    ordered: dict[str, str] = {}

    def put(name: str, above: tuple[str, ...] = ()) -> None:
        if name in known and name not in ordered and name not in defined and name not in above:
            for below in known[name].requires:
                put(below, (*above, name))
            ordered[name] = known[name].code

    for name in sorted(called):
        put(name)
    return join([*ordered.values(), program]) if ordered else program


def new_functions(program: str, known: Sequence[str] = ()) -> dict[str, str]:
    """The functions that a program defines at its top level and that are not ``known``: name -> source, in order."""
    tree = parse_module(program)
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in known:
            found[node.name] = ast.get_source_segment(program, node) or ast.unparse(node)
    return found


def _prose(answer: str) -> str:
    """What was said around the code: the plan."""
    return parsing.plain(answer).partition("```")[0].strip() if "```" in answer else ""
