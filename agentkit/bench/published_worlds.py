"""Reads the published logs of Reflexion in worlds (ALFWorld, WebShop): flags, statuses, and transcripts of trials."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentkit.bench.published_questions import Attempt, QuestionLog, QuestionTrial, Turn


@dataclass(frozen=True)
class FlagTrial:
    """One trial's flags: environment -> solved so far."""

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
    """The text log of one trial or several: the status of each ``trial/environment``, and the count of each trial.

    ``attempts`` are its transcripts, with those of environments that it holds no transcript of: a log of one trial has
    them (``trial_3.log``), one of the whole run (``world.log``) has none.
    """

    path: Path
    number: int
    status: dict[str, bool]
    summary: dict[str, int]
    attempts: tuple[Attempt, ...] = ()


_BLOCK = re.compile(r"^#{5}[ \t]*$", re.MULTILINE)
_HEAD = re.compile(r"^Environment #(\d+):[ \t]*(Success)?[ \t]*$", re.MULTILINE)
_STATUS = re.compile(r"^STATUS:\s*(OK|FAIL)\b", re.MULTILINE)
_TASK = "Here is the task:"
_MEMORY = "Your memory for the task below:"
_SHOP = re.compile(r"^(?:reset$|(?:search|click|think)\[)")


def flag_trial(path: Path, rows: list[dict[str, Any]]) -> FlagTrial:
    """One trial's flags; its number is the last one in the file's name."""
    solved = {str(row.get("name", f"env_{i}")): row["is_success"] is True for i, row in enumerate(rows)}
    return FlagTrial(_number(path), path, solved)


def flag_log(name: str, trials: list[FlagTrial]) -> FlagLog:
    """The trials as one run, with what is odd about them: environments that come or go, and flags that fall."""
    problems = list(_gaps([t.number for t in trials]))
    for before, after in pairwise(trials):
        if before.solved.keys() != after.solved.keys():
            problems.append(f"trials {before.number} and {after.number} have different environments")
        fell = [env for env, was in before.solved.items() if was and not after.solved.get(env, True)]
        if fell:
            problems.append(f"solved in trial {before.number} and not in {after.number}: {', '.join(fell)}")
    return FlagLog(name, tuple(trials), tuple(problems))


def text_trial(path: Path, text: str) -> TextTrial:
    """A text log: statuses of environments, the counts at the end, and the transcripts."""
    status: dict[str, bool] = {}
    attempts: list[Attempt] = []
    trial = _number(path)
    for match in re.finditer(r"^Environment #(\d+) Trial #(\d+):\s*(SUCCESS|FAIL)\w*", text, re.MULTILINE):
        status[f"{match[2]}/env_{match[1]}"] = match[3] == "SUCCESS"
    ends = [(match.start(), match.end()) for match in _BLOCK.finditer(text)]
    line, counted = 1, 0
    for (_, begin), (end, _) in pairwise([(0, 0), *ends, (len(text), len(text))]):
        block = text[begin:end]
        head = _HEAD.search(block)
        statuses = _STATUS.findall(block)
        if head is None or not (head[2] or statuses):
            continue
        solved = bool(head[2]) or statuses[-1] == "OK"  # what is above the last status may hold such a line too
        status[f"{trial}/env_{head[1]}"] = solved
        line, counted = line + text.count("\n", counted, begin + head.start()), begin + head.start()
        attempt = _attempt(f"env_{head[1]}", block[head.end() :], solved)
        attempts.append(replace(attempt, place=f"{path.name}, line {line}"))
    # A world's log holds several trials, each count after the statuses that it counts.
    summary: dict[str, int] = {}
    number = trial
    for match in re.finditer(r"\bTrial #(\d+)\b|^SUCCESS:\s*(\d+)", text, re.MULTILINE):
        if match[1] is not None:
            number = int(match[1])
        else:
            summary[str(number)] = int(match[2])
    return TextTrial(path, trial, status, summary, tuple(attempts))


def world_log(folder: Path, stem: str, trials: Sequence[TextTrial]) -> QuestionLog:
    """The transcripts of a run, trial by trial, as attempts at its environments.

    In a shop the last observation says the score, so that success can be judged; elsewhere the status is all there is.
    """
    problems = list(_gaps([t.number for t in trials]))
    shop = any("Your score (min 0.0" in t.observation for trial in trials for a in trial.attempts for t in a.turns)
    made = []
    for trial in trials:
        solved = sum(a.label == "correct" for a in trial.attempts)
        counted = trial.summary.get(str(trial.number), solved)
        if str(trial.number) not in trial.summary:
            problems.append(f"trial {trial.number} has no count at its end: its statuses are counted")
        names = [a.question for a in trial.attempts]
        problems += [f"trial {trial.number}: {n} occurs twice" for n in dict.fromkeys(names) if names.count(n) > 1]
        summary = {"correct": counted, "incorrect": len(set(names)) - counted}
        attempts = tuple(replace(a, world="shop" if shop else "world") for a in trial.attempts)
        made.append(QuestionTrial(trial.number, summary, attempts))
    if not shop:
        problems.append("nothing in these transcripts shows success: each attempt's logged status is taken for it")
    return QuestionLog(folder / stem, tuple(made), tuple(problems))


def _attempt(name: str, block: str, solved: bool) -> Attempt:
    """The last task in a block (those before it are examples) and what was done in it."""
    told, _, played = block.rpartition(f"{_TASK}\n")
    label = "correct" if solved else "incorrect"
    played = re.sub(r"\n*^STATUS:\s*(?:OK|FAIL)\s*\Z", "", played, flags=re.MULTILINE)
    opening, turns = _turns(played)
    if turns and turns[0].action == "reset":
        turns = turns[1:]
    return Attempt(name, "", label, turns, _memory(told), opening.strip(), world="world")


def _memory(told: str) -> tuple[str, ...]:
    """The reflections that a prompt shows: each below a line that counts up from trial 0."""
    shown: list[str] = []
    for line in told.rpartition(f"{_MEMORY}\n")[2].splitlines() if f"{_MEMORY}\n" in told else ():
        if line.strip() == f"Trial {len(shown)}:":
            shown.append("")
        elif shown:
            shown[-1] += f"{line}\n"
    return tuple(text.strip() for text in shown)


def _turns(played: str) -> tuple[str, tuple[Turn, ...]]:
    """What was seen first, and the turns: a line that begins with ``> `` is an action, and what follows was observed.

    A shop's pages may hold such lines too: there an action is a search, a click or a thought, or was called invalid.
    """
    lines = played.splitlines()
    shop = any(line.startswith("> ") and _SHOP.match(line[2:]) for line in lines)
    opening: list[str] = []
    turns: list[tuple[str, list[str]]] = []
    for line, below in pairwise([*lines, ""]):
        begins = line.startswith("> ") or line == ">"
        if begins and (not shop or _SHOP.match(line[2:]) or below.startswith("Invalid action!")):
            turns.append((line[2:].strip(), []))
        elif turns:
            turns[-1][1].append(line)
        else:
            opening.append(line)
    return "\n".join(opening), tuple(Turn("", action, "\n".join(seen).strip()) for action, seen in turns)


def _number(path: Path) -> int:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else 0


def _gaps(numbers: Sequence[int]) -> list[str]:
    expected = list(range(numbers[0], numbers[0] + len(numbers)))
    return [] if list(numbers) == expected else [f"the trials are {list(numbers)}: some are missing"]
