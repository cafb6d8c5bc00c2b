"""The host's end of one warm server."""

from __future__ import annotations

import contextlib
import marshal
import math
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentkit.envs.sandbox.inside.program import OUT_OF_MEMORY
from agentkit.envs.sandbox.inside.wire import MAX_BYTES, REPORT, Channel, WireError, from_json, parse, to_json
from agentkit.envs.sandbox.launch import Wall, command, missing
from agentkit.envs.sandbox.values import Ended, Level, Limits, ProgramInterrupted, SandboxResult, SandboxUnavailable

_START_S = 20.0
_GRACE_S = 5.0

HostFunctions = Mapping[str, Callable[..., object]]


class Server:
    """A warm server behind ``wall``, or behind none. One execution at a time. Not for two threads at once."""

    def __init__(self, wall: Wall | None, packages: Sequence[str], limits: Limits) -> None:
        """Start it. Raises `SandboxUnavailable` with the reason when it does not start."""
        if wall is not None and (reason := missing(wall)):
            raise SandboxUnavailable(reason)
        self.wall = wall
        self.limits = limits
        self.pid = os.getpid()
        self._next: socket.socket | None = None
        self._folder = tempfile.mkdtemp(prefix="agentkit-sandbox-")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, tempfile.TemporaryFile() as said:
                self._process = subprocess.Popen(  # noqa: S603
                    command(wall, theirs.fileno(), packages, limits, self._folder),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env={"PYTHONHASHSEED": "0"},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
                theirs.close()
                self.control.settimeout(_START_S)
                try:
                    self.listen()
                except (OSError, EOFError):
                    _kill_tree(self._process.pid)
                    self._process.wait()
                    said.seek(0)
                    lines = said.read().decode(errors="replace").strip().splitlines() or ["it did not answer"]
                    raise SandboxUnavailable(lines[-1]) from None
        except BaseException as error:
            self._hang_up()
            shutil.rmtree(self._folder, ignore_errors=True)
            if isinstance(error, OSError) and not isinstance(error, SandboxUnavailable):
                raise SandboxUnavailable(str(error)) from error  # an interpreter that cannot be read, too many files
            raise
        self.control.settimeout(None)

    @property
    def level(self) -> Level:
        return Level.NONE if self.wall is None else self.wall.level

    def close(self) -> None:
        """End the server and all that it runs; a second call does nothing."""
        if self.pid == os.getpid():
            with contextlib.suppress(OSError):  # closed before, or the server is gone
                self.control.shutdown(socket.SHUT_RDWR)  # seen inside though a fork of this process has a copy
        self._hang_up()
        if self.pid != os.getpid():  # a fork's copy: the process is not this one's to end
            return
        try:  # it ends by itself when the control socket does, and all inside with it
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            _kill_tree(self._process.pid)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hang_up(self) -> None:
        self.control.close()
        if self._next is not None:
            self._next.close()
            self._next = None

    @property
    def idle(self) -> bool:
        """Whether it can be given a request: what came of the one before has been heard, and it lives as far as is
        known."""
        return self._next is not None

    def listen(self) -> bytes:
        """The server's next message; the channel that comes with it is kept. Raises OSError or EOFError when the server
        is gone."""
        message, files, _, _ = socket.recv_fds(self.control, 1024, 1, socket.MSG_CMSG_CLOEXEC)
        if not message:
            raise EOFError("the sandbox's server is gone")
        for fd in files:
            self._next = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        return message

    def next_process(self) -> socket.socket:
        """The channel to a process that waits for a request. Only an `idle` server has one."""
        channel, self._next = self._next, None
        assert channel is not None
        return channel

    def execute(
        self,
        request: Mapping[str, Any],
        timeout_s: float,
        *,
        calls: HostFunctions | None = None,
        on_message: Callable[[Any], None] | None = None,
        files: Sequence[int] = (),
        output: bool = False,
        trusted: bool = False,
    ) -> Execution:
        """Start one request (see `inside.process.main`); `Execution.wait` sees it to its end.

        ``calls`` are host functions that the program may call; ``on_message`` is given every other message it sends.
        ``files`` go with the request. ``output`` says whether what it prints is read; otherwise it goes nowhere.
        ``trusted``: not a model's program, so that no one need count the memory of all its processes. Never raises for
        what the program does.
        """
        header = {"timeout_s": timeout_s, "trusted": trusted}
        return Execution(self, dict(request), header, calls or {}, on_message, files, output)


class Execution:
    """One execution as seen from the host: its pipes, and the loop that reads them."""

    def __init__(
        self,
        server: Server,
        request: dict[str, Any],
        header: dict[str, Any],
        calls: HostFunctions,
        on_message: Callable[[Any], None] | None,
        files: Sequence[int],
        output: bool,
    ) -> None:
        self._server, self._limits, self._timeout_s = server, server.limits, header["timeout_s"]
        self._calls, self._on_message = calls, on_message
        self._output: dict[int, bytearray] = {}
        self._incoming = bytearray()
        self._killed: Ended | None = None
        self._note = ""
        self._folder: str | None = None
        self._lost = ""
        self._fault: Exception | None = None
        self._started = time.monotonic()
        self.channel = server.next_process()
        """To the process: for others to use where there are neither ``calls`` nor ``on_message``."""
        try:
            self._start(request, header, files, output)
        except OSError as error:
            self._lost = str(error) or "it hung up"
            with contextlib.suppress(OSError):  # hung up by the other side already
                self.channel.shutdown(socket.SHUT_RDWR)
        except BaseException:
            self.let_go()
            raise

    def _start(self, request: dict[str, Any], header: dict[str, Any], files: Sequence[int], output: bool) -> None:
        request["output"] = output
        if self._server.wall is None:
            request["scratch"] = self._folder = tempfile.mkdtemp(prefix="agentkit-scratch-")
        with contextlib.ExitStack() as stack:
            writers = []
            for _ in ("stdout", "stderr") if output else ():
                reader, writer = os.pipe()
                stack.callback(os.close, writer)
                os.set_blocking(reader, False)
                self._output[reader] = bytearray()
                writers.append(writer)
            self._server.control.send(marshal.dumps(header))
            self.channel.settimeout(_GRACE_S)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server reports what ended it
                Channel(self.channel).send_request(request, [*writers, *files])
            self.channel.settimeout(None)

    def stop(self) -> None:
        """End it now; `wait` then returns soon, whatever the server does."""
        self._timeout_s = time.monotonic() - self._started
        with contextlib.suppress(OSError):  # its server is gone, and all with it
            self._kill(Ended.KILLED, "it was not needed any more")

    def let_go(self) -> None:
        """Close what the host has of it. It ends with its server."""
        for fd in self._output:
            os.close(fd)
        self.channel.close()
        if self._folder is not None and self._server.pid == os.getpid():
            shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> SandboxResult:
        """Read what the program prints, answer its calls, and return what came of it. Call it once. Raises what a
        function of ``calls`` raised, if it is no mistake of the program's."""
        report: bytes | None = None
        try:
            if not self._lost:
                report = self._loop()
        except (OSError, EOFError) as error:
            if error is self._fault:
                raise
            self._lost = str(error) or "it hung up"
        finally:
            self.let_go()
            if report is None or (self._server.wall is not None and not self._server.wall.warm):
                self._server.close()
        return self._result(report)

    def _loop(self) -> bytes:
        """The server's report. Raises EOFError or OSError when the server is gone."""
        control = self._server.control
        report: bytes | None = None
        last = self._started + self._timeout_s + _GRACE_S
        channel = self.channel.fileno() if self._calls or self._on_message is not None else -1
        waiting = {control.fileno(), channel, *self._output} - {-1}
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        # The pipes are read to their end even after the report; who else may hold them open, a process that got away
        # where there is no wall or a fork of this one, is not waited for.
        while waiting:
            ready = poll.poll(None if last == math.inf else max(0.0, last - time.monotonic()) * 1000)
            if not ready:
                if report is None:
                    raise EOFError("the sandbox's server did not answer in time")
                break
            for fd, _ in ready:
                if fd == channel:
                    more = self._talk()
                elif fd in self._output:
                    more = self._read(fd)
                else:
                    report, more = self._server.listen(), False
                    last = time.monotonic() + 1.0
                if not more:
                    poll.unregister(fd)
                    waiting.discard(fd)
        if report is None:
            raise EOFError("the sandbox's server is gone")
        return report

    def _read(self, fd: int) -> bool:
        """Read some of the program's output; False at its end or beyond the limit."""
        try:
            part = os.read(fd, 65536)
        except BlockingIOError:
            return True
        room = self._limits.output_bytes - len(self._output[fd])
        self._output[fd] += part[:room]
        if len(part) > room:
            self._kill(Ended.OUTPUT_LIMIT, f"more than {self._limits.output_bytes} bytes of output")
            return False
        return bool(part)

    def _kill(self, why: Ended, note: str) -> None:
        if self._killed is None:
            self._killed, self._note = why, note
            self._server.control.send(b"kill")

    def _talk(self) -> bool:
        """Read from the program's channel and answer the calls that are complete; False at its end."""
        try:
            part = self.channel.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        self._incoming += part
        while len(self._incoming) >= 4 and self._killed is None:
            (length,) = struct.unpack_from(">I", self._incoming)
            if length > MAX_BYTES:
                self._kill(Ended.KILLED, f"a message of {length} bytes; the limit is {MAX_BYTES}")
                return False
            if len(self._incoming) < 4 + length:
                break
            message = bytes(self._incoming[4 : 4 + length])
            del self._incoming[: 4 + length]
            self._answer(message)
        return bool(part)

    def _answer(self, body: bytes) -> None:
        try:
            message = parse(body)
            if self._on_message is not None and not self._calls:
                self._on_message(message)
                return
            if not isinstance(message, dict) or message.get("call") not in self._calls:
                raise WireError("no such function")
            args, kwargs = from_json(message.get("args")), message.get("kwargs")
            if not isinstance(args, tuple) or not isinstance(kwargs, dict):
                raise WireError("not a call")
            values = {str(k): v for k, v in from_json(kwargs).items()}  # type: ignore[attr-defined]
            reply = {"value": to_json(self._calls[message["call"]](*args, **values))}
        except ProgramInterrupted as stop:
            self._kill(Ended.INTERRUPTED, str(stop))
            return
        except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, WireError, RecursionError) as error:
            # A wrong call is the program's mistake, and it is told so. Anything else is the host's own fault.
            reply = {"error": str(error)[:2000], "kind": type(error).__name__}
        except (OSError, EOFError) as fault:
            self._fault = fault  # not to be taken for one of the server's
            raise
        with contextlib.suppress(ConnectionError):
            self.channel.settimeout(_GRACE_S)
            Channel(self.channel).send_request(reply)

    def _result(self, report: bytes | None) -> SandboxResult:
        out, err = [bytes(b).decode(errors="replace") for b in self._output.values()] or ("", "")
        level = self._server.level
        if report is None:
            return SandboxResult(Ended.KILLED, out, err, level=level, note=self._lost)
        status, wall_s, cpu_s, memory_mb, reason = REPORT.unpack(report)
        killed, note = reason.rstrip(b"\0").decode(), self._note
        if self._killed is not None:
            ended = self._killed
        elif killed == "timeout" or status == -signal.SIGXCPU:
            ended, note = Ended.TIMEOUT, f"more than {self._timeout_s:g} seconds"
        elif killed == "memory" or status == OUT_OF_MEMORY:
            ended, note = Ended.MEMORY, f"more than {self._limits.memory_mb} MiB of memory"
        elif killed:
            ended = Ended.KILLED
        elif status == 0:
            ended = Ended.OK
        else:
            ended = Ended.ERROR
            note = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return SandboxResult(
            ended,
            out,
            err,
            exit_code=status,
            level=level,
            wall_s=wall_s,
            cpu_s=cpu_s,
            memory_mb=memory_mb,
            note=note,
        )


def _kill_tree(pid: int) -> None:
    """Kill a process and its descendants. Of a PID namespace the first process is enough, and is among them."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            _kill_tree(int(child))
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
