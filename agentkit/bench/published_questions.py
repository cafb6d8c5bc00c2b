"""Reads the published transcripts of Reflexion on questions (HotpotQA), in trials: ReAct and chain of thought."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from agentkit.envs.questions import normalized

_ANSWER = re.compile(r"^Finish\[(.*)\]$", re.IGNORECASE | re.DOTALL)
_SCORE = re.compile(r"Your score \(min 0\.0, max 1\.0\):\s*([0-9.]+)")


@dataclass(frozen=True)
class Turn:
    """One logged turn."""

    thought: str
    action: str
    observation: str


@dataclass(frozen=True)
class Attempt:
    """One logged attempt, at a question or in a world. ``label`` is the heading it stands under (correct, incorrect or
    halted), ``key`` the answer to a question, ``reflections`` what its prompt showed, ``context`` what was seen first.

    ``world`` says how success can be judged: by the ``key`` of a question; of an ``"unkeyed"`` one by what the log
    answered to it; in a ``"shop"`` by the score that buying gave; in another ``"world"`` by the label alone.
    ``place`` is where it is logged, for people.
    """

    question: str
    key: str
    label: str
    turns: tuple[Turn, ...]
    reflections: tuple[str, ...] = ()
    context: str = ""
    world: Literal["questions", "unkeyed", "shop", "world"] = "questions"
    place: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The question's name among the tasks."""
        return self.question

    def judged(self, action: str, observation: str, *, last: bool) -> bool | None:
        """Whether ``action``, answered by ``observation``, ended the attempt with success (True) or failure (False);
        None where it went on, or was cut off."""
        if self.world == "shop":
            score = _SCORE.search(observation)
            return None if score is None or action != "click[Buy Now]" else float(score[1]) == 1.0
        if self.world == "world":
            return True if last and self.label == "correct" else None
        answer = _ANSWER.match(action.strip())
        if answer is None:
            return None
        if self.world == "unkeyed":
            return observation.strip().rstrip(".").endswith(" CORRECT")
        return normalized(answer[1]) == normalized(self.key)

    @property
    def succeeded(self) -> bool:
        """Whether its last turn is judged a success."""
        return bool(self.turns) and self.judged(self.turns[-1].action, self.turns[-1].observation, last=True) is True


@dataclass(frozen=True)
class QuestionTrial:
    """One trial: the counts that the log gives, and the attempts whose transcripts it holds."""

    number: int
    summary: dict[str, int]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class QuestionLog:
    """A log of question answering in trials. ``problems`` are the parts of it that could not be read."""

    path: Path
    trials: tuple[QuestionTrial, ...]
    problems: tuple[str, ...] = ()

    @property
    def questions(self) -> list[str]:
        """All questions, in the order in which they first occur."""
        return list(dict.fromkeys(a.name for trial in self.trials for a in trial.attempts))

    @property
    def logged(self) -> list[int]:
        """Correct answers by trial, as the log's summaries count them."""
        return [
            trial.summary.get("correct", sum(a.label == "correct" for a in trial.attempts)) for trial in self.trials
        ]


_TRIAL = re.compile(r"^[ \t]*BEGIN TRIAL\s+(\d+)[ \t]*$", re.MULTILINE | re.IGNORECASE)
SECTION = re.compile(r"^-{3,}\s*BEGIN\s+(\w+)\s+AGENTS\s*-{3,}[ \t]*$", re.MULTILINE | re.IGNORECASE)
_QUESTION = re.compile(r"^Question:", re.MULTILINE)
_KEY = re.compile(r"^Correct answer:[ \t]*(.*)$", re.MULTILINE)
_LABEL = re.compile(r"^(Thought|Action|Observation)(?:[ \t]+(\d+))?:[ \t]?(.*)$")
_AGAIN = re.compile(
    r"You have attempted to (?:answer|solve) (?:the )?following (?:question|task) before and failed\."
    r"|The following reflection\(s\) give a plan"
)
_LAST = re.compile(
    r"(?:You have attempted[^\n]*?Below is the last trial[^\n]*\n)(?:.*?)\(END PREVIOUS TRIAL\)\n?", re.DOTALL
)


