"""Optional packages, and where worlds keep what they made."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from agentkit.errors import AgentkitError, MissingExtra


class MissingProgram(AgentkitError, FileNotFoundError):
    """A program that is not a Python package is not installed."""


def require(module: str, package: str, extra: str) -> Any:
    """The imported ``module``, or `MissingExtra` with the pip command for the distribution ``package``."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is there and lacks something of its own: its message says what
        raise MissingExtra.of(package, extra) from None


def cache_folder(*parts: str) -> Path:
    """``AGENTKIT_CACHE`` or ``~/.cache/agentkit``, with ``parts`` below it, made if it is not there."""
    base = os.environ.get("AGENTKIT_CACHE")
    folder = (Path(base).expanduser() if base else Path.home() / ".cache" / "agentkit").joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
