"""reasoning-gym (Stojanovski et al., 2025): a hundred kinds of generated puzzles with verifiers, one answer each.

Needs the extra ``reasoning-gym``. See docs/worlds/reasoning_gym.md.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, overload

from agentkit.envs.extras import require
from agentkit.envs.questions import Question, QuestionEnv
from agentkit.envs.tasks import as_dict, checked, choose, read_options
from agentkit.errors import InvalidValue

# Found by judging reference answers and junk; the reasons are told to whoever asks for one.
UNRELIABLE = {
    "codeio": "its items differ from process to process",
    "game_of_life_halting": "its verifier gives full score to junk",
}
_PLAIN = frozenset({"gold", "index"})  # options that leave the data set as it is
_lock = threading.Lock()


class _Items(Sequence[Question]):
    """The items of a data set, made when they are asked for."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> list[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | list[Question]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        item = self._data[index]
        return Question(item["question"], str(item["answer"]), item)


class ReasoningGymEnv(QuestionEnv):
    """A puzzle of reasoning-gym.

    Args:
        dataset: the kind, ``leg_counting``, ``basic_arithmetic``, ``countdown``, …
        size: how many puzzles there are of it; a seed asks number ``seed % size``.
        attempts: how often the agent may answer.
        dataset_seed: another one gives other puzzles.
        config: the data set's own settings, ``{"max_animals": 4}``.

    Options of ``reset``: ``dataset``, ``config``, ``index``, ``gold``. The score is the package's verifier's, and
    success the full score. Two kinds are refused because their puzzles or verifiers are not sound, see `UNRELIABLE`.
    """

    def __init__(
        self,
        dataset: str = "leg_counting",
        size: int = 500,
        *,
        attempts: int = 1,
        dataset_seed: int = 0,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._package = require("reasoning_gym", "reasoning-gym", "reasoning-gym")
        self._factory = require("reasoning_gym.factory", "reasoning-gym", "reasoning-gym")
        self._size = checked("size", size, int, low=1)
        self._dataset_seed = checked("dataset_seed", dataset_seed, int, low=0)
        self._defaults = {"dataset": dataset, "config": as_dict("config", config)}
        self._chosen: dict[str, Any] = {}
        super().__init__([Question("", "")], verify=self._judge, attempts=attempts, goal="Solve the puzzle.")
        self._select(self._defaults)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        plain = options is None or (options.__class__ is dict and _PLAIN.issuperset(options))
        if plain and self._chosen is self._defaults:
            return super().reset(seed=seed, options=options)
        given = as_dict("options", options)
        read_options(given, {**self._defaults, "index": None})  # raises for what is none
        ours = {k: v for k, v in given.items() if k in self._defaults}
        if "dataset" in ours and ours["dataset"] != self._defaults["dataset"]:
            ours.setdefault("config", {})  # settings belong to their data set
        self._select({**self._defaults, **ours})
        return super().reset(seed=seed, options={k: v for k, v in given.items() if k not in ours})

    def _select(self, chosen: dict[str, Any]) -> None:
        if chosen == self._chosen:
            return
        name = choose("dataset", chosen["dataset"], sorted(self._factory.DATASETS))
        if name in UNRELIABLE:
            raise InvalidValue(f"the data set {name!r} is not used: {UNRELIABLE[name]}")
        try:
            with _lock:
                data = self._package.create_dataset(name, size=self._size, seed=self._dataset_seed, **chosen["config"])
        except (TypeError, AssertionError) as error:
            raise InvalidValue(f"the data set {name!r} does not take config={chosen['config']!r}: {error}") from None
        self._data, self._questions, self._chosen = data, _Items(data), chosen

    def _judge(self, answer: str, question: Question) -> float:
        return float(self._data.score_answer(answer, entry=dict(question.data)))
