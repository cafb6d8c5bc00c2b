"""TextWorldExpress (Jansen & Côté, 2022): eight text games with official train, dev and test seeds.

Needs the extra ``textworld-express`` and Java. See docs/worlds/textworld_express.md.
"""

from __future__ import annotations

import json
import re
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.extras import require
from agentkit.envs.jvm import Jvm
from agentkit.envs.spaces import check_action, clean, one_line, text_space
from agentkit.envs.tasks import by_seed, checked, choose, read_options
from agentkit.errors import InvalidValue

_PARAMS = re.compile(r"\s*\w+\s*=\s*\w+\s*(,\s*\w+\s*=\s*\w+\s*)*")
FOLDS = ("train", "dev", "test")


class TextWorldExpressEnv(gymnasium.Env[str, str]):
    """A TextWorldExpress game.

    Args:
        game: ``cookingworld``, ``twc``, ``coin``, ``mapreader``, ``arithmetic``, ``sorting``, ``simonsays``,
            ``peckingorder`` and their variants.
        fold: ``train``, ``dev`` or ``test``, of 1,000 seeds each.
        params: the game's own settings, ``"numLocations=3, includeDoors=0"``.

    A seed plays number ``seed`` of the fold's official seeds. Options of ``reset``: ``game``, ``fold``, ``params``,
    ``game_seed`` (an official seed itself) and ``gold``.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, game: str = "cookingworld", fold: str = "train", params: str = "") -> None:
        package = require("textworld_express", "textworld-express", "textworld-express")
        self.observation_space, self.action_space = text_space(), text_space(300)
        self._defaults = {"game": game, "fold": fold, "params": _check_params(params), "game_seed": None}
        choose("fold", fold, FOLDS)
        self._jvm = Jvm(package.constants.JAR_PATH, "textworldexpress.runtime.PythonInterface")
        self._world = self._jvm.world
        self._games = [str(name) for name in self._world.getGameNames()]
        choose("game", game, self._games)
        self._loaded: tuple[str, str] | None = None
        self._pools: dict[str, list[int]] = {}
        self._score = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, self._defaults, game_seed=int)
        key = choose("game", chosen["game"], self._games), _check_params(chosen["params"])
        fold = choose("fold", chosen["fold"], FOLDS)
        if key != self._loaded:
            self._loaded = None
            if problem := self._world.load(*key):
                raise InvalidValue(f"TextWorldExpress does not take params={key[1]!r} for {key[0]}: {problem}")
            self._loaded, self._pools = key, {}
        if fold not in self._pools:
            self._pools[fold] = list(getattr(self._world, f"getSeeds{fold.capitalize()}")())
        game_seed = chosen["game_seed"]
        if game_seed is None:
            game_seed = by_seed(self._pools[fold], seed, self.np_random)
        elif game_seed not in self._pools[fold]:
            raise InvalidValue(
                f"game_seed={game_seed!r} is not one of the {fold} fold's {len(self._pools[fold])} seeds"
            )
        answer = json.loads(self._world.generateNewGameJSON(int(game_seed), fold, bool(chosen["gold"])))
        if answer["observation"].startswith("ERROR:"):  # a setting with a value of the wrong kind is told only here
            self._loaded = None
            raise InvalidValue(f"TextWorldExpress cannot make {key[0]} with params={key[1]!r}: {answer['observation']}")
        self._score = 0.0
        goal = str(self._world.getTaskDescription())
        info = {"goal": goal, "admissible_actions": sorted(set(answer["validActions"]))}
        if chosen["gold"]:
            info["gold"] = list(self._world.getGoldActionSequence())
        return clean(answer["observation"]), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        answer = json.loads(self._world.stepJSON(one_line(action, 300)))
        score, success = float(answer["score"]), bool(answer["tasksuccess"])
        reward, self._score = score - self._score, score
        over = success or bool(answer["taskfailure"])
        info: dict[str, Any] = {
            "success": success,
            "score": min(1.0, max(0.0, score)),
            "admissible_actions": [] if over else sorted(set(answer["validActions"])),
        }
        text = clean(answer["observation"])
        if text.startswith(("I'm not sure", "That is not a valid", "Unknown")):
            info["feedback"] = text
        return text, reward, over, False, info

    def close(self) -> None:
        self._jvm.close()


def _check_params(params: object) -> str:
    text = checked("params", params, str)
    if text and not _PARAMS.fullmatch(text):
        raise InvalidValue(f'params={text!r}: settings such as "numLocations=3, includeDoors=0" are needed')
    return text
