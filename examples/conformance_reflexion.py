"""Reproduces the published logs of Reflexion through agentkit's own loop.

    python examples/conformance_reflexion.py --logs FOLDER [--json] [--workers N]

Every file below FOLDER is read by what is in it:

- transcripts of question answering (HotpotQA): a replay model answers with the logged thoughts, actions and
  reflections, a question world answers with the logged observations and judges the answers itself, and a Reflexion
  agent (a ReAct agent where the log has no reflections) plays all questions in all trials with `agentkit.run`;
- transcripts of trials in worlds (WebShop, ALFWorld): the same, step by step; in a shop success is judged by the score
  that buying gave;
- programs (JSONL of HumanEval's or MBPP's shape): the logged programs are the model's answers, and the code world
  judges them, each in processes of its own; those in other languages, or without tests, are counted;
- flags (ALFWorld, WebShop), statuses and counts: the tasks solved after each trial, and whether they agree with each
  other and with the transcripts beside them;
- anything else is named, with the reason why it was not read.

The last lines say whether every reproduced figure is the logged one; differences are listed task by task.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agentkit.bench.published import CountLog, Log, read
from agentkit.bench.published_programs import ProgramLog
from agentkit.bench.published_questions import QuestionLog
from agentkit.bench.published_worlds import FlagLog, TextTrial
from agentkit.bench.replayed import replay_attempts, replay_programs


@dataclass
class Report:
    """What came of one log. ``reproduced`` is None where nothing could be run."""

    file: str
    kind: str
    tasks: int = 0
    logged: list[int] = field(default_factory=list)
    reproduced: list[int] | None = None
    disagreements: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether the figures are the same and no task differs."""
        return self.reproduced is not None and self.reproduced == self.logged and not self.disagreements


