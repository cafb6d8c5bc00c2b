"""Reads the published logs of Reflexion (Shinn et al. 2023): question transcripts, programs with verdicts, and flags.

What a file is, is told by what is in it and not by its name. A file that is none of these has a reason why.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentkit.envs.code_tasks import CodeTask, human_eval_task, mbpp_task
from agentkit.errors import AgentkitError


class UnreadableLog(AgentkitError, ValueError):
    """A file that looks like a published log and is not one, or a damaged one."""


@dataclass(frozen=True)
class Turn:
    """One logged turn."""

    thought: str
    action: str
    observation: str


@dataclass(frozen=True)
class Attempt:
    """One logged attempt at a question. ``label`` is the heading it stands under: correct, incorrect or halted."""

    question: str
    key: str
    label: str
    turns: tuple[Turn, ...]
    reflections: tuple[str, ...] = ()
    context: str = ""

    @property
    def name(self) -> str:
        """The question's name among the tasks."""
        return self.question


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


@dataclass(frozen=True)
class Written:
    """One logged program and what its log says of it. ``task`` is None for a language other than Python."""

    name: str
    task: CodeTask | None
    solution: str
    solved: bool
    language: str = "py"


@dataclass(frozen=True)
class ProgramLog:
    """A log of programs."""

    path: Path
    rows: tuple[Written, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class FlagTrial:
    """One trial's flags: environment -> solved so far. ``summary`` is the count that a log beside it gives."""

    number: int
    path: Path
    solved: dict[str, bool]


@dataclass(frozen=True)
class FlagLog:
    """The flags of all trials of a run."""

    name: str
    trials: tuple[FlagTrial, ...]
    problems: tuple[str, ...] = ()

    @property
    def logged(self) -> list[int]:
        """How many environments are solved after each trial."""
        return [sum(trial.solved.values()) for trial in self.trials]


@dataclass(frozen=True)
class TextTrial:
    """The text log of one trial or several: the status of each ``trial/environment``, and the count of each trial."""

    path: Path
    status: dict[str, bool]
    summary: dict[str, int]


@dataclass(frozen=True)
class Unknown:
    """A file that is none of the formats, and why."""

    path: Path
    reason: str


Log = QuestionLog | ProgramLog | FlagLog | TextTrial | Unknown

_TRIAL = re.compile(r"^[ \t]*BEGIN TRIAL\s+(\d+)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_SECTION = re.compile(r"^-{3,}\s*BEGIN\s+(\w+)\s+AGENTS\s*-{3,}[ \t]*$", re.MULTILINE | re.IGNORECASE)
_KEY = re.compile(r"^Correct answer:[ \t]*(.*)$", re.MULTILINE)
_LABEL = re.compile(r"^(Thought|Action|Observation)(?:[ \t]+(\d+))?:[ \t]?(.*)$")
_AGAIN = re.compile(
    r"You have attempted to (?:answer|solve) (?:the )?following (?:question|task) before and failed\."
    r"|The following reflection\(s\) give a plan"
)
_LAST = re.compile(
    r"(?:You have attempted[^\n]*?Below is the last trial[^\n]*\n)(?:.*?)\(END PREVIOUS TRIAL\)\n?", re.DOTALL
)


def read(folder: Path) -> list[Log]:
    """Every log below ``folder``, in the order of the paths; the flags of one run are one log."""
    logs: list[Log] = []
    flags: dict[tuple[Path, str], list[FlagTrial]] = {}
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    for path in paths:
        try:
            found = _read_file(path)
        except UnreadableLog as error:
            found = Unknown(path, str(error))
        if isinstance(found, FlagTrial):
            flags.setdefault((path.parent, re.sub(r"\d+(?=\.[^.]+$)", "", path.name)), []).append(found)
        else:
            logs.append(found)
    for (parent, stem), trials in sorted(flags.items(), key=lambda item: str(item[0])):
        name = str((parent / stem.rpartition(".")[0].rstrip("_-")).relative_to(folder if folder.is_dir() else parent))
        logs.append(flag_log(name, sorted(trials, key=lambda t: t.number)))
    return logs


def _read_file(path: Path) -> QuestionLog | ProgramLog | FlagTrial | TextTrial | Unknown:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return Unknown(path, "it is not text")
    if not text.strip():
        return Unknown(path, "it is empty")
    if _TRIAL.search(text) and _SECTION.search(text):
        return question_log(path, text)
    if re.search(r"^Environment #\d+", text, re.MULTILINE):
        return text_trial(path, text)
    if text.lstrip()[0] in "[{":
        return _read_json(path, text)
    return Unknown(path, "it holds neither trials of questions, nor environments, nor JSON")


def _read_json(path: Path, text: str) -> ProgramLog | FlagTrial | Unknown:
    rows: list[Any] = []
    problems: list[str] = []
    try:
        whole = json.loads(text)
        rows = whole if isinstance(whole, list) else [whole]
    except ValueError:
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                problems.append(f"line {number} is no JSON: {error}")
    if not rows and problems:
        return Unknown(path, problems[0])
    mappings = [row for row in rows if isinstance(row, dict)]
    if mappings and all("is_success" in row for row in mappings):
        return flag_trial(path, mappings)
    if any("solution" in row and "is_solved" in row for row in mappings):
        return program_log(path, mappings, problems)
    keys = sorted(mappings[0]) if mappings else type(rows[0]).__name__ if rows else "nothing"
    return Unknown(path, f"its JSON is of no known kind: it holds {keys}")


def question_log(path: Path, text: str) -> QuestionLog:
    """A log of questions from its text."""
    starts = list(_TRIAL.finditer(text))
    problems: list[str] = []
    trials = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        body = text[start.end() : end.start() if end else len(text)]
        first = _SECTION.search(body)
        head = body[: first.start()] if first else body
        line = re.search(r"^.*summary.*$", head, re.MULTILINE | re.IGNORECASE)
        summary = {k.lower(): int(n) for k, n in re.findall(r"(\w+):\s*(\d+)", line[0] if line else head)}
        attempts: list[Attempt] = []
        sections = list(_SECTION.finditer(body))
        for section, after in zip(sections, [*sections[1:], None], strict=True):
            part = body[section.end() : after.start() if after else len(body)]
            position = 0
            for key in _KEY.finditer(part):
                block = part[position : key.start()]
                position = key.end()
                attempt = _attempt(block, key[1].strip(), section[1].lower())
                if attempt is None:
                    problems.append(f"trial {start[1]}: an attempt with the key {key[1].strip()!r} has no question")
                else:
                    attempts.append(attempt)
            rest = re.sub(r"^#+\s*$", "", part[position:], flags=re.MULTILINE).strip()
            if rest:
                problems.append(f"trial {start[1]}: text without a key after the last attempt: {rest[:60]!r}")
        trials.append(QuestionTrial(int(start[1]), summary, _named(attempts, problems)))
    often = Counter(problems)
    said = [p if n == 1 else f"{p} ({n} times)" for p, n in often.items()]
    return QuestionLog(path, tuple(trials), tuple(said))


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


def _attempt(block: str, key: str, label: str) -> Attempt | None:
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
    return Attempt(question, key, label, _turns(lines[begin:]), tuple(reflections), context)


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


def program_log(path: Path, rows: list[dict[str, Any]], problems: list[str]) -> ProgramLog:
    """A log of programs from its rows; rows without what is needed are problems."""
    found: dict[str, Written] = {}
    for number, row in enumerate(rows, start=1):
        name = str(row.get("task_id") or row.get("name") or f"row {number}")
        missing = [k for k in ("prompt", "entry_point", "solution", "is_solved") if k not in row]
        if missing:
            problems.append(f"{name} has no {', '.join(missing)}")
            continue
        if name in found:
            problems.append(f"{name} occurs twice; row {number} is the one that counts")
        language = str(row.get("language") or ("rs" if re.search(r"\bfn\s+\w+\s*[(<]", str(row["prompt"])) else "py"))
        task = None
        if language in ("py", "python"):
            try:
                task = mbpp_task(row) if "test_list" in row else human_eval_task(row)
            except (KeyError, TypeError, ValueError, SyntaxError) as error:
                problems.append(f"{name} is no task: {type(error).__name__}: {error}")
                continue
            task = replace(task, name=name, visible=())
        found[name] = Written(name, task, str(row["solution"] or ""), bool(row["is_solved"]), language)
    return ProgramLog(path, tuple(found.values()), tuple(problems))


def flag_trial(path: Path, rows: list[dict[str, Any]]) -> FlagTrial:
    """One trial's flags; its number is the last one in the file's name."""
    numbers = re.findall(r"\d+", path.stem)
    solved = {str(row.get("name", f"env_{i}")): row["is_success"] is True for i, row in enumerate(rows)}
    return FlagTrial(int(numbers[-1]) if numbers else 0, path, solved)


def flag_log(name: str, trials: list[FlagTrial]) -> FlagLog:
    """The trials as one run, with what is odd about them: environments that come or go, and flags that fall."""
    problems = []
    numbers = [t.number for t in trials]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        problems.append(f"the trials are {numbers}: some are missing")
    for before, after in pairwise(trials):
        if before.solved.keys() != after.solved.keys():
            problems.append(f"trials {before.number} and {after.number} have different environments")
        fell = [env for env, was in before.solved.items() if was and not after.solved.get(env, True)]
        if fell:
            problems.append(f"solved in trial {before.number} and not in {after.number}: {', '.join(fell)}")
    return FlagLog(name, tuple(trials), tuple(problems))


def text_trial(path: Path, text: str) -> TextTrial:
    """The text log of a trial (``trial_3.log``): statuses of its environments and the counts at its end."""
    status: dict[str, bool] = {}
    numbers = re.findall(r"\d+", path.stem)
    trial = int(numbers[-1]) if numbers else 0
    for match in re.finditer(r"^Environment #(\d+) Trial #(\d+):\s*(SUCCESS|FAIL)\w*", text, re.MULTILINE):
        status[f"{match[2]}/env_{match[1]}"] = match[3] == "SUCCESS"
    for block in re.split(r"^#{5}[ \t]*$", text, flags=re.MULTILINE):
        head = re.search(r"^Environment #(\d+):[ \t]*(Success)?", block, re.MULTILINE)
        said = re.search(r"^STATUS:\s*(OK|FAIL)", block, re.MULTILINE)
        if head and (head[2] or said):
            status[f"{trial}/env_{head[1]}"] = bool(head[2]) or (said is not None and said[1] == "OK")
    # A world's log holds several trials, each count after the statuses that it counts.
    summary: dict[str, int] = {}
    for match in re.finditer(r"\bTrial #(\d+)\b|^SUCCESS:\s*(\d+)", text, re.MULTILINE):
        if match[1] is not None:
            trial = int(match[1])
        else:
            summary[str(trial)] = int(match[2])
    return TextTrial(path, status, summary)
