"""Runs programs that are not trusted: see `Sandbox`, and docs/sandbox.md."""

from agentkit.envs.sandbox.core import Sandbox
from agentkit.envs.sandbox.inside.program import CallError
from agentkit.envs.sandbox.launch import WALLS, Wall
from agentkit.envs.sandbox.shared import Lease
from agentkit.envs.sandbox.values import (
    Ended,
    Level,
    Limits,
    ProgramInterrupted,
    SandboxResult,
    SandboxUnavailable,
    TestResult,
    Verdict,
)

__all__ = [
    "WALLS",
    "CallError",
    "Ended",
    "Lease",
    "Level",
    "Limits",
    "ProgramInterrupted",
    "Sandbox",
    "SandboxResult",
    "SandboxUnavailable",
    "TestResult",
    "Verdict",
    "Wall",
]
