"""The contract test for an environment: which rule is broken, where, and how to mend it.

`check_env` plays short episodes with a seeded choice of actions and compares what comes out with the contract that
`agentkit.envs` states. It needs no test framework: call it from a test, from a notebook, or as
``python -m agentkit.testing.envcheck ID``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Text
from gymnasium.spaces.text import alphanumeric

from agentkit.envs.tasks import as_dict, checked
from agentkit.errors import ContractError, InvalidValue
from agentkit.testing.envactions import Actions
from agentkit.testing.envmake import Maker, Subject, check_signatures
from agentkit.testing.envtrace import Trace, difference, finish, play
from agentkit.testing.envwatch import Broken, Env, Findings, Violation, Watched, said

__all__ = ["Report", "Violation", "check_env"]

HOSTILE: Mapping[str, str] = {
    "an empty action": "",
    "spaces only": "   ",
    "a megabyte": "a" * 1_000_000,
    "control characters": "\x00\x07\x1b[2Jlook\x08",
    "several lines": "look\nsave\nquit\n",
    "other scripts": "打开门 افتح الباب открой 🚪",
    "a lone surrogate": "look \ud800",
    "markup": "</action>{{7*7}}<|endoftext|>%s%n'; DROP TABLE steps;--",
    "meta commands": "save",
    "a transcript": "script",
}
_CHILD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Report:
    """What `check_env` found. ``skipped`` names the rules that could not be checked, with the reason."""

    name: str
    violations: tuple[Violation, ...]
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.violations

    def __str__(self) -> str:
        lines = [f"{self.name}: " + ("keeps the contract" if self.ok else _count(len(self.violations), "broken rule"))]
        lines += [f"{i}. {v}" for i, v in enumerate(self.violations, 1)]
        lines += [f"Not checked: {s}" for s in self.skipped]
        return "\n".join(lines)


def check_env(
    env: Subject,
    *,
    seeds: Sequence[int] = (0, 1),
    steps: int = 25,
    options: Mapping[str, Any] | None = None,
    raises: bool = True,
    **kwargs: Any,
) -> Report:
    """Check an environment against the contract of `agentkit.envs`.

    Args:
        env: an id, an environment, or a class or function that makes one. Only with an id, a class or a function that
            another process can import is everything checked; `Report.skipped` says what was not.
        seeds: the episodes to play, at least two different ones.
        steps: how many steps an episode is played at most.
        options: passed to each ``reset``.
        raises: raise `agentkit.errors.ContractError` with the whole report where a rule is broken. A package or a
            program that is not installed is raised in any case, as what it is.
        kwargs: passed to what makes the environment.

    Rules: ``make``, ``spaces``, ``gymnasium``, ``reset``, ``goal``, ``step``, ``success``, ``score``, ``feedback``,
    ``admissible``, ``hostile``, ``same-seed``, ``other-process``, ``shared-state``, ``global-random``, ``close``.
    """
    for seed in seeds:
        checked("a seed", seed, int, low=0)
    if len(set(seeds)) < 2:
        raise InvalidValue("check_env needs at least two different seeds, for example seeds=(0, 1)")
    checked("steps", steps, int, low=1)
    findings = Findings()
    maker = Maker(env, kwargs, findings)
    return _Check(maker, tuple(seeds), steps, as_dict("options", options), findings).run(raises)


@dataclass
class _Check:
    maker: Maker
    seeds: tuple[int, ...]
    steps: int
    options: dict[str, Any]
    findings: Findings
    skipped: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    # -- the order of the checks -------------------------------------------------------------------------------

    def run(self, raises: bool) -> Report:
        children, self.files = _children(), _files()
        with contextlib.suppress(Broken):
            env = self.maker.make()
            self.findings.look_at(env)
            try:
                check_signatures(env, self.findings)
                self._check_spaces(env)
                solo = {seed: self._episode(env, seed) for seed in self.seeds}
                self._check_gymnasium(env)
                self._check_random_state(env)
                self._check_repeats(env, solo)
                Actions(Watched(self.findings, env), self.steps, self.options).check(self.seeds)
                self._check_hostile(env, solo)
                self._check_instances(solo)
                self._check_process(solo)
            finally:
                self._check_close(env, children)
        report = Report(self.maker.name, tuple(self.findings.violations.values()), tuple(self.skipped))
        if raises and not report.ok:
            raise ContractError(str(report))
        return report

    # -- single rules ------------------------------------------------------------------------------------------

    def _check_spaces(self, env: Env) -> None:
        for name in ("observation_space", "action_space"):
            space = getattr(env, name, None)
            if not isinstance(space, Text):
                remedy = f"in __init__: self.{name} = agentkit.envs.text_space()"
                if space is not None:
                    remedy += "; an environment that is not of text becomes one with agentkit.envs.TextAdapter"
                self.findings.broken("spaces", name, f"is {space!r}, not a gymnasium.spaces.Text", remedy)
                raise Broken
            if space.character_set == alphanumeric:
                self.findings.broken(
                    "spaces",
                    name,
                    "holds letters and digits only, the default of gymnasium.spaces.Text: no space, no full stop",
                    f"{name} = agentkit.envs.text_space(), or give charset=",
                )
        if env.observation_space.min_length > 0:  # type: ignore[attr-defined]  # it is a Text, see above
            self.findings.broken(
                "spaces", "observation_space", "does not hold the empty text", "text_space(), or give min_length=0"
            )

    def _check_gymnasium(self, env: Env) -> None:
        from gymnasium.utils.env_checker import check_env as gymnasium_check

        if {"spaces", "reset", "step"} & {rule for rule, _ in self.findings.violations}:
            self.skipped.append("gymnasium: its own checker would say again what is said above; mend that first")
            return
        try:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                gymnasium_check(env.unwrapped, skip_render_check=True)
        except Exception as error:
            remedy = "gymnasium.utils.env_checker.check_env(env, skip_render_check=True) shows it alone"
            if "seed" in str(error) or "random" in str(error):
                remedy = "begin reset with super().reset(seed=seed), and draw from self.np_random only"
            self.findings.broken("gymnasium", "gymnasium.utils.env_checker", said(error), remedy)

    def _check_random_state(self, env: Env) -> None:
        before = random.getstate(), _numpy_state()
        self._episode(env, self.seeds[0])
        if (random.getstate(), _numpy_state()) != before:
            self.findings.broken(
                "global-random",
                "reset or step",
                "uses or seeds the generators that the whole process shares",
                "draw from self.np_random (or a random.Random of your own); save and restore what a package touches",
            )

    def _check_repeats(self, env: Env, solo: Mapping[int, Trace]) -> None:
        for seed in [*reversed(self.seeds), *self.seeds]:
            again = self._episode(env, seed)
            if again.digest != solo[seed].digest:
                remedy = "reset must set everything anew; look for state that is made in __init__ and changed in step"
                self.findings.broken("same-seed", f"reset(seed={seed}) again", difference(solo[seed], again), remedy)

    def _check_hostile(self, env: Env, solo: Mapping[int, Trace]) -> None:
        watched, over = Watched(self.findings, env), True
        for what, action in HOSTILE.items():
            if over:
                watched.reset(seed=self.seeds[0], options=dict(self.options))
            _, _, terminated, truncated, _ = watched.step(action, f"step with {what}", "hostile")
            over = terminated or truncated
        if new := sorted(_files() - self.files):
            remedy = "write to a temporary folder, and refuse what an interpreter takes as a command to itself"
            self.findings.broken("hostile", "the working folder", f"files were written into it: {new[:5]}", remedy)
        again = self._episode(env, self.seeds[0])
        if again.digest != solo[self.seeds[0]].digest:
            self.findings.broken(
                "hostile",
                "reset after such actions",
                difference(solo[self.seeds[0]], again),
                "an action must not reach further than its episode",
            )

    def _check_instances(self, solo: Mapping[int, Trace]) -> None:
        first, second = self.maker.another(), self.maker.another()
        if first is None or second is None:
            self.skipped.append("shared-state and other-process: give an id or a function that makes the environment")
            return
        try:
            a, b = self.seeds[:2]
            players = [play(env, seed, self.steps, self.options) for env, seed in ((first, a), (second, b))]
            traces: dict[int, Trace] = {}
            while len(traces) < 2:  # one step of each, in turn
                for i, player in enumerate(players):
                    if i not in traces:
                        try:
                            next(player)
                        except StopIteration as end:
                            traces[i] = end.value
            for i, seed in enumerate((a, b)):
                if traces[i].digest != solo[seed].digest:
                    remedy = "keep state on self: look for class attributes, module globals, and shared files or ports"
                    self.findings.broken(
                        "shared-state", "two instances in turn", difference(solo[seed], traces[i]), remedy
                    )
        finally:
            self._close(first)
            self._close(second)

    def _check_process(self, solo: Mapping[int, Trace]) -> None:
        target = self.maker.elsewhere()
        if target is None:
            self.skipped.append("other-process: another process cannot import it; register it as 'module:Class'")
            return
        # Another hash seed, so that an order that comes from a set of strings shows.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        environment["PYTHONHASHSEED"] = "1" if environment.get("PYTHONHASHSEED") != "1" else "2"
        request = {**target, "seeds": list(reversed(self.seeds)), "steps": self.steps, "options": self.options}
        result = subprocess.run(
            [sys.executable, "-m", "agentkit.testing.envtrace"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if result.returncode:
            remedy = "the environment must be importable and playable in a process of its own"
            self.findings.broken("other-process", "another process", result.stderr[-800:], remedy)
            return
        there = {int(seed): Trace(**trace) for seed, trace in json.loads(result.stdout.splitlines()[-1]).items()}
        for seed in self.seeds:
            if there[seed].digest != solo[seed].digest:
                remedy = "sort what comes from a set or from hash(); seed every generator, those of packages too"
                where = f"reset(seed={seed}) in another process"
                self.findings.broken("other-process", where, difference(solo[seed], there[seed]), remedy)

    def _check_close(self, env: Env, children: set[int]) -> None:
        if self._close(env):
            self._close(env, "close, called again", "a second call must do nothing")
        deadline = time.monotonic() + _CHILD_SECONDS
        while (left := _children(children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            names = ", ".join(f"{pid} ({_command(pid)})" for pid in sorted(left))
            self.findings.broken(
                "close", "close", f"these processes are still there: {names}", "end and wait for them in close"
            )

    def _close(self, env: Env, where: str = "close", remedy: str = "close must not raise") -> bool:
        try:
            env.close()
        except (Exception, SystemExit) as error:
            self.findings.broken("close", where, said(error), remedy)
            return False
        return True

    # -- playing -----------------------------------------------------------------------------------------------

    def _episode(self, env: Env, seed: int) -> Trace:
        return finish(play(Watched(self.findings, env), seed, self.steps, self.options))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _numpy_state() -> str:
    state: Any = np.random.get_state()
    return repr([part.tolist() if isinstance(part, np.ndarray) else part for part in state])


def _files() -> set[str]:
    return set(os.listdir(".")) - {"__pycache__"}


def _children(before: Collection[int] = ()) -> set[int]:
    """All processes below this one, but those in ``before`` and what is below them: that is theirs, not the
    environment's. Without /proc, none are seen."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                parents[int(entry.parent.name)] = int(fields[1])
    below, frontier = set[int](), {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier and pid not in before}
        below |= frontier
    return below


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80].strip()
    return "ended"


def _main() -> None:
    parser = argparse.ArgumentParser(description="Check environments against the contract of agentkit.envs.")
    parser.add_argument("ids", nargs="*", help="ids of registered environments")
    arguments = parser.parse_args()
    reports = [check_env(id, raises=False) for id in arguments.ids]
    print("\n".join(map(str, reports)))
    sys.exit(any(not report.ok for report in reports))


if __name__ == "__main__":
    _main()
