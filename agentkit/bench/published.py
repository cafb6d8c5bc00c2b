"""Reads the published logs of Reflexion (Shinn et al. 2023): transcripts of questions and worlds, programs with their
verdicts, flags and counts.

What a file is, is told by what is in it and not by its name. A file that is none of these has a reason why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.bench.published_programs import ProgramLog, program_log
from agentkit.bench.published_questions import SECTION, QuestionLog, question_log
from agentkit.bench.published_worlds import (
    FlagLog,
    FlagTrial,
    TextTrial,
    flag_log,
    flag_trial,
    text_trial,
    world_log,
)


@dataclass(frozen=True)
class Unknown:
    """A file that is none of the formats, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class CountLog:
    """Counts by trial alone (``…_results.json``), as a run wrote them again and again: the last of each trial holds."""

    path: Path
    counts: dict[int, dict[str, int]]
    problems: tuple[str, ...] = ()

    @property
    def logged(self) -> list[int]:
        """Correct answers by trial."""
        return [count["correct"] for count in self.counts.values()]


Log = QuestionLog | ProgramLog | FlagLog | TextTrial | CountLog | Unknown


def read(folder: Path) -> list[Log]:
    """Every log below ``folder``, in the order of the paths; the flags of one run are one log, and so are the
    transcripts of its trials in a world."""
    logs: list[Log] = []
    flags: dict[tuple[Path, str], list[FlagTrial]] = {}
    played: dict[tuple[Path, str], list[TextTrial]] = {}
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    for path in paths:
        found = _read_file(path) if path.is_file() else Unknown(path, _no_file(path))
        run = (path.parent, re.sub(r"[ _-]*\d*$", "", path.stem))
        if isinstance(found, FlagTrial):
            flags.setdefault(run, []).append(found)
        elif isinstance(found, TextTrial) and found.attempts:
            played.setdefault(run, []).append(found)
        else:
            logs.append(found)
    for (parent, stem), trials in sorted(flags.items()):
        name = str((parent / stem).relative_to(folder if folder.is_dir() else parent))
        logs.append(flag_log(name, sorted(trials, key=lambda t: t.number)))
    for (parent, stem), texts in sorted(played.items()):
        logs.append(world_log(parent, stem, sorted(texts, key=lambda t: t.number)))
    return logs


def _no_file(path: Path) -> str:
    if not path.is_symlink():
        return "it is no plain file"
    what = "a folder: give that one by itself" if path.is_dir() else "nothing that is there"
    return f"it is a symbolic link to {path.readlink()}, which is {what}"


def _read_file(path: Path) -> QuestionLog | ProgramLog | FlagTrial | TextTrial | CountLog | Unknown:
    try:
        text = path.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError as error:
        return Unknown(path, f"it cannot be opened: {error}")
    if "\0" in text or text.count("\ufffd") > len(text) / 100:  # a stray byte does not make a log unreadable
        return Unknown(path, "it is not text (a pickle is never loaded: it could run anything)")
    if not text.strip():
        return Unknown(path, "it is empty")
    if SECTION.search(text):
        return question_log(path, text)
    if re.search(r"^Environment #\d+", text, re.MULTILINE):
        return text_trial(path, text)
    if text.lstrip()[0] in "[{":
        return _read_json(path, text)
    if re.search(r"^Question:", text, re.MULTILINE):
        return Unknown(path, "it holds questions, and neither trials nor headings that say how each attempt counts")
    return Unknown(path, "it holds neither trials of questions, nor environments, nor JSON")


def _read_json(path: Path, text: str) -> ProgramLog | FlagTrial | CountLog | Unknown:
    rows: list[Any] = []
    problems: list[str] = []
    try:
        whole = json.loads(text)
        rows = whole if isinstance(whole, list) else [whole]
    except (ValueError, RecursionError):
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                problems.append(f"line {number} is no JSON: {error}")
    if not rows and problems:
        return Unknown(path, problems[0])
    mappings = [row for row in rows if isinstance(row, dict)]
    if mappings and all("is_success" in row for row in mappings):
        return flag_trial(path, mappings)
    if any("solution" in row and "is_solved" in row for row in mappings):
        return program_log(path, mappings, problems)
    if mappings and all(isinstance(row.get(k), int) for row in mappings for k in ("trial", "correct")):
        return _count_log(path, mappings)
    keys = sorted(mappings[0]) if mappings else type(rows[0]).__name__ if rows else "nothing"
    return Unknown(path, f"its JSON is of no known kind: it holds {keys}")


def _count_log(path: Path, rows: list[dict[str, Any]]) -> CountLog:
    counts: dict[int, dict[str, int]] = {}
    problems = []
    for row in rows:
        count = {k: int(row[k]) for k in ("correct", "incorrect", "halted") if isinstance(row.get(k), int)}
        before = counts.get(row["trial"], count)
        if before != count:
            problems.append(f"trial {row['trial']} was first counted as {before}; the last count holds: {count}")
        counts[row["trial"]] = count
    return CountLog(path, dict(sorted(counts.items())), tuple(dict.fromkeys(problems)))
