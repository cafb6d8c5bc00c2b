"""What each kind of memory does for one model: the arms of `agentkit.ablate` on three worlds.

    python examples/ablation.py [--quick] [--model MODEL] [--worlds textworld,textcraft,babyai] [--out FOLDER]

The default model is the embedded one of 135 million parameters, which chooses among the admissible actions by
likelihood. One that does not score is asked to write (ReAct), for example ``--model openai/gpt-5-mini``.

For each world the table, the plot, the rows as JSON, the run log and the memories are kept in a folder of FOLDER
(default: runs/ablation), named after the model and the sizes. Killed and started again with the same options, it goes
on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentkit.bench.ablate import ARMS, Ablation, ablate
from agentkit.bench.curves import check_installed
from agentkit.errors import AgentkitError, MissingExtra, UnknownName
from agentkit.llm import LLM, ScoringLLM, get_llm
from agentkit.policy.base import Policy
from agentkit.policy.choose import Choose
from agentkit.policy.generate import ReAct
from agentkit.types import Episode, Options, Task

WORLDS = ("textworld", "textcraft", "babyai")
GAMES = (("coin_collector", 3), ("treasure_hunter", 3), ("coin_collector", 104), ("treasure_hunter", 7))
LEVELS = ("BabyAI-GoToObjS4-v0", "BabyAI-GoToLocalS5N2-v0", "BabyAI-GoToLocalS6N3-v0", "BabyAI-GoToRedBallGrey-v0")
# By turns one that is got and crafted, and one that needs something crafted or two things got.
ITEMS = ("stone slab", "birch slab", "composter", "end rod", "hay block", "scaffolding", "chain", "stonecutter")


@dataclass(frozen=True)
class Size:
    """How much is played."""

    tasks: int = 6
    lifetimes: int = 5
    trials: int = 4
    max_steps: int = 12


QUICK = Size(tasks=2, lifetimes=2, trials=3, max_steps=5)


def tasks(world: str, count: int, seed: int) -> list[Task]:
    """The tasks of a world, drawn from the seed."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(WORLDS.index(world),)))
    seeds = [int(s) for s in rng.integers(2**31, size=count)]
    if world == "textworld":
        games = [(*GAMES[i % len(GAMES)], s) for i, s in enumerate(seeds)]
        return [
            Task("agentkit/TextWorld-v0", seed=s, options=Options({"kind": k, "level": n}), name=f"{k} {n} #{s}")
            for k, n, s in games
        ]
    env_id, key, named = (
        ("agentkit/BabyAI-v0", "level", LEVELS) if world == "babyai" else ("agentkit/TextCraft-v0", "goal", ITEMS)
    )
    listed = {} if world == "babyai" else {"admissible": True}
    return [
        Task(env_id, seed=s, options=Options({key: (name := named[i % len(named)]), **listed}), name=f"{name} #{s}")
        for i, s in enumerate(seeds)
    ]


def policy_for(llm: LLM, wanted: str) -> Policy:
    """Choose by likelihood where the model scores; else write (ReAct)."""
    if wanted == "choose" or (wanted == "auto" and isinstance(llm, ScoringLLM)):
        return Choose()
    if isinstance(llm, ScoringLLM):  # a small local model: short prompts and answers
        return ReAct(history=10, observation_chars=800, memory_tokens=600, max_tokens=64)
    return ReAct(max_tokens=1024)


def play(world: str, llm: LLM, size: Size, folder: Path, arguments: argparse.Namespace) -> Ablation:
    """The ablation in one world, kept in ``folder``."""
    arms = [arm for arm in arguments.arms.split(",") if arm]
    total = (len({"none", *arms})) * size.lifetimes * size.trials * size.tasks
    count = 0

    def progress(arm: str, lifetime: int, _episode: Episode) -> None:
        nonlocal count
        count += 1
        if count % 10 == 0 or count == total:
            print(
                f"\r{world}: {count} of {total} episodes ({arm}, lifetime {lifetime + 1})   ", end="", file=sys.stderr
            )

    result = ablate(
        policy_for(llm, arguments.policy),
        tasks(world, size.tasks, arguments.seed),
        llm=llm,
        arms=arms,
        seeds=size.lifetimes,
        trials=size.trials,
        seed=arguments.seed,
        workers=arguments.workers,
        max_steps=size.max_steps,
        tokens=arguments.tokens,
        folder=folder,
        progress=progress,
    )
    print(f"\n{total - count} episodes were there already" if count < total else "", file=sys.stderr)
    return result


