"""The code on the pages about agents runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "agents.md", DOCS / "ablation.md", *sorted((DOCS / "agents").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), space)


def test_every_agent_has_a_page() -> None:
    from agentkit import registry

    text = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in registry.names("agents"):
        target = registry.TABLES["agents"][name].partition(":")[2]
        assert f"{target}(" in text, name
