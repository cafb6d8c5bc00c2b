"""Generates TextWorld games, in a process of its own: ``python -P textworld_worker.py``.

A process of its own because generation uses global state of the packages, looks for grammars in the working folder,
and has to give the same game whatever the hash seed of the caller. It reads one JSON request a line from standard
input and answers each with one JSON line on standard output.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any


def make_game(kind: str, settings: dict[str, Any], seed: int, target: Path) -> None:
    """Generate and compile one game to ``target`` (.z8) and its description beside it (.json)."""
    import numpy as np
    import textworld
    from textworld.challenges import CHALLENGES
    from textworld.generator import GameOptions, compile_game

    textworld.g_rng.set_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=target.parent))
    try:
        options = GameOptions()
        options.seeds = seed
        options.path = str(folder / "game.z8")
        options.grammar.only_last_action = settings.pop("instructions", None) == "last"
        if kind == "quest":
            options.nb_rooms, options.nb_objects = settings["rooms"], settings["objects"]
            options.quest_length = settings["length"]
            game = textworld.generator.make_game(options)
        else:
            _, make, _ = CHALLENGES[f"tw-{kind}"]
            GameMaker = textworld.GameMaker
            compile_whole = GameMaker.compile
            if kind == "coin_collector":
                GameMaker.compile = save_logic
            try:
                game = make(settings, options)
            finally:
                GameMaker.compile = compile_whole
        compile_game(game, options)
        # The .z8 comes last: where it is, the game is whole.
        os.replace(folder / "game.json", target.with_suffix(".json"))
        os.replace(folder / "game.z8", target)
    finally:
        shutil.rmtree(folder)


def parse_grammars_once() -> None:
    """Parse grammar files of the same content once: the package ships several copies of a large one."""
    from textworld.textgen import TextGrammar

    parse = functools.cache(TextGrammar.parse)

    def parse_once(grammar: str, filename: str | None = None) -> Any:  # noqa: ARG001  the package names the argument
        return parse(grammar)

    TextGrammar.parse = parse_once


def save_logic(maker: Any, path: str) -> str:
    """In place of ``GameMaker.compile``: the game's logic alone, on which a walkthrough can be recorded too.

    It saves the first of a coin collector game's two runs of the compiler. Other kinds have walkthroughs with commands
    that only the compiled game understands.
    """
    maker._working_game = maker.build()
    target = os.path.splitext(path)[0] + ".json"
    maker._working_game.save(target)
    return target


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the packages print goes to standard error
    parse_grammars_once()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            make_game(request["kind"], request["settings"], request["seed"], Path(request["target"]))
            answer = {"error": ""}
        except Exception as error:  # one game that cannot be made must not end the others
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
