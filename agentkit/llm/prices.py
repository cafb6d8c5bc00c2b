"""What models cost: litellm's table, read from its file without importing it."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    spec = importlib.util.find_spec("litellm")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "model_prices_and_context_window_backup.json"
        if path.is_file():
            table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return table
    return {}


def prices_of(name: str) -> tuple[float, float] | None:
    """Dollars per prompt token and per answer token of the model that agentkit calls ``name``, or None."""
    _, _, model = name.partition("/")
    for key in (model, name, model.rpartition("/")[2]):
        entry = _table().get(key)
        if entry and "input_cost_per_token" in entry and "output_cost_per_token" in entry:
            return float(entry["input_cost_per_token"]), float(entry["output_cost_per_token"])
    return None
