"""What a sandbox is asked and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agentkit.errors import AgentkitError


class SandboxUnavailable(AgentkitError, OSError):
    """This machine has no isolation that a sandbox can use, and unisolated runs were not allowed."""


class ProgramInterrupted(AgentkitError, RuntimeError):
    """Raised by a host function to end the program that called it; its message becomes `SandboxResult.note`."""


class Level(StrEnum):
    """What stood between a program and the machine.

    ``bubblewrap`` and ``namespaces`` hold the same things out (files, network, environment, other processes); they
    differ in who built the wall. ``none`` is a process with limits and nothing else.
    """

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    NONE = "none"


class Ended(StrEnum):
    """How an execution ended."""

    OK = "ok"
    """The process exited with status 0. It says nothing of what the program computed: see `Sandbox.judge`."""
    ERROR = "error"
    """An uncaught exception, another exit status, or a crash such as a segmentation fault."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    INTERRUPTED = "interrupted"
    """A host function ended it (`ProgramInterrupted`)."""
    KILLED = "killed"
    """Ended from outside for no reason above: the sandbox was closed, or its server died."""
    REFUSED = "refused"
    """It did not run: no isolation is to be had."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits of one execution. ``memory_mb`` bounds the address space of each process and the resident memory of
    all of them together; ``scratch_mb`` and ``scratch_files`` bound the scratch folder; ``output_bytes`` bounds
    standard output and standard error, each; ``processes`` counts processes and threads."""

    memory_mb: int = 512
    processes: int = 16
    file_mb: int = 16
    scratch_mb: int = 64
    scratch_files: int = 4096
    open_files: int = 64
    output_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What came of one execution.

    ``stdout`` and ``stderr`` hold what was printed, cut at the limit; an uncaught exception's traceback is in
    ``stderr``. ``exit_code`` is the exit status, or minus the signal's number, or None when it did not run.
    ``wall_s`` counts from the program's start, ``cpu_s`` and ``memory_mb`` (peak, of one process) are the kernel's
    count. ``note`` says in words why it ended, where there is more to say.
    """

    ended: Ended
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    level: Level = Level.NONE
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the process exited with status 0."""
        return self.ended is Ended.OK


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test: ``message`` is the line that failed and what it raised, empty when it passed."""

    __test__ = False  # not a test case of pytest's

    passed: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests say of a program. ``tests`` holds one result for each test that ran; ``program`` and ``judge``
    say how the two processes ended; ``note`` says why no test could run."""

    passed: bool
    tests: tuple[TestResult, ...] = ()
    program: SandboxResult = field(default_factory=lambda: SandboxResult(Ended.REFUSED))
    judge: SandboxResult = field(default_factory=lambda: SandboxResult(Ended.REFUSED))
    note: str = ""
