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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Text
from gymnasium.spaces.text import alphanumeric

from agentkit.envs import make, register_all
from agentkit.envs.extras import MissingProgram
from agentkit.errors import ContractError, InvalidValue
from agentkit.testing.envtrace import Trace, admissible, difference, finish, play, short
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
_NONSENSE = "qwxz vlorp 93"
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
        lines = [f"{self.name}: " + ("keeps the contract" if self.ok else f"{len(self.violations)} broken rules")]
        lines += [f"{i}. {v}" for i, v in enumerate(self.violations, 1)]
        lines += [f"Not checked: {s}" for s in self.skipped]
        return "\n".join(lines)


def check_env(
    env: str | Env | Callable[[], Env],
    *,
    seeds: Sequence[int] = (0, 1),
    steps: int = 25,
    options: Mapping[str, Any] | None = None,
    raises: bool = True,
    **kwargs: Any,
) -> Report:
    """Check an environment against the contract of `agentkit.envs`.

    Args:
        env: an id, an environment, or a function without arguments that makes one. Only with an id or a function that
            another process can import is everything checked; `Report.skipped` says what was not.
        seeds: the episodes to play, at least two different ones.
        steps: how many steps an episode is played at most.
        options: passed to each ``reset``.
        raises: raise `agentkit.errors.ContractError` with the whole report where a rule is broken. A package or a
            program that is not installed is raised in any case, as what it is.
        kwargs: passed to the environment, with an id only.

    Rules: ``make``, ``spaces``, ``gymnasium``, ``reset``, ``goal``, ``step``, ``success``, ``score``, ``feedback``,
    ``admissible``, ``hostile``, ``same-seed``, ``other-process``, ``shared-state``, ``global-random``, ``close``.
    """
    if len(set(seeds)) < 2:
        raise InvalidValue("check_env needs at least two different seeds")
    return _Check(env, tuple(seeds), steps, dict(options or {}), kwargs).run(raises)


