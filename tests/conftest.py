"""What all tests share: no model is called over the network, no key of yours is used, published logs are found."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A deadline would measure the machine, not the code.
hypothesis.settings.register_profile("agentkit", deadline=None, print_blob=True)
hypothesis.settings.load_profile("agentkit")

ROOT = Path(__file__).resolve().parents[1]
_HERE = ("127.", "::1", "localhost", "0.0.0.0")
_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY", "HF_TOKEN")


class OutsideRefused(PermissionError):
    """A test reached for another machine."""


@pytest.fixture(autouse=True)
def _no_calls_to_the_outside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connections leave this machine only where a test says so: ``@pytest.mark.model`` may fetch the embedded model."""
    from agentkit.llm.remote import allow_network

    for key in _KEYS:
        monkeypatch.delenv(key, raising=False)
    before = allow_network(False)
    if request.node.get_closest_marker("model") is None:
        connect = socket.socket.connect

        def only_here(self: socket.socket, address: Any) -> Any:
            if isinstance(address, tuple) and not str(address[0]).startswith(_HERE):
                raise OutsideRefused(f"a test connects to {address}: use a server on loopback, or a scripted model")
            return connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", only_here)
    yield
    allow_network(before)


@pytest.fixture(autouse=True)
def _no_environment_left_open() -> Iterator[None]:
    """A test closes the environments it makes: one left open keeps a sandbox's processes, which the next test sees."""
    before = _leases()
    yield
    assert _leases() <= before, f"{_leases() - before} leases of a sandbox are still held: close the environment"


def _leases() -> int:
    shared = sys.modules.get("agentkit.envs.sandbox.shared")
    return sum(count for _, count in shared._shared.values()) if shared is not None else 0


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of published logs: ``AGENTKIT_FIXTURES``, or ``../shared/fixtures`` beside the checkout."""
    folder = Path(os.environ.get("AGENTKIT_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    if not folder.is_dir():
        message = f"SKIPPED, NOT PASSED: no published logs in {folder}. Set AGENTKIT_FIXTURES to their folder."
        warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
