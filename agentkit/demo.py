"""The main job: an agent that learns by trial on a real model in a real text world, held against the same agent without
memory.

The model is SmolLM2-135M-Instruct, the world TextWorld: games of finding a coin or a treasure, made from the seed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentkit.agent import Agent
from agentkit.agents.reflexion import reflexion
from agentkit.bench import curves
from agentkit.bench.compare import Comparison, compare
from agentkit.errors import InvalidValue
from agentkit.llm import LLM, ScoringLLM, get_llm
from agentkit.memory import Memory
from agentkit.runlog import RunLog
from agentkit.types import Episode, Task

ARMS = ("with memory", "retry")
# Levels of the two kinds of game in TextWorld's own terms: how far away the thing is, and how many wrong turns and
# wrong things there are. Drawn from the seed.
LEVELS = {"coin_collector": (3, 4, 5, 103, 104, 105), "treasure_hunter": (3, 5, 7, 11, 13, 15)}


@dataclass(frozen=True)
class Size:
    """How much is played."""

    games: int = 8
    lifetimes: int = 3
    trials: int = 5
    max_steps: int = 12


QUICK = Size(games=2, lifetimes=2, trials=3, max_steps=8)


def tasks(seed: int, games: int) -> list[Task]:
    """The games of a seed: coin collector and treasure hunter in turn."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    chosen = []
    for i in range(games):
        kind = list(LEVELS)[i % len(LEVELS)]
        level = int(rng.choice(LEVELS[kind]))
        game_seed = int(rng.integers(2**31))
        chosen.append(
            Task(
                "agentkit/TextWorld-v0",
                seed=game_seed,
                options={"kind": kind, "level": level},
                name=f"{kind} {level} #{game_seed}",
            )
        )
    return chosen


def main(
    seed: int = 0, *, model: str = "local/smollm2-135m", size: Size | None = None, folder: Path | None = None
) -> int:
    """Run the demo and print what came of it; the last line on standard output is one JSON object. Returns 0."""
    size = size or Size()
    say = Console(stderr=True, highlight=False)
    out = Console(highlight=False)
    folder = folder or _folder(Path("runs/demo"), f"seed-{seed}")
    started = time.monotonic()
    games = tasks(seed, size.games)

    # What is wrong is said before anything is made.
    curves.check_installed()
    _check_folder(folder, games)
    with say.status("Loading the model (fetched on first use, about 100 MB)…") if say.is_terminal else nullcontext():
        llm = get_llm(model)
    if not isinstance(llm, ScoringLLM):
        raise InvalidValue(
            f"the demo's agent weighs actions by their likelihood, which {model} does not tell. Give a local model: "
            "--model local/smollm2-135m, or local/<hub id>."
        )
    _make_games(games, say)
    folder.mkdir(parents=True, exist_ok=True)
    say.print(f"Model: {llm.name}. Log: {folder / 'run.db'}")
    comparison = _play(llm, games, seed, size, folder, say)

    difference = comparison.difference(*ARMS)
    picture = curves.picture(
        comparison,
        ARMS,
        folder / "learning_curve.png",
        title=f"{llm.name} in TextWorld, seed {seed}: memory against retry {difference}",
    )
    out.print(curves.table(comparison, ARMS))
    out.print(curves.terminal(comparison, ARMS), markup=False)
    out.print(
        f"Memory against retry, trials 2 to {size.trials}: {difference} of tasks solved (95%, paired; lifetimes and "
        f"games resampled).",
        markup=False,
    )
    if difference.low is None or difference.low <= 0:
        out.print("The interval holds zero: on this seed the gain is not beyond doubt.")
    for note in comparison.notes:
        out.print(f"note: {note}", markup=False)
    out.print(f"Picture:   {picture}")
    out.print(f"Run log:   {folder / 'run.db'}   look at it: agentkit log {folder / 'run.db'}")
    out.print(f"Memories:  {folder / 'memory-0.db'} …   look at one: agentkit memory stats {folder / 'memory-0.db'}")
    result = {
        "with_memory": [round(rate, 4) for rate in comparison.by_trial("with memory")],
        "retry": [round(rate, 4) for rate in comparison.by_trial("retry")],
        "difference": round(difference.estimate, 4),
        "interval": [
            None if difference.low is None else round(difference.low, 4),
            None if difference.high is None else round(difference.high, 4),
        ],
        "seconds": round(time.monotonic() - started, 1),
        "tokens": comparison.usage.tokens,
    }
    (folder / "result.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result), flush=True)
    return 0


def agents(llm: LLM, folder: Path, memories: ExitStack) -> dict[str, Callable[[int], Agent]]:
    """The two arms: they differ in the memory alone, which ``memories`` closes."""

    def with_memory(lifetime: int) -> Agent:
        return reflexion(llm, memories.enter_context(Memory(folder / f"memory-{lifetime}.db")), lessons=1)

    def retry(_lifetime: int) -> Agent:
        return reflexion(llm, None, lessons=1)

    return {"with memory": with_memory, "retry": retry}


def _play(llm: LLM, games: list[Task], seed: int, size: Size, folder: Path, say: Console) -> Comparison:
    total = len(ARMS) * size.lifetimes * size.games * size.trials
    solved = dict.fromkeys(ARMS, 0)
    played = dict.fromkeys(ARMS, 0)
    memories = ExitStack()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=say,
        disable=not say.is_terminal,
    )
    with memories, bar:
        row = bar.add_task("episodes", total=total)

        def progress(arm: str, lifetime: int, episode: Episode) -> None:
            solved[arm] += episode.success
            played[arm] += 1
            rates = ", ".join(f"{name} {solved[name]} of {played[name]}" for name in ARMS)
            bar.update(row, advance=1, description=f"lifetime {lifetime + 1}/{size.lifetimes}; solved: {rates}")
            done = sum(played.values())
            if not say.is_terminal and done % max(1, total // 12) == 0:
                say.print(f"{done} of {total} episodes; solved: {rates}")

        return compare(
            agents(llm, folder, memories),
            games,
            lifetimes=size.lifetimes,
            trials=size.trials,
            seed=seed,
            workers=4,
            max_steps=size.max_steps,
            log=folder / "run.db",
            progress=progress,
        )


def _make_games(games: list[Task], say: Console) -> None:
    from agentkit.envs.textworld_games import generate_games

    wanted: list[dict[str, Any]] = [{**task.options, "seed": task.seed} for task in games]
    with Progress(console=say, disable=not say.is_terminal) as bar:
        row = bar.add_task("Making the games", total=len(wanted))
        if not say.is_terminal:
            say.print(f"Making {len(wanted)} games (those of an earlier run are kept)…")
        generate_games(wanted, progress=lambda done, total: bar.update(row, completed=done, total=total))


def _check_folder(folder: Path, games: list[Task]) -> None:
    """Refuse a folder that cannot be had, or that holds a demo of other games."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InvalidValue(
            f"nothing can be written to {folder}: {there} is no folder, or not yours. Give another --folder."
        )
    if not (folder / "run.db").exists():
        return
    with RunLog(folder / "run.db") as log:
        for row in log.query("select config from runs limit 1"):
            if [task["name"] for task in json.loads(row["config"])["tasks"]] != [task.name for task in games]:
                raise InvalidValue(
                    f"{folder} holds a demo of other games. Give the --seed and the size (--quick) that it was begun "
                    "with to go on with it, or another --folder."
                )


def _folder(parent: Path, name: str) -> Path:
    """Where this run goes: on with one that was cut off, else a folder of its own."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not (folder / "result.json").exists():
            return folder
        number += 1