def question_log(path: Path, text: str) -> QuestionLog:
    """A log of questions from its text: trials, or headings alone, which are then one trial without counts."""
    starts = list(_TRIAL.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    bodies = [(int(start[1]), start.end(), end) for start, end in zip(starts, ends, strict=False)]
    problems = [] if bodies else ["it names no trial: all of it is taken for trial 1, without counts"]
    trials = [_trial(number, text[:end], begin, problems) for number, begin, end in bodies or [(1, 0, len(text))]]
    often = Counter(problems)
    said = [p if n == 1 else f"{p} ({n} times)" for p, n in often.items()]
    return QuestionLog(path, tuple(trials), tuple(said))


def _trial(number: int, text: str, begin: int, problems: list[str]) -> QuestionTrial:
    """The trial that a log holds from ``begin`` to its end."""
    sections = list(SECTION.finditer(text, begin))
    head = text[begin : sections[0].start()] if sections else text[begin:]
    said = re.search(r"^.*summary.*$", head, re.MULTILINE | re.IGNORECASE)
    summary = {k.lower(): int(n) for k, n in re.findall(r"(\w+):\s*(\d+)", said[0] if said else head)}
    attempts: list[Attempt] = []
    line, counted = 1, 0
    ends = [section.start() for section in sections[1:]] + [len(text)]
    for section, end in zip(sections, ends, strict=False):
        for at, block, key in _blocks(text[:end], section.end(), number, problems):
            at += len(block) - len(block.lstrip())
            line, counted = line + text.count("\n", counted, at), at
            attempt = _attempt(block, key, section[1].lower())
            if attempt is None:
                problems.append(f"trial {number}, line {line}: an attempt with the key {key!r} has no question")
            else:
                attempts.append(replace(attempt, place=f"line {line}"))
    return QuestionTrial(number, summary, _named(attempts, problems))


def _blocks(text: str, position: int, number: int, problems: list[str]) -> Iterator[tuple[int, str, str | None]]:
    """The attempts from ``position`` on, which is below a heading: where each begins, its text, and its key. Without
    any keys, each begins with its question."""
    keys = list(_KEY.finditer(text, position))
    if not keys:
        begins = [m.start() for m in _QUESTION.finditer(text, position)]
        if begins:
            problems.append(f"trial {number}: attempts without keys count as the log's own answers to them say")
        for begin, end in pairwise([*begins, len(text)]):
            yield begin, text[begin:end], None
        return
    for key in keys:
        yield position, text[position : key.start()], key[1].strip()
        position = key.end()
    rest = re.sub(r"^#+\s*$", "", text[position:], flags=re.MULTILINE).strip()
    if rest:
        problems.append(f"trial {number}: text without a key after the last attempt: {rest[:60]!r}")


def _named(attempts: list[Attempt], problems: list[str]) -> tuple[Attempt, ...]:
    """Attempts whose question occurs twice in a trial are told apart by their place.

    An attempt that is listed under two headings (ended wrong with the last step that it had, it is both incorrect and
    halted) counts once, under the first.
    """
    seen: Counter[str] = Counter()
    named: list[Attempt] = []
    for attempt in attempts:
        twin = next(
            (a for a in named if (a.question, a.key, a.turns) == (attempt.question, attempt.key, attempt.turns)), None
        )
        if twin is not None and twin.label != attempt.label:
            problems.append(f"listed as {twin.label} and as {attempt.label}, counted once: {attempt.question!r}")
            continue
        seen[attempt.question] += 1
        count = seen[attempt.question]
        named.append(attempt if count == 1 else replace(attempt, question=f"{attempt.question} (#{count})"))
    return tuple(named)


def _attempt(block: str, key: str | None, label: str) -> Attempt | None:
    block = _LAST.sub("\n", block)
    lines = block.splitlines()
    begin = next((i for i, line in enumerate(lines) if _LABEL.match(line) and line.startswith("Thought")), len(lines))
    head = lines[:begin]
    asked = [i for i, line in enumerate(head) if line.startswith("Question:")]
    if not asked:
        return None
    question = head[asked[-1]].removeprefix("Question:")
    again = _AGAIN.search(question)
    question = " ".join((question[: again.start()] if again else question).split())
    if not question:
        return None
    context = ""
    about = [i for i, line in enumerate(head) if line.startswith(("Relevant Context:", "Context:"))]
    if about and about[-1] < asked[-1]:
        context = "\n".join(head[about[-1] : asked[-1]]).partition(":")[2].strip()
    reflections: list[str] = []
    said = [i for i, line in enumerate(head) if line.strip().endswith("Reflections:")]
    for line in head[said[-1] + 1 :] if said else []:
        if line.startswith(("Relevant Context:", "Context:", "Question:")):
            break
        if line.startswith("- "):
            reflections.append(line[2:].strip())
        elif reflections and line.strip():
            reflections[-1] += f"\n{line.strip()}"
    world: Literal["questions", "unkeyed"] = "unkeyed" if key is None else "questions"
    return Attempt(question, key or "", label, _turns(lines[begin:]), tuple(reflections), context, world)


def _turns(lines: list[str]) -> tuple[Turn, ...]:
    """The turns: a label opens a part only where it is the one that must come next, so that observations may hold
    anything."""
    turns: list[dict[str, str]] = []
    part = ""
    numbered = True
    following = {"": "Thought", "Thought": "Action", "Action": "Observation", "Observation": "Thought"}
    for line in lines:
        match = _LABEL.match(line)
        number = len(turns) + (1 if part in ("", "Observation") else 0)
        if not turns and match:
            numbered = match[2] is not None
        if match and match[1] == following[part] and match[2] == (str(number) if numbered else None):
            part = match[1]
            if part == "Thought":
                turns.append({"Thought": "", "Action": "", "Observation": ""})
            turns[-1][part] = match[3]
        elif turns and part:
            turns[-1][part] += f"\n{line}"
    return tuple(Turn(t["Thought"].strip(), t["Action"].strip(), t["Observation"].strip()) for t in turns)
