"""The sandbox: runs a program that is not trusted, and judges one by tests that it cannot see."""

from __future__ import annotations

import contextlib
import operator
import os
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

from agentkit.envs.sandbox.ahead import bytecode, calls_ahead
from agentkit.envs.sandbox.host import HostFunctions, Server
from agentkit.envs.sandbox.judges import FreshJudge, LastingJudge
from agentkit.envs.sandbox.launch import WALLS, Wall
from agentkit.envs.sandbox.values import Ended, Level, Limits, SandboxResult, SandboxUnavailable, TestResult, Verdict
from agentkit.errors import InvalidValue

_JUDGE_EXTRA_S = 2.0


class Sandbox:
    """Runs programs that are not trusted, each in a fresh process that can reach nothing.

    A program sees Python's standard library and an empty scratch folder, its only writable place. It has no network,
    no environment, no files of the user, no other processes, and hard limits (`Limits`). Its process is forked from a
    warm parent, behind a wall that the operating system builds (`Level`); the result says which. Where no wall can be
    had, programs are refused, unless ``allow_unisolated`` is true.

    ``packages`` names installed packages that programs may import. Safe to use from many threads: each execution takes
    an idle server or starts one. Use it as a context manager, or `close` it.

    >>> with Sandbox() as sandbox:
    ...     sandbox.run("print(6 * 7)").stdout
    '42\\n'
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        packages: Sequence[str] = (),
        allow_unisolated: bool = False,
        wall: Wall | None = None,
    ) -> None:
        """``wall`` forces one kind of isolation (one of `WALLS`) instead of the first that holds here."""
        self.limits = limits or Limits()
        self._packages = tuple(packages)
        self._allow_unisolated = allow_unisolated
        self._forced = wall
        self._found: Wall | None = None
        self._reasons = ""
        self._probed = False
        self._lock = threading.Lock()
        self._idle: list[Server] = []
        self._judges: list[LastingJudge] = []
        self._closed = False
        self._finalizer = weakref.finalize(self, _close_all, self._idle, self._judges)

    @property
    def level(self) -> Level:
        """The isolation that programs get. Raises `SandboxUnavailable` where there is none and none was allowed."""
        self._probe()
        return Level.NONE if self._found is None else self._found.level

    def run(
        self,
        code: str,
        *,
        timeout_s: float = 5.0,
        stdin: str = "",
        files: Mapping[str, str] | None = None,
        calls: HostFunctions | None = None,
        calls_module: str = "world",
        seed: int = 0,
    ) -> SandboxResult:
        """Run ``code`` as a script, at most ``timeout_s`` seconds, and say what came of it.

        ``files`` (relative path -> text) are put into the scratch folder first, which is the working folder and on the
        import path. ``calls`` are functions of the host that the program may call by name, or import from the module
        ``calls_module``; arguments and results cross as plain data, exceptions that are standard ones are raised in
        the program, and a function that raises `ProgramInterrupted` ends it. ``seed`` seeds ``random``; string hashes
        are fixed, so a program prints the same thing each time. Never raises for what the program does; raises what a
        function of ``calls`` raises that is no mistake of the program's (say, OSError), and `InvalidValue` for what is
        no string or no path.
        """
        request = {
            "role": "program",
            "code": _text("the code", code),
            "seed": operator.index(seed),
            **({"stdin": _text("stdin", stdin)} if stdin else {}),
            **({"files": _checked_files(files)} if files else {}),
            **({"calls": sorted(calls), "calls_module": _text("calls_module", calls_module)} if calls else {}),
        }
        try:
            server = self._take()
        except SandboxUnavailable as error:
            return SandboxResult(Ended.REFUSED, note=str(error))
        try:
            return server.execute(request, _positive(timeout_s), calls=calls, output=True).wait()
        finally:
            self._give_back(server)

    def judge(
        self,
        program: str,
        tests: Sequence[str],
        *,
        entry_point: str = "",
        prelude: str = "",
        timeout_s: float = 5.0,
        seed: int = 0,
        stop_at_first: bool = False,
        explain: bool = False,
        trusted: bool = False,
    ) -> Verdict:
        """Whether ``program`` passes ``tests``, where the program can neither see the tests nor touch the verdict.

        Two processes that share nothing but a socket: the program serves its functions, the judge runs the tests and
        calls them. Only plain data crosses, so expected values stay with the judge, comparisons are the judge's own,
        and nothing that the program prints, patches or exits with counts. Each test is a script with its own globals;
        ``prelude`` (trusted code) runs before each; names that neither defines are looked up in the program;
        ``entry_point`` is always the program's own function. A function as an argument cannot cross: such a test fails
        and says so. ``explain`` adds to each failed ``assert a == b`` what ``a`` was: for tests that may be shown.

        ``trusted`` says that no model wrote the tests or the prelude. The judge then lives on for the next program, as
        long as the tests leave its modules alone, which halves the time; without it each judging has a new judge.

        Raises `InvalidValue` where ``tests`` is no list of strings.
        """
        timeout_s = _positive(timeout_s)
        if isinstance(tests, str):
            raise InvalidValue("tests is one string; give a list of tests.")
        tests = tuple(_text("a test", test) for test in tests)
        entry_point, prelude = _text("entry_point", entry_point), _text("the prelude", prelude)
        ahead, seed = calls_ahead(tests, entry_point, prelude), operator.index(seed)
        serve = {"role": "serve", "code": _text("the program", program), "ahead": ahead, "seed": seed}
        request = {
            "role": "judge",
            "tests": tests,
            "entry_point": entry_point,
            "prelude": prelude,
            "stop_at_first": stop_at_first,
            "explain": explain,
            "bytecode": bytecode(tests, prelude) if trusted and not explain else {},
            "ahead": ahead,
            "seed": seed,
        }
        try:
            served = self._take()
        except SandboxUnavailable as error:
            return Verdict(False, note=str(error))
        try:
            judge = self._take_judge() if trusted else FreshJudge(self._take())
            try:
                candidate = served.execute(serve, timeout_s)
                with candidate.channel:
                    judge.begin(request, candidate.channel, timeout_s + _JUDGE_EXTRA_S)
                said, judge_result = judge.wait()
                candidate_result = candidate.wait()
            finally:
                self._give_back_judge(judge)
        except SandboxUnavailable as error:
            return Verdict(False, note=str(error))
        finally:
            self._give_back(served)
        return _verdict(len(tests), said, candidate_result, judge_result)

    def close(self) -> None:
        """End all idle servers; those in use end after their execution."""
        with self._lock:
            self._closed = True
            _close_all(self._idle, self._judges)

    def warm(self) -> frozenset[Server]:
        """The servers that wait for work, those of judges too."""
        with self._lock:
            return frozenset([*self._idle, *(judge.server for judge in self._judges)])

    def cool(self, keep: Collection[Server]) -> None:
        """End the servers that wait for work, but those in ``keep``."""
        with self._lock:
            servers = [server for server in self._idle if server not in keep]
            judges = [judge for judge in self._judges if judge.server not in keep]
            self._idle[:] = [server for server in self._idle if server in keep]
            self._judges[:] = [judge for judge in self._judges if judge.server in keep]
        _close_all(servers, judges)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _probe(self) -> None:
        with self._lock:
            if self._probed:
                if self._reasons:
                    raise SandboxUnavailable(self._reasons)
                return
            reasons = []
            for wall in [self._forced] if self._forced else WALLS:
                try:
                    server = Server(wall, self._packages, self.limits)
                    trial = server.execute({"role": "program", "code": "", "seed": 0}, 10.0, output=True).wait()
                except SandboxUnavailable as error:
                    reasons.append(f"{wall.level}: {error}")
                    continue
                if trial.ok:
                    self._found, self._probed = wall, True
                    if server.idle:
                        self._idle.append(server)
                    return
                reasons.append(f"{wall.level}: {trial.stderr.strip() or trial.note}")
                server.close()
            self._probed = True
            if not self._allow_unisolated:
                self._reasons = (
                    "No isolation is to be had on this machine, so untrusted programs do not run: "
                    + "; ".join(reasons)
                    + ". Install bubblewrap, allow unprivileged user namespaces, or pass allow_unisolated=True."
                )
                raise SandboxUnavailable(self._reasons)

    def _take(self) -> Server:
        if self._closed:
            raise SandboxUnavailable("this sandbox is closed")
        self._probe()
        with self._lock:
            while self._idle:
                server = self._idle.pop()
                if server.pid == os.getpid() and server.idle:
                    return server
                server.close()
        return Server(self._found, self._packages, self.limits)

    def _give_back(self, server: Server) -> None:
        with self._lock:
            if server.idle and not self._closed:
                self._idle.append(server)
                return
        server.close()

    def _take_judge(self) -> LastingJudge:
        with self._lock:
            while self._judges:
                judge = self._judges.pop()
                if judge.server.pid == os.getpid():
                    return judge
                judge.close()
        return LastingJudge(self._take())

    def _give_back_judge(self, judge: FreshJudge | LastingJudge) -> None:
        with self._lock:
            if isinstance(judge, LastingJudge) and not judge.broken and not self._closed:
                self._judges.append(judge)
                return
        self._give_back(judge.retire())


def _close_all(servers: list[Server], judges: list[LastingJudge]) -> None:
    while servers or judges:
        with contextlib.suppress(OSError):
            (servers or judges).pop().close()


def _text(what: str, text: object) -> str:
    """``text`` as a plain string, which a string of a derived class is not."""
    if not isinstance(text, str):
        raise InvalidValue(f"{what} is {text!r:.80}; give a string.")
    return str.__str__(text)


def _positive(timeout_s: float) -> float:
    if not 0 < timeout_s < 1e6:
        raise InvalidValue(f"timeout_s is {timeout_s!r}; give seconds above 0.")
    return float(timeout_s)


def _checked_files(files: Mapping[str, str]) -> dict[str, str]:
    for name in files:
        if os.path.isabs(name) or ".." in name.split("/") or "\0" in name or not name:
            raise InvalidValue(f"file name {name!r}: give a path relative to the scratch folder.")
    return {_text("a file's name", name): _text(f"the file {name!r}", text) for name, text in files.items()}


def _verdict(count: int, said: list[Any], program: SandboxResult, judge: SandboxResult) -> Verdict:
    """The host's own reading of what the judge reported: a missing, malformed or partial report is no pass."""
    if len(said) != 1 or not judge.ok:
        return Verdict(False, (), program, judge, note=program.note or judge.note or "the judge did not report")
    try:
        tests = tuple(TestResult(t["passed"] is True, str(t["message"])) for t in said[0]["results"])
        note = str(said[0]["error"])
    except (TypeError, LookupError):  # a test of a model's own got at the judge's channel
        return Verdict(False, (), program, judge, note="the judge's report is none")
    passed = len(tests) == count and all(t.passed for t in tests)
    if not passed and program.ended not in (Ended.OK, Ended.ERROR):
        note = program.note
    return Verdict(passed, tests, program, judge, note)
