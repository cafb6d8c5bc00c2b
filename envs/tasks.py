"""What the worlds share: reading the options of ``reset``, and choosing by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from agentkit.errors import InvalidValue, UnknownName

T = TypeVar("T")


def read_options(options: Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` with what ``options`` changes. Raises `UnknownName` for an option that there is not."""
    given = dict(options or {})
    for name in given:
        if name not in defaults:
            raise UnknownName.among("option", name, defaults)
    return {**defaults, **given}


def choose(kind: str, name: object, known: Iterable[str]) -> str:
    """``name``, which must be among ``known``. Raises `UnknownName` with the nearest."""
    names = list(known)
    if name not in names:
        raise UnknownName.among(kind, str(name), names)
    return str(name)


def by_seed(items: Sequence[T], seed: int | None, random: np.random.Generator) -> T:
    """The item that an episode gets: number ``seed`` (modulo how many there are), or a drawn one without a seed."""
    if not items:
        raise InvalidValue("there is nothing to choose from")
    return items[seed % len(items) if seed is not None else int(random.integers(len(items)))]
