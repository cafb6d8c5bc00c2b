"""The values of the skill library: a version of a skill, where it is in its life, and what runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from agentkit.errors import InvalidValue
from agentkit.memory.records import Record


class Execution(Protocol):
    """What came of a run: whether the program ended by itself without an error, and what it printed."""

    @property
    def ok(self) -> bool: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


class Executor(Protocol):
    """Runs a Python program apart from this process; `agentkit.envs.sandbox.Sandbox` is one."""

    def run(self, code: str, *, timeout_s: float) -> Execution:
        """Run ``code`` as a script for at most ``timeout_s`` seconds. Never raises for what the program does."""


class Status(StrEnum):
    """Where a version of a skill is in its life. The value is the kind of its record: only ``"skill"`` is in use."""

    PROPOSED = "skill_proposed"
    ADMITTED = "skill"
    DEMOTED = "skill_demoted"
    SUPERSEDED = "skill_superseded"


@dataclass(frozen=True, slots=True)
class Skill:
    """One version of a skill.

    ``code`` defines the function or class ``name``; it may call the skills it ``requires``. ``tests`` is a program that
    runs after it and raises when the skill is wrong; ``evidence`` says what speaks for a skill that has none (an
    episode in which it succeeded). ``reason`` is why it is not admitted. ``verified_with`` are the versions of the
    skills below it that it passed with. A ``held`` skill was demoted by hand, and only `SkillLibrary.verify` brings it
    back.
    """

    name: str
    code: str
    description: str
    signature: str
    requires: tuple[str, ...] = ()
    tests: str = ""
    evidence: str = ""
    version: int = 1
    status: Status = Status.PROPOSED
    reason: str = ""
    verified_with: Mapping[str, int] = field(default_factory=dict)
    held: bool = False
    task: str = ""
    episode: str = ""
    id: int = 0

    @classmethod
    def of(cls, record: Record) -> Skill:
        """The skill that a record of the library holds. Raises `InvalidValue` for another record."""
        if record.kind not in set(Status):
            raise InvalidValue(f"record {record.id} is of kind {record.kind!r}: it holds no skill")
        data = record.data
        return cls(
            name=data["name"],
            code=data["code"],
            description=data["description"],
            signature=data["signature"],
            requires=tuple(data["requires"]),
            tests=data["tests"],
            evidence=data["evidence"],
            version=data["version"],
            status=Status(record.kind),
            reason=data["reason"],
            verified_with=dict(data["verified_with"]),
            held=data["held"],
            task=record.task,
            episode=record.episode,
            id=record.id,
        )

    def render(self, *, whole: bool = False) -> str:
        """What a prompt shows: the signature and the description, or the ``whole`` program."""
        if whole:
            return self.code.strip("\n")
        return "\n".join([self.signature, *(f"    {line}" for line in self.description.splitlines())])

    def _data(self) -> dict[str, object]:
        return {
            "name": self.name,
            "code": self.code,
            "description": self.description,
            "signature": self.signature,
            "requires": list(self.requires),
            "tests": self.tests,
            "evidence": self.evidence,
            "version": self.version,
            "reason": self.reason,
            "verified_with": dict(self.verified_with),
            "held": self.held,
        }
