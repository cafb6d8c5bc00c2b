"""Names and what they stand for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentkit import registry
from agentkit.errors import InvalidValue, UnknownName
from agentkit.memory import HashingEmbedder


def test_every_registered_name_leads_somewhere() -> None:
    import agentkit.llm  # fills its own table when a model is asked for

    with pytest.raises(UnknownName):
        agentkit.llm.get_llm("nothing/at-all")
    for kind in registry.TABLES:
        for name in registry.names(kind):
            missing = ""
            try:
                assert registry.get(kind, name) is not None
            except ImportError as error:  # an extra that is not installed, never a module of ours
                missing = error.name or ""
            assert not missing.startswith("agentkit"), f"{kind} {name}: {missing}"


def test_a_name_is_found_and_a_wrong_one_answers_with_the_nearest() -> None:
    assert registry.get("embedders", "hashing") is HashingEmbedder
    with pytest.raises(UnknownName, match=r"unknown embedder 'hasing'\. Did you mean 'hashing'"):
        registry.get("embedders", "hasing")
    with pytest.raises(UnknownName, match="unknown kind 'embeders'"):
        registry.get("embeders", "hashing")
    with pytest.raises(UnknownName, match="unknown policy 'q'"):
        registry.get("policies", "q")
    with pytest.raises(KeyError):
        registry.names("planets")


def test_a_name_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TABLES, "critics", {})
    registry.register("critics", "mine", "agentkit.critic.base:EnvironmentCritic")
    assert registry.names("critics") == ["mine"]
    assert registry.get("critics", "mine").__name__ == "EnvironmentCritic"  # type: ignore[attr-defined]
    for target in ("", "module", ":attr", "module:"):
        with pytest.raises(InvalidValue, match="module:attribute"):
            registry.register("critics", "bad", target)


def test_another_distribution_adds_names_by_entry_points(tmp_path: Path) -> None:
    (tmp_path / "their_package.py").write_text("def make_agent():\n    return 'theirs'\n")
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[agentkit.agents]\ntheirs = their_package:make_agent\n")
    program = (
        "import sys\nfrom agentkit import registry\nassert 'theirs' in registry.names('agents')\n"
        "assert 'their_package' not in sys.modules\nprint(registry.get('agents', 'theirs')())"
    )
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": path}, cwd=tmp_path
    )
    assert (result.stdout.strip(), result.returncode) == ("theirs", 0), result.stderr
