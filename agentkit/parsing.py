"""Reads what models write: actions, thoughts, calls, programs, verdicts, as they come and not as they were asked for.

Each reader returns None where it finds nothing that it could stand for; none guesses. Nothing read here is evaluated:
calls and literals go through `ast`, never through `eval`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentkit.syntax import parse_expression, parse_module

_FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_THINK = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_GOAL = re.compile(r"^\W*(?:next\s+)?(?:task|goal)\W*:\W*(.+)$", re.IGNORECASE | re.MULTILINE)
_ACTION = re.compile(r"^[\W_]*(?:next\s+)?act(?:ion)?(?:\s+input)?\s*\d*[*_]*\s*[::][*_]*[ \t]*(.*)$", re.I | re.M)
_THOUGHT = re.compile(r"^[\W_]*thought\s*\d*[*_]*\s*[::][*_]*[ \t]*", re.IGNORECASE | re.MULTILINE)
_OBSERVATION = re.compile(r"^[\W_]*obs(?:ervation)?\s*\d*[*_]*\s*[::]", re.IGNORECASE | re.MULTILINE)
_BRACKETED = re.compile(r"^[A-Za-z_]\w*\[.*\]\s*$", re.MULTILINE)
_LEAD = re.compile(
    r"^(?:>+|[-*•]|\(?\d+[.)]|you (?:should|could)|i (?:will|would|choose to|choose|should|am going to))\s+", re.I
)


def plain(answer: str) -> str:
    """The answer without what a model thought aloud in tags, and without white space around it."""
    return _THINK.sub("", answer).strip()


def fenced(answer: str, languages: Sequence[str] = ()) -> list[str]:
    """The contents of the code fences, those of ``languages`` (when given) or of no language; an open fence counts."""
    found = [(tag.lower(), body) for tag, body in _FENCE.findall(answer)]
    return [body for tag, body in found if not languages or not tag or tag in languages]


def action(answer: str, admissible: Sequence[str] | None = None) -> str | None:
    """The action in an answer that should be one action.

    Labels (``Action:``), fences, quotes, list marks and ways of speaking (``I will …``) are taken off. With
    ``admissible`` the result is one of them: named exactly but for case and spaces, by its number (from 1), or as the
    only one, or the longest one that holds all others, that the line names.
    """
    text = plain(answer)
    blocks = fenced(text)
    if blocks:
        text = blocks[0].strip()
    labelled = _labelled_action(text)
    lines = [labelled] if labelled else [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if admissible:
        for line in lines:
            found = match(line, admissible)
            if found is not None:
                return found
        return None
    return _bare(lines[0]) or None


def match(line: str, admissible: Sequence[str]) -> str | None:
    """The admissible action that ``line`` names, or None where it names none, or several that are no part of one."""
    by_key = {_key(a): a for a in reversed(admissible)}
    for candidate in (line, _bare(line), _LEAD.sub("", line.strip()), _bare(_LEAD.sub("", _bare(line)))):
        if _key(candidate) in by_key:
            return by_key[_key(candidate)]
    number = re.fullmatch(r"\W*(?:option|action|number)?\s*#?(\d+)\W*", line.strip(), re.IGNORECASE)
    if number and 1 <= int(number[1]) <= len(admissible):
        return admissible[int(number[1]) - 1]
    # In ``3. go east`` the number and the text may disagree: the text, which was looked at above, wins.
    key = _key(line)
    named = [a for a in dict.fromkeys(admissible) if re.search(rf"(?<!\w){re.escape(_key(a))}(?!\w)", key)]
    if not named:
        return None
    longest = max(named, key=len)
    return longest if all(_key(a) in _key(longest) for a in named) else None


def thought_and_action(answer: str, admissible: Sequence[str] | None = None) -> tuple[str, str] | None:
    """The first thought and action of a ReAct turn; what the model dreamt up after it (observations) is cut off.

    An answer without labels is read too: a bracketed action (``Search[…]``) on a line of its own, or, with
    ``admissible``, a line that names one.
    """
    text = plain(answer)
    dreamt = _OBSERVATION.search(text)
    if dreamt:
        text = text[: dreamt.start()]
    label = _ACTION.search(text)
    if label:
        said = label[1].strip() or _first_line(text[label.end() :])
        before = text[: label.start()]
        chosen = match(said, admissible) if admissible else _unquoted(said)
        if not chosen:
            return None
        return _thought(before), chosen
    bracketed = _BRACKETED.search(text)
    if bracketed and not admissible:
        return _thought(text[: bracketed.start()]), bracketed[0].strip()
    if admissible:
        lines = [line for line in text.splitlines() if line.strip()]
        for i in range(len(lines) - 1, -1, -1):
            found = match(lines[i], admissible)
            if found is not None:
                return _thought("\n".join(lines[:i])), found
    return None


def goal(answer: str) -> str | None:
    """The goal in an answer: after a label (``Task:``, ``Next goal:``), or the last line."""
    text = plain(answer)
    label = _GOAL.search(text)
    line = label[1] if label else (text.splitlines() or [""])[-1]
    return line.strip().strip("\"'`*").rstrip(".").strip() or None


def program(answer: str) -> str | None:
    """The Python program in an answer: the fenced blocks that compile, joined, or the longest run of lines that does.

    None where nothing in it compiles to at least one statement that is more than a bare name or literal. Indented lines
    that would compile as the body of a function are a program too: the rest of one that the prompt began.
    """
    text = _THINK.sub("", answer).strip("\n")
    blocks = [b for b in fenced(text, ("python", "py", "python3")) if _is_program(b)]
    if blocks:
        joined = "\n\n".join(b.strip("\n") for b in blocks)
        return joined if _is_program(joined) else blocks[-1].strip("\n")
    if "```" in text:
        text = re.sub(r"^[ \t]*```.*$", "", text, flags=re.MULTILINE).strip("\n")
    if _is_program(text):
        return text
    # Prose around code: from the first line that can begin a program, as many lines as compile.
    lines = text.splitlines()
    starts = [
        i
        for i, line in enumerate(lines)
        if re.match(r"(def |class |import |from |for |while |if |\w+\s*=|\w+\()", line)
    ]
    for start in starts:
        for end in range(len(lines), start, -1):
            piece = "\n".join(lines[start:end])
            if _is_program(piece):
                return piece.rstrip()
    return None


def call(answer: str, tools: Sequence[str] | None = None) -> tuple[str, dict[str, Any]] | None:
    """The function call in an answer: its name and its named arguments, as plain data.

    Read are JSON objects (``{"name": …, "arguments": …}`` and the other keys that models use for the two, also as a
    list of calls or in ``<tool_call>`` tags, also with Python's quotes), and Python calls (``name(key=value)``). With
    ``tools`` the name must be one of them but for case. Positional arguments are named ``"0"``, ``"1"``, ….
    """
    text = plain(answer)
    for candidate in _objects(text):
        found = _call_object(candidate)
        if found is not None:
            named = _tool(found[0], tools)
            if named is not None:
                return named, found[1]
    for node in _python_calls(text):
        name = _tool(ast.unparse(node.func), tools)
        if name is None or (tools is None and isinstance(node.func, ast.Name) and node.func.id == "print"):
            continue
        try:
            arguments = {str(i): ast.literal_eval(value) for i, value in enumerate(node.args)}
            arguments |= {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg is not None}
        except ValueError:
            continue
        return name, arguments
    return None


def json_object(answer: str) -> dict[str, Any] | None:
    """The first object in an answer that is JSON, or Python's notation for it."""
    return next((o for o in _objects(plain(answer)) if isinstance(o, dict)), None)


def yes(answer: str) -> bool | None:
    """Whether the answer says yes or no: the first such word that it says."""
    said = re.search(r"\b(yes|no|true|false|correct|incorrect|success(?:ful)?|failure|failed)\b", plain(answer), re.I)
    if not said:
        return None
    return said[1].lower() in ("yes", "true", "correct", "success", "successful")


def number(answer: str, low: float = 0.0, high: float = 1.0) -> float | None:
    """The score in an answer, scaled to [0, 1]: ``0.7``, ``70%``, ``7/10``, or a number between ``low`` and ``high``.

    A number after the word score (or rating, grade) goes before the first number.
    """
    text = plain(answer)
    said = re.search(r"(?:score|rating|grade)\W{0,12}(?:is\W+)?(\d+(?:\.\d+)?)\s*(%|/\s*\d+(?:\.\d+)?)?", text, re.I)
    said = said or re.search(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(%|/\s*\d+(?:\.\d+)?)?", text)
    if not said:
        return None
    value, unit = float(said[1]), said[2]
    if unit == "%":
        value /= 100
    elif unit:
        whole = float(unit.lstrip("/ "))
        if whole == 0:
            return None
        value /= whole
    else:
        value = (value - low) / (high - low)
    return value if 0 <= value <= 1 else None


def items(answer: str) -> list[str]:
    """The items of a list: lines that begin with a number or a dash; where none does, all lines."""
    lines = [line.strip() for line in plain(answer).splitlines() if line.strip()]
    marked = [
        re.sub(r"^(?:[-*•]|\(?\d+[.):])\s*", "", line) for line in lines if re.match(r"(?:[-*•]|\(?\d+[.):])\s*", line)
    ]
    return [item.strip() for item in (marked or lines) if item.strip()]


def _labelled_action(text: str) -> str | None:
    label = _ACTION.search(text)
    return (label[1].strip() or _first_line(text[label.end() :])) if label else None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _thought(text: str) -> str:
    label = _THOUGHT.search(text)
    return " ".join((text[label.end() :] if label else text).split())


def _unquoted(text: str) -> str:
    text = text.strip()
    for mark in ("**", "`", '"', "'"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = text[len(mark) : -len(mark)].strip()
    return text


def _bare(line: str) -> str:
    text = _unquoted(_LEAD.sub("", line.strip(), count=1))
    return _unquoted(re.sub(r"(?<=[\w\]'\"`*])[.!]+$", "", text))


def _key(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .!`'\"*")


def _is_program(text: str) -> bool:
    begun = re.match(r"(?:[ \t]*\n)*[ \t]", text)
    try:
        body = parse_module(f"def begun():\n{text}" if begun else text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return any(not (isinstance(s, ast.Expr) and isinstance(s.value, (ast.Name, ast.Constant))) for s in body)


def _objects(text: str) -> list[Any]:
    """Every JSON or Python literal object or list in the text, in order; nested ones only where the outer is none."""
    found = []
    position = 0
    while position < len(text):
        start = re.compile(r"[{\[]").search(text, position)
        if start is None:
            break
        try:
            value, length = json.JSONDecoder().raw_decode(text[start.start() :])
            position = start.start() + length
        except (ValueError, RecursionError):
            end = _closing(text, start.start())
            try:
                value = ast.literal_eval(_python_words(text[start.start() : end]))
                position = end
            except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                position = start.start() + 1
                continue
        found += value if isinstance(value, list) else [value]
    return found


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "{[") - (text[i] in "}]")
        if depth == 0:
            return i + 1
    return len(text)


def _python_words(text: str) -> str:
    for theirs, ours in (("true", "True"), ("false", "False"), ("null", "None")):
        text = re.sub(rf"(?<=[:\[,\s]){theirs}(?=[\s,}}\]])", ours, text)
    return text


def _call_object(value: Any) -> tuple[str, dict[str, Any]] | None:
    if not isinstance(value, Mapping):
        return None
    inner = value.get("function")
    if isinstance(inner, Mapping):
        return _call_object(inner)
    name = next(
        (value[k] for k in ("name", "function", "tool", "tool_name", "action", "function_name") if k in value), None
    )
    if not isinstance(name, str) or not name:
        return None
    keys = ("arguments", "args", "parameters", "params", "input", "action_input", "kwargs")
    given = next((value[k] for k in keys if k in value), None)
    if isinstance(given, str):
        given = json_object(given) if given.strip() else {}
    if given is None:
        given = {k: v for k, v in value.items() if v is not name and k not in ("type", "id")}
    return (name, {str(k): v for k, v in given.items()}) if isinstance(given, Mapping) else None


def _python_calls(text: str) -> list[ast.Call]:
    found = []
    for begin in re.finditer(r"[A-Za-z_][\w.]*\(", text):
        depth = 0
        for end in range(begin.end() - 1, min(len(text), begin.end() + 4000)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                try:
                    tree = parse_expression(text[begin.start() : end + 1])
                except (SyntaxError, ValueError, MemoryError, RecursionError):
                    continue
                if isinstance(tree, ast.Call):
                    found.append(tree)
                break
    return found


def _tool(name: str, tools: Sequence[str] | None) -> str | None:
    if tools is None:
        return name
    return next((tool for tool in tools if tool.casefold() == name.strip().casefold()), None)
