"""What each kind of memory does for one model: the arms of `agentkit.ablate` on three worlds.

    python examples/ablation.py [--quick] [--model MODEL] [--worlds textworld,textcraft,babyai] [--out FOLDER]

The default model is the embedded one of 135 million parameters, which chooses among the admissible actions by
likelihood. Any other is asked to write (ReAct), for example ``--model openai/gpt-5-mini``. For each world the table,
the plot and the rows as JSON are written to FOLDER (default: runs/ablation).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentkit.bench.ablate import ARMS, Ablation, ablate
from agentkit.errors import MissingExtra
from agentkit.llm import LLM, ScoringLLM, get_llm
from agentkit.policy.base import Policy
from agentkit.policy.choose import Choose
from agentkit.policy.generate import ReAct
from agentkit.types import Episode, Options, Task

WORLDS = ("textworld", "textcraft", "babyai")


@dataclass(frozen=True)
class Size:
    """How much is played."""

    tasks: int = 6
    lifetimes: int = 5
    trials: int = 4
    max_steps: int = 12


QUICK = Size(tasks=2, lifetimes=2, trials=2, max_steps=4)


def tasks(world: str, count: int, seed: int) -> list[Task]:
    """The tasks of a world, drawn from the seed."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(WORLDS.index(world),)))
    seeds = [int(s) for s in rng.integers(2**31, size=count)]
    if world == "textworld":
        kinds = [("coin_collector", 3), ("treasure_hunter", 3), ("coin_collector", 104), ("treasure_hunter", 7)]
        chosen = [(kinds[i % len(kinds)], s) for i, s in enumerate(seeds)]
        return [
            Task("agentkit/TextWorld-v0", seed=s, options=Options({"kind": k, "level": n}), name=f"{k} {n} #{s}")
            for (k, n), s in chosen
        ]
    if world == "babyai":
        levels = ("BabyAI-GoToObj-v0", "BabyAI-GoToRedBallGrey-v0", "BabyAI-PickupLoc-v0")
        chosen_levels = [levels[i % len(levels)] for i in range(count)]
        return [
            Task("agentkit/BabyAI-v0", seed=s, options=Options({"level": level}), name=f"{level} #{s}")
            for level, s in zip(chosen_levels, seeds, strict=True)
        ]
    return [Task("agentkit/TextCraft-v0", seed=s, name=f"textcraft #{s}") for s in seeds]


def policy_for(llm: LLM, world: str, wanted: str) -> Policy:
    """Choose by likelihood where the model scores and the world lists its actions (TextCraft does not); else write."""
    if wanted == "choose" or (wanted == "auto" and isinstance(llm, ScoringLLM) and world != "textcraft"):
        return Choose()
    recipes = "Actions: 'get 2 oak log' for what needs no crafting, 'craft 4 oak planks using 1 oak log', 'inventory'."
    instructions = recipes if world == "textcraft" else ""
    if isinstance(llm, ScoringLLM):  # a small local model: short prompts and answers
        return ReAct(instructions=instructions, history=10, observation_chars=800, memory_tokens=600, max_tokens=64)
    return ReAct(instructions=instructions, max_tokens=1024)


def play(world: str, llm: LLM, size: Size, arguments: argparse.Namespace) -> Ablation:
    """The ablation in one world."""
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
        policy_for(llm, world, arguments.policy),
        tasks(world, size.tasks, arguments.seed),
        llm=llm,
        arms=arms,
        seeds=size.lifetimes,
        trials=size.trials,
        seed=arguments.seed,
        workers=arguments.workers,
        max_steps=size.max_steps,
        tokens=arguments.tokens,
        progress=progress,
    )
    print(file=sys.stderr)
    return result


def main() -> int:
    """Run and write what came of it. Returns 0, or 2 when no world could be played."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small one: the first world, two tasks, two lifetimes")
    parser.add_argument("--model", default="local/smollm2-135m")
    parser.add_argument("--policy", choices=("auto", "choose", "react"), default="auto")
    parser.add_argument("--worlds", default="", help=f"of {', '.join(WORLDS)} (default: all; with --quick the first)")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--lifetimes", type=int)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--steps", type=int, help="steps an episode")
    parser.add_argument("--tokens", type=int, help="budget of each arm in tokens (default: none)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    base = QUICK if arguments.quick else Size()
    size = Size(
        arguments.tasks or base.tasks,
        arguments.lifetimes or base.lifetimes,
        arguments.trials or base.trials,
        arguments.steps or base.max_steps,
    )
    worlds = arguments.worlds.split(",") if arguments.worlds else WORLDS[:1] if arguments.quick else WORLDS
    llm = get_llm(arguments.model)
    arguments.out.mkdir(parents=True, exist_ok=True)
    played = 0
    for world in worlds:
        if world not in WORLDS:
            parser.error(f"there is no world {world!r}; there are {', '.join(WORLDS)}")
        started = time.monotonic()
        try:
            result = play(world, llm, size, arguments)
        except MissingExtra as error:
            print(f"{world} is left out: {error}", file=sys.stderr)
            continue
        played += 1
        title = f"{llm.name} on {world}: {size.tasks} tasks, {size.lifetimes} lifetimes, {size.trials} trials"
        seconds = time.monotonic() - started
        print(f"\n### {title}\n\n{result}\n\n({seconds:.0f} s)")
        (arguments.out / f"{world}.md").write_text(f"### {title}\n\n{result}\n")
        (arguments.out / f"{world}.json").write_text(json.dumps({"title": title, "rows": result.rows()}, indent=1))
        result.plot(arguments.out / f"{world}.png", title=title)
    print(f"Written to {arguments.out}.")
    return 0 if played else 2


if __name__ == "__main__":
    sys.exit(main())
