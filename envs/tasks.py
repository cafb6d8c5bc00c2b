"""What the worlds share: checking what they are given, reading the options of ``reset``, and choosing by seed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agentkit.errors import ContractError, InvalidValue, UnknownName

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
_WORDS: dict[type, str] = {
    bool: "True or False",
    dict: "a dict",
    float: "a number",
    int: "an integer",
    str: "a text",
}


def checked(name: str, value: object, kind: type[T], *, low: float | None = None, high: float | None = None) -> T:
    """``value``, which must be of ``kind`` and in [low, high]. Raises `InvalidValue` that says what is needed.

    A truth value is no number here, and an integer will do for a float.
    """
    right: object = value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        right = float(value)
    fits = isinstance(right, kind) and (kind is bool or not isinstance(right, bool))
    if fits and isinstance(right, int | float):
        fits = (low is None or right >= low) and (high is None or right <= high)  # NaN is nowhere
    if not (fits and isinstance(right, kind)):
        wanted, shown = _WORDS.get(kind, f"a {kind.__name__}"), repr(value)
        if low is not None:
            wanted += f" of at least {low}" if high is None else f" in [{low}, {high}]"
        raise InvalidValue(f"{name}={shown if len(shown) <= 80 else shown[:80] + '…'}: {wanted} is needed")
    return right


def read_options(options: Mapping[str, Any] | None, defaults: Mapping[str, Any], **kinds: type) -> dict[str, Any]:
    """``defaults`` with what ``options`` changes.

    An option is of its default's type; one without a default is of the type in ``kinds``, or None. ``gold`` is an
    option of every world. Raises `UnknownName` for an option that there is not, `InvalidValue` for a wrong value.
    """
    known = {"gold": False, **defaults}
    if not options:
        return known
    if not isinstance(options, dict):
        options = as_dict("options", options)
    for name, value in options.items():
        if name not in known:
            raise UnknownName.among("option", str(name), known)
        default = known[name]
        kind = kinds.get(name) if default is None else type(default)
        if value.__class__ is not kind and kind is not None and not (value is None and default is None):
            checked(name, value, kind)
    return known | options


def as_dict(name: str, value: object) -> dict[str, Any]:
    """``value`` as a dict of its own, None as an empty one. Raises `InvalidValue` for what is no mapping."""
    if value is None:
        return {}
    return dict(value) if isinstance(value, Mapping) else checked(name, value, dict)


def as_path(name: str, value: object) -> Path:
    """``value`` as a path. Raises `InvalidValue` for what is none."""
    if not isinstance(value, str | Path) or "\0" in str(value):
        raise InvalidValue(f"{name}={value!r}: the path of a file is needed")
    return Path(value)


def as_score(what: str, value: Any) -> float:
    """What the function ``what`` returned, as a number in [0, 1]. Raises `ContractError` for what is no number."""
    try:
        score = float("" if isinstance(value, str) else value)
    except (TypeError, ValueError):
        score = math.nan
    if score != score:  # NaN
        raise ContractError(f"{what} returned {value!r}: it must return a number in [0, 1], or True or False")
    return min(1.0, max(0.0, score))


def check_names(what: str, target: Callable[..., Any], given: Iterable[str]) -> None:
    """Raise `UnknownName` for a name that is no argument of ``target``. What takes any name checks them itself."""
    parameters = inspect.signature(target).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in given:
        if name not in known:
            raise UnknownName.among(f"argument of {what}", name, known)


def choose(kind: str, name: object, known: Iterable[str]) -> str:
    """``name``, which must be among ``known``. Raises `UnknownName` with the nearest, `InvalidValue` for no text."""
    names = list(known)
    if not isinstance(name, str):
        raise InvalidValue(f"{kind}={name!r}: a text is needed, for example {' or '.join(map(repr, names[:3]))}")
    if name not in names:
        raise UnknownName.among(kind, name, names)
    return name


def by_seed(items: Sequence[T], seed: int | None, random: np.random.Generator) -> T:
    """The item that an episode gets: number ``seed`` (modulo how many there are), or a drawn one without a seed."""
    if not items:
        raise InvalidValue("there is nothing to choose from")
    return items[seed % len(items) if seed is not None else int(random.integers(len(items)))]
