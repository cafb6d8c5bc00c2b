"""What the benchmarks of worlds share: measuring two sides in turn, and the line that says what came of it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

QUICK_SECONDS, SECONDS = 0.1, 0.4
QUICK_REPETITIONS, REPETITIONS = 3, 9
_TURN = 25


@dataclass(frozen=True)
class Setting:
    """How large a measurement is. ``seconds``: half of what each repetition takes."""

    quick: bool
    seed: int

    @property
    def seconds(self) -> float:
        return QUICK_SECONDS if self.quick else SECONDS

    @property
    def repetitions(self) -> int:
        return QUICK_REPETITIONS if self.quick else REPETITIONS


@dataclass(frozen=True)
class Result:
    """One ratio. ``target`` None: it is shown, not judged."""

    name: str
    ratio: float | None
    spread: tuple[float, float] | None
    target: float | None
    details: dict[str, Any] = field(default_factory=dict)
    missing: str = ""

    @property
    def ok(self) -> bool:
        return not self.missing and (self.target is None or (self.ratio is not None and self.ratio >= self.target))

    def line(self) -> str:
        row: dict[str, Any] = {
            "name": self.name,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "spread": None if self.spread is None else [round(v, 3) for v in self.spread],
            "target": self.target,
            "ok": self.ok,
            **self.details,
        }
        if self.missing:
            row["missing"] = self.missing
        return json.dumps(row)


Measurement = Callable[[Setting], "Result | Iterable[Result]"]
MEASUREMENTS: dict[str, Callable[[Setting], list[Result]]] = {}


def measurement(name: str, *needs: str) -> Callable[[Measurement], Measurement]:
    """Add a measurement under ``name``; it is skipped, and said to be, where a module of ``needs`` is not installed."""

    def add(function: Measurement) -> Measurement:
        def measure(setting: Setting) -> list[Result]:
            for module in needs:
                if importlib.util.find_spec(module) is None:
                    return [Result(name, None, None, None, missing=f"{module} is not installed")]
            found = function(setting)
            return [found] if isinstance(found, Result) else list(found)

        MEASUREMENTS[name] = measure
        return function

    return add


def versions(*packages: str) -> dict[str, str]:
    """The versions of packages, and of Python."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def compare(
    name: str,
    setting: Setting,
    ours: Iterator[None],
    bare: Iterator[None],
    *,
    target: float | None,
    packages: Iterable[str],
    clock: Callable[[], float] = time.process_time,
    warm_up: int = 20,
) -> Result:
    """Steps a second of ours over the bare package's; each is an endless iterator that takes one step a ``next``.

    They take the same number of steps in turn, a few at a time, so that whatever else the machine does, and whatever
    the collectors of a JVM do, meets both. ``clock`` measures this process's own time, in seconds; for worlds with
    processes of their own give ``time.perf_counter``. ``warm_up`` steps come before.
    """
    sides = (ours, bare)
    for stepper in sides:
        for _ in range(warm_up):
            next(stepper)
    # Another process's rate varies more, and takes longer to tell.
    seconds = setting.seconds * (1 if clock is time.process_time else 4)
    rates: list[tuple[float, float]] = []
    for _ in range(setting.repetitions):
        spent, steps = [0.0, 0.0], 0
        while sum(spent) < 2 * seconds:
            steps += _TURN
            for side, stepper in enumerate(sides):
                start = clock()
                for _ in range(_TURN):
                    next(stepper)
                spent[side] += clock() - start
        rates.append((steps / spent[0], steps / spent[1]))
    ratios = [a / b for a, b in rates]
    details = {
        "steps_per_s": round(statistics.median(a for a, _ in rates), 1),
        "bare_steps_per_s": round(statistics.median(b for _, b in rates), 1),
        "versions": versions(*packages),
    }
    return Result(name, statistics.median(ratios), (min(ratios), max(ratios)), target, details)


def episodes(
    begin: Callable[[int], object], step: Callable[[Any], Sequence[Any]], actions: Sequence[Any]
) -> Iterator[None]:
    """Endless steps: ``begin(n)`` begins the n-th episode, and ``step`` takes the actions until the third item of its
    answer says that the episode is over."""
    for number in itertools.count():
        begin(number)
        yield
        for action in actions:
            over = step(action)[2]
            yield
            if over:
                break