@dataclass
class _Check:
    subject: str | Env | Callable[[], Env]
    seeds: tuple[int, ...]
    steps: int
    options: dict[str, Any]
    kwargs: dict[str, Any]
    findings: Findings = field(default_factory=Findings)
    skipped: list[str] = field(default_factory=list)
    name: str = ""
    files: set[str] = field(default_factory=set)

    # -- the order of the checks -------------------------------------------------------------------------------

    def run(self, raises: bool) -> Report:
        self.name = self.subject if isinstance(self.subject, str) else _name(self.subject)
        children, self.files = _children(), _files()
        with contextlib.suppress(Broken):
            env = self._make()
            try:
                self._check_spaces(env)
                self._check_gymnasium(env)
                self._check_random_state(env)
                solo = {seed: self._episode(env, seed) for seed in self.seeds}
                self._check_repeats(env, solo)
                self._check_admissible(env)
                self._check_hostile(env, solo)
                self._check_instances(solo)
                self._check_process(solo)
            finally:
                self._check_close(env, children)
        report = Report(self.name, tuple(self.findings.violations.values()), tuple(self.skipped))
        if raises and not report.ok:
            raise ContractError(str(report))
        return report

    # -- making ------------------------------------------------------------------------------------------------

    def _make(self) -> Env:
        if isinstance(self.subject, gymnasium.Env):
            return self.subject
        try:
            env = make(self.subject, **self.kwargs) if isinstance(self.subject, str) else self.subject()
        except (ImportError, MissingProgram):
            raise  # what is not installed is no fault of the environment
        except Exception as error:
            self.findings.broken("make", "the constructor", said(error), "let it be made with the arguments given here")
            raise Broken from error
        made: object = env
        if not isinstance(made, gymnasium.Env):
            self.findings.broken("make", "the constructor", f"made a {type(env).__name__}", "derive from gymnasium.Env")
            raise Broken
        return env

    def _another(self) -> Env | None:
        if isinstance(self.subject, gymnasium.Env):
            if self.subject.spec is None:
                return None
            register_all()
            return gymnasium.make(self.subject.spec)
        return self._make()

    # -- single rules ------------------------------------------------------------------------------------------

    def _check_spaces(self, env: Env) -> None:
        for name in ("observation_space", "action_space"):
            space = getattr(env, name, None)
            if not isinstance(space, Text):
                self.findings.broken(
                    "spaces", name, f"is {space!r}, not a gymnasium.spaces.Text", f"{name} = agentkit.envs.text_space()"
                )
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

        try:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                gymnasium_check(env.unwrapped, skip_render_check=True)
        except Exception as error:
            remedy = "gymnasium.utils.env_checker.check_env(env) shows it alone; most often reset lacks "
            remedy += "`super().reset(seed=seed)` or draws from another generator than self.np_random"
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

    def _check_admissible(self, env: Env) -> None:
        _, info = self._reset(env, self.seeds[0])
        listed = admissible(info)
        if not listed:
            return
        _, _, _, _, nonsense = self._step(env, _NONSENSE, "step with an unknown action")
        refusal = str(nonsense.get("feedback", "")).replace(_NONSENSE, "…")
        if not refusal:
            return  # nothing says how this environment refuses
        for action in listed[:8]:
            self._reset(env, self.seeds[0])
            _, _, _, _, answer = self._step(env, action)
            if str(answer.get("feedback", "")).replace(action, "…") == refusal:
                self.findings.broken(
                    "admissible",
                    "step",
                    f"the admissible action {action!r} is refused: {short(refusal)}",
                    "list only what step takes, in the words it takes",
                )

    def _check_hostile(self, env: Env, solo: Mapping[int, Trace]) -> None:
        over = True
        for what, action in HOSTILE.items():
            if over:
                self._reset(env, self.seeds[0])
            _, _, terminated, truncated, _ = self._step(env, action, f"step with {what}")
            over = terminated or truncated
        if new := sorted(_files() - self.files):
            remedy = "write to a temporary folder, and refuse what an interpreter takes as a command to itself"
            self.findings.broken("hostile", "step", f"wrote files into the working folder: {new[:5]}", remedy)
        again = self._episode(env, self.seeds[0])
        if again.digest != solo[self.seeds[0]].digest:
            self.findings.broken(
                "hostile",
                "reset after such actions",
                difference(solo[self.seeds[0]], again),
                "an action must not reach further than its episode",
            )

    def _check_instances(self, solo: Mapping[int, Trace]) -> None:
        first, second = self._another(), self._another()
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
            first.close()
            second.close()

    def _check_process(self, solo: Mapping[int, Trace]) -> None:
        target = self._importable()
        if target is None:
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

    def _importable(self) -> dict[str, Any] | None:
        """How another process makes the environment, as JSON values."""
        subject: Any = self.subject
        if isinstance(subject, gymnasium.Env):
            subject = None if subject.spec is None else subject.spec.id
        if isinstance(subject, str):
            spec = gymnasium.registry.get(subject.rpartition(":")[2])
            point = None if spec is None else spec.entry_point
            known = isinstance(point, str) or (point is not None and _path(point) is not None)
            entry = point if isinstance(point, str) else _path(point)
            steps = None if spec is None else spec.max_episode_steps
            kwargs = {**({} if spec is None else spec.kwargs), **self.kwargs}
            found = {"entry": entry, "max_steps": kwargs.pop("max_episode_steps", steps), "kwargs": kwargs}
            known = known and _is_json(found)
        else:
            entry = None if subject is None else _path(subject)
            found, known = {"entry": entry, "max_steps": None, "kwargs": {}}, entry is not None
        if not known:
            self.skipped.append("other-process: another process cannot import it; register it as 'module:Class'")
            return None
        return found

    def _check_close(self, env: Env, children: set[int]) -> None:
        try:
            env.close()
            env.close()
        except Exception as error:
            self.findings.broken("close", "close, called twice", said(error), "called again, close must do nothing")
        deadline = time.monotonic() + _CHILD_SECONDS
        while (left := _children(children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            names = ", ".join(f"{pid} ({_command(pid)})" for pid in sorted(left))
            self.findings.broken(
                "close", "close", f"these processes are still there: {names}", "end and wait for them in close"
            )

    # -- playing -----------------------------------------------------------------------------------------------

    def _episode(self, env: Env, seed: int) -> Trace:
        return finish(play(Watched(self.findings, env), seed, self.steps, self.options))

    def _reset(self, env: Env, seed: int) -> tuple[str, dict[str, Any]]:
        return Watched(self.findings, env).reset(seed=seed, options=dict(self.options))

    def _step(self, env: Env, action: str, where: str = "step") -> tuple[str, float, bool, bool, dict[str, Any]]:
        return Watched(self.findings, env).step(action, where)


def _name(subject: Any) -> str:
    if isinstance(subject, gymnasium.Env):
        return subject.spec.id if subject.spec is not None else type(subject.unwrapped).__name__
    return str(getattr(subject, "__qualname__", subject))


def _path(subject: object) -> str | None:
    """``"module:attr"`` of a function or class, where another process can import it."""
    module, name = getattr(subject, "__module__", None), getattr(subject, "__qualname__", "<")
    return None if module in (None, "__main__") or "<" in name else f"{module}:{name}"


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


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