def main() -> int:
    """Read, replay, report. Returns 0 when every log that could be run was reproduced or explained, 2 for no log."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--logs", type=Path, required=True, help="a folder of published logs, or one file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--workers", type=int, default=2, help="episodes at once (the result does not depend on it)")
    arguments = parser.parse_args()
    if not arguments.logs.exists():
        parser.error(f"there is no {arguments.logs}")
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}; it must be at least 1")
    reports = conform(arguments.logs, workers=arguments.workers)
    if arguments.json:
        rows = [{**asdict(r), "agrees": r.agrees} for r in reports]
        print(
            json.dumps({"logs": rows, "agrees": all(r.agrees for r in reports if r.reproduced is not None)}, indent=1)
        )
    else:
        print("\n\n".join(show(report) for report in reports))
        ran = [r for r in reports if r.reproduced is not None]
        print(f"\n{sum(r.agrees for r in ran)} of {len(ran)} logs reproduced without a difference.")
        print(f"{len(reports) - len(ran)} files were not run." if len(reports) > len(ran) else "Every file was run.")
    return 0 if any(r.reproduced is not None for r in reports) else 2


def conform(logs: Path, *, workers: int = 2) -> list[Report]:
    """A report on every log below ``logs``."""
    found = read(logs)
    reports: dict[Path, Report] = {}
    flags = []
    for log in found:
        if isinstance(log, QuestionLog):
            reports[log.path] = _attempts(log, logs, workers)
        elif isinstance(log, ProgramLog):
            reports[log.path] = _programs(log, logs, workers)
        elif isinstance(log, FlagLog):
            flags.append(_flags(log, found))
        elif isinstance(log, TextTrial):
            reports[log.path] = _text(log, logs)
        elif not isinstance(log, CountLog):
            reports[log.path] = Report(_name(log.path, logs), "not read", notes=[log.reason])
    for log in found:  # after the transcripts that they count
        if isinstance(log, CountLog):
            reports[log.path] = _counts(log, logs, reports)
    return [*reports.values(), *flags]


def _attempts(log: QuestionLog, logs: Path, workers: int) -> Report:
    attempts = [a for trial in log.trials for a in trial.attempts]
    kind = "transcripts" if any(a.world in ("shop", "world") for a in attempts) else "questions"
    report = Report(_name(log.path, logs), kind, len(log.questions), log.logged)
    report.notes = list(log.problems)
    if not any(a.turns for a in attempts):
        report.notes.append("it holds no transcript: nothing can be played")
        return report
    played = replay_attempts(log, workers=workers)
    report.reproduced, report.disagreements = played.solved, played.disagreements
    report.notes = [*played.notes, *report.notes]
    return report


def _counts(log: CountLog, logs: Path, reports: dict[Path, Report]) -> Report:
    """Counts by trial, held against the transcripts beside them whose name they begin with."""
    report = Report(_name(log.path, logs), "counts", max(sum(c.values()) for c in log.counts.values()), log.logged)
    report.notes = list(log.problems)
    stem = log.path.stem.partition("_results")[0]
    for path, other in reports.items():
        if path.parent == log.path.parent and path.stem.startswith(stem) and other.kind == "questions":
            same = other.logged == log.logged
            report.notes.append(f"{other.file} {'says the same' if same else f'counts {other.logged}'}")
    return report


def _programs(log: ProgramLog, logs: Path, workers: int) -> Report:
    report = Report(_name(log.path, logs), "programs", len(log.rows), [sum(row.solved for row in log.rows)])
    report.notes = list(log.problems)
    for reason, count in Counter(row.unjudged for row in log.rows if row.task is None).items():
        solved = sum(row.solved for row in log.rows if row.unjudged == reason)
        report.notes.append(f"{count} programs are {reason}; {solved} of them are logged as solved")
    if any(row.task is not None for row in log.rows):
        solved, disagreements = replay_programs(log, workers=workers)
        report.reproduced, report.disagreements = [solved], disagreements
        report.logged = [sum(row.solved for row in log.rows if row.task is not None)]
    return report


def _flags(log: FlagLog, found: list[Log]) -> Report:
    """The curve from the flags: who is solved in a trial, or was in one before (solved tasks are not tried again)."""
    report = Report(log.name, "flags", len({env for trial in log.trials for env in trial.solved}), log.logged)
    ever: set[str] = set()
    report.reproduced = []
    for trial in log.trials:
        ever |= {env for env, solved in trial.solved.items() if solved}
        report.reproduced.append(len(ever))
        for path, status in _statuses(found, trial.path.parent, trial.number):
            report.disagreements += [
                f"{env}, trial {trial.number}: the flag says {trial.solved[env]}, {path.name} says {solved}"
                for env, solved in status.items()
                if env in trial.solved and trial.solved[env] != solved
            ]
    report.disagreements += log.problems
    return report


def _statuses(found: list[Log], folder: Path, number: int) -> Iterator[tuple[Path, dict[str, bool]]]:
    """What the text logs in a folder say of the environments in one trial."""
    for log in found:
        if isinstance(log, TextTrial) and log.path.parent == folder:
            said = {key.partition("/"): solved for key, solved in log.status.items()}
            yield log.path, {env: solved for (trial, _, env), solved in said.items() if trial == str(number)}
        elif isinstance(log, QuestionLog) and log.path.parent == folder:
            for trial in log.trials:
                if trial.number == number:
                    yield log.path, {a.question: a.label == "correct" for a in trial.attempts}


def _text(log: TextTrial, logs: Path) -> Report:
    """The counts at the end of a text log against the statuses above them."""
    report = Report(_name(log.path, logs), "statuses", len({key.partition("/")[2] for key in log.status}))
    trials = sorted({int(key.partition("/")[0]) for key in log.status})
    for trial in trials:
        solved = sum(s for key, s in log.status.items() if key.startswith(f"{trial}/"))
        if str(trial) in log.summary:
            report.logged.append(log.summary[str(trial)])
            report.reproduced = [*(report.reproduced or []), solved]
        else:
            report.notes.append(f"trial {trial} has {solved} solved, and no count to hold it against")
    return report


def show(report: Report) -> str:
    """A report as text."""
    lines = [
        f"{report.file} ({report.kind}, {report.tasks} tasks)" if report.tasks else f"{report.file} ({report.kind})"
    ]
    if report.logged:
        lines.append(f"  logged:     {' '.join(map(str, report.logged))}")
    if report.reproduced is not None:
        lines.append(f"  reproduced: {' '.join(map(str, report.reproduced))}")
    lines += [f"  differs: {text}" for text in report.disagreements]
    lines += [f"  note: {text}" for text in report.notes]
    return "\n".join(lines)


def _name(path: Path, logs: Path) -> str:
    return str(path.relative_to(logs)) if logs.is_dir() else path.name


if __name__ == "__main__":
    sys.exit(main())
