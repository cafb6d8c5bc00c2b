"""The code of docs/models.md runs, and prints what the page says: on a recording, and on the model itself.

With ``AGENTKIT_RECORD=1`` the first test makes the recording anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import agentkit.llm
from agentkit.llm import LLM, Recorded, get_llm

DOCS = Path(__file__).parents[3] / "docs"
RECORDING = DOCS / "recordings" / "models.sqlite"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "models.md").read_text(encoding="utf-8"), re.DOTALL)
MODEL = "local/smollm2-135m"


def check_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Run the blocks in order; each `print` with a comment must have printed what the comment begins with."""
    space: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/models.md, block {number + 1}", "exec"), space)
        printed = capsys.readouterr().out.splitlines()
        prints = re.findall(r"^\s*print\(.*\)(?:  # (.*))?$", block, re.MULTILINE)
        for line, said in zip(printed, prints, strict=True):
            assert said.startswith(line) or not said, f"block {number + 1} printed {line!r}"


def test_the_page_is_true_on_a_recording(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    again = bool(os.environ.get("AGENTKIT_RECORD"))
    recorded = Recorded(get_llm(MODEL) if again else MODEL, RECORDING, mode="record" if again else "replay")

    def get(name: str, **options: Any) -> LLM:
        return recorded if name == MODEL else get_llm(name, **options)

    monkeypatch.setattr(agentkit.llm, "get_llm", get)
    check_page(capsys)
    recorded.close()


@pytest.mark.model
def test_the_page_is_true_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    check_page(capsys)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 6
