"""The embedded model, loaded once for all tests that need it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentkit.llm import LocalLLM


@pytest.fixture(scope="session")
def smollm2() -> Iterator[LocalLLM]:
    """The embedded model with two workers."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from agentkit.llm import LocalLLM

    llm = LocalLLM("smollm2-135m", workers=2)
    yield llm
    llm.close()
