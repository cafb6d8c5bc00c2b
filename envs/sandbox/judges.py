"""The host's end of the process that runs the tests: `FreshJudge` for any tests, `LastingJudge` for trusted ones."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from typing import Any

from agentkit.envs.sandbox.host import Execution, Server
from agentkit.envs.sandbox.inside.wire import Channel, WireError
from agentkit.envs.sandbox.values import Ended, SandboxResult


class FreshJudge:
    """A process of ``server`` for one judging."""

    broken = True
    """Whether it judges no more, and is to be retired."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._said: list[Any] = []
        self._execution: Execution | None = None

    def begin(self, request: dict[str, Any], program: socket.socket, timeout_s: float) -> None:
        """Hand over the tests (a request of the role ``judge``) and the socket of the program."""
        self._execution = self.server.execute(request, timeout_s, on_message=self._hear, files=[program.fileno()])

    def wait(self) -> tuple[list[Any], SandboxResult]:
        """What it said, if anything, and how the judging ended."""
        assert self._execution is not None
        return self._said, self._execution.wait()

    def _hear(self, message: object) -> None:
        if len(self._said) < 2:  # two are one too many: what a test sends besides must not fill the host's memory
            self._said.append(message)

    def retire(self) -> Server:
        """End it. Its server is free for other work."""
        return self.server

    def close(self) -> None:
        """End it and its server."""
        self.server.close()


class LastingJudge:
    """A process of ``server`` that runs trusted tests on one program after another. The methods of `FreshJudge`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.broken = False
        self._execution: Execution | None = None
        self._started = self._timeout_s = 0.0

    def begin(self, request: dict[str, Any], program: socket.socket, timeout_s: float) -> None:
        self.broken = True  # until it has reported
        self._started, self._timeout_s = time.monotonic(), timeout_s
        if self._execution is None:
            judges = {**request, "role": "judges"}
            self._execution = self.server.execute(judges, math.inf, files=[program.fileno()], trusted=True)
            self._channel = Channel(self._execution.channel)
            self._channel.sock.settimeout(timeout_s)
        else:
            self._channel.sock.settimeout(timeout_s)
            with contextlib.suppress(OSError):  # a judge that is gone is seen by who waits for its report
                self._channel.send_request(request, [program.fileno()])

    def wait(self) -> tuple[list[Any], SandboxResult]:
        level = self.server.level
        try:
            report = self._channel.receive()
        except TimeoutError:
            note = f"the tests took more than {self._timeout_s:g} seconds"
            return [], SandboxResult(Ended.TIMEOUT, level=level, note=note)
        except (OSError, EOFError, WireError):
            return [], SandboxResult(Ended.KILLED, level=level, note="the judge ended in the middle of its tests")
        self.broken = report["last"]
        return [report], SandboxResult(Ended.OK, exit_code=0, level=level, wall_s=time.monotonic() - self._started)

    def retire(self) -> Server:
        if self._execution is not None:
            self._execution.stop()
            self._execution.wait()
        return self.server

    def close(self) -> None:
        if self._execution is not None:
            self._execution.let_go()
        self.server.close()