def main() -> int:
    """Run and write what came of it. Returns 0, or 2 when the arguments are wrong or no world could be played."""
    try:
        return run_ablations()
    except AgentkitError as error:
        print(f"ablation.py: {error}", file=sys.stderr)
        return 2


def run_ablations() -> int:
    """Every world in turn. What is wrong with the arguments is said before anything is loaded or made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small one: two tasks, two lifetimes")
    parser.add_argument("--model", default="local/smollm2-135m")
    parser.add_argument("--policy", choices=("auto", "choose", "react"), default="auto")
    parser.add_argument("--worlds", default="", help=f"of {', '.join(WORLDS)} (default: all)")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--tasks", type=at_least(1))
    parser.add_argument("--lifetimes", type=at_least(1))
    parser.add_argument("--trials", type=at_least(2), help="at least 2: nothing is learned before the first")
    parser.add_argument("--steps", type=at_least(1), help="steps an episode")
    parser.add_argument("--tokens", type=at_least(1), help="budget of each arm in tokens (default: none)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--workers", type=at_least(1), default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    base = QUICK if arguments.quick else Size()
    size = Size(
        arguments.tasks or base.tasks,
        arguments.lifetimes or base.lifetimes,
        arguments.trials or base.trials,
        arguments.steps or base.max_steps,
    )
    worlds = [world for world in arguments.worlds.split(",") if world] or WORLDS
    for world in worlds:
        if world not in WORLDS:
            parser.error(f"there is no world {world!r}; there are {', '.join(WORLDS)}")
    for arm in filter(None, arguments.arms.split(",")):
        if arm not in ARMS:
            raise UnknownName.among("arm", arm, ARMS)
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out is {arguments.out}, which is no folder")
    check_installed()
    llm = get_llm(arguments.model)
    if arguments.policy == "choose" and not isinstance(llm, ScoringLLM):
        parser.error(f"--policy choose needs a model that tells likelihoods, and {llm.name} does not; use react")
    played = 0
    for world in worlds:
        folder = arguments.out / folder_name(world, llm.name, size, arguments)
        started = time.monotonic()
        try:
            result = play(world, llm, size, folder, arguments)
        except MissingExtra as error:
            print(f"{world} is left out: {error}", file=sys.stderr)
            continue
        played += 1
        sizes = f"{size.tasks} tasks, {size.lifetimes} lifetimes, {size.trials} trials of {size.max_steps} steps"
        title = f"{llm.name} on {world}: {sizes}, seed {arguments.seed}"
        print(f"\n### {title}\n\n{result}\n\n({time.monotonic() - started:.0f} s; kept in {folder})", flush=True)
        (folder / "table.md").write_text(f"### {title}\n\n{result}\n")
        (folder / "rows.json").write_text(json.dumps({"title": title, "rows": result.rows()}, indent=1))
        result.plot(folder / "curves.png", title=title)
    return 0 if played else 2


def at_least(least: int) -> Callable[[str], int]:
    """What reads a whole number that is not too small."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


def folder_name(world: str, model: str, size: Size, arguments: argparse.Namespace) -> str:
    """What tells ablations apart that must not share a folder."""
    sizes = f"{size.tasks}x{size.lifetimes}x{size.trials}x{size.max_steps}"
    parts = [world, re.sub(r"[^\w.-]+", "-", model), arguments.policy, sizes, f"seed{arguments.seed}"]
    return "-".join(parts if arguments.tokens is None else [*parts, f"{arguments.tokens}tokens"])


if __name__ == "__main__":
    sys.exit(main())
