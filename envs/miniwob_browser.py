"""A headless Chromium that is talked to through two pipes, in the Chrome DevTools Protocol.

No driver stands between and no port is opened: nobody else can reach the browser, and it ends when its pipes do, which
is when this process ends in whatever way. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

from agentkit.envs.extras import MissingProgram
from agentkit.errors import AgentkitError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ANSWER_SECONDS = 60.0
_SECONDS_TO_END = 5.0
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--lang=en-US",
    "--force-device-scale-factor=1",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-crash-reporter",
    # Nothing is fetched: neither by the browser for itself, nor by a page.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    # Pages in the background are not slowed down.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)


class BrowserError(AgentkitError, RuntimeError):
    """The browser did not start, did not answer, or refused a command."""


def find_browser() -> str:
    """The browser's program: ``AGENTKIT_CHROMIUM``, or the first of `NAMES` on the path. Raises `MissingProgram`."""
    named = os.environ.get("AGENTKIT_CHROMIUM")
    for name in [named] if named else NAMES:
        if found := shutil.which(name):
            return found
    what = f"AGENTKIT_CHROMIUM={named!r} is no program" if named else f"none of {', '.join(NAMES)} was found"
    raise MissingProgram(
        f"this world needs the browser Chromium: {what}. Install it, for example with: apt-get install chromium; "
        "or set AGENTKIT_CHROMIUM to its path."
    )


class Browser:
    """A Chromium with one page. It ends with `close`, with this object, and with this process.

    Raises `agentkit.envs.extras.MissingProgram` where there is no browser and `BrowserError` where it does not start.
    Not for two threads at once.
    """

    def __init__(self) -> None:
        program = find_browser()
        profile = tempfile.mkdtemp(prefix="agentkit-chromium-")
        flags = [*_FLAGS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            # Chromium's own sandbox does not start for root. What is loaded are the task package's files alone.
            flags.append("--no-sandbox")
        # The protocol's pipes are the file descriptors 3 and 4. What Chromium itself prints is no part of it.
        start = ["/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", program, *flags, "about:blank"]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(  # noqa: S603
            start,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "TZ": "UTC"},
            start_new_session=True,  # so that it can be ended with all that it started
        )
        self.pid: int = self._process.pid
        self._number, self._buffer = 0, b""
        self._session: str | None = None
        self._end = weakref.finalize(self, _end, self._process, profile)
        try:
            targets = self.call("Target.getTargets")["targetInfos"]
            page = next(t["targetId"] for t in targets if t["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol. Raises `BrowserError`."""
        if not self._end.alive:
            raise BrowserError(f"{method}: the browser has ended")
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise BrowserError(f"{method}: the browser has ended")
        with contextlib.suppress(BrokenPipeError):  # reading says what happened
            self._process.stdin.write(json.dumps(message).encode() + b"\0")
            self._process.stdin.flush()
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (answer := self._receive(method, deadline)).get("id") != number:
            pass
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON; of a promise, what it comes to. Raises `BrowserError`."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(str(details.get("exception", {}).get("description", details.get("text"))))
        return answer["result"].get("value")

    def close(self) -> None:
        """End the browser and wait until all its processes are gone. Again does nothing."""
        self._end()

    def _receive(self, method: str, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\0" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise BrowserError(f"{method}: the browser did not answer within {_ANSWER_SECONDS:g} s")
                data = os.read(self._process.stdout.fileno(), 1 << 20)
                if not data:
                    self._said.seek(0)
                    said = self._said.read()[-1500:].decode(errors="replace").strip()
                    self.close()
                    raise BrowserError(
                        f"{method}: the browser ended with code {self._process.returncode}. It said: {said}"
                    )
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _end(process: subprocess.Popen[bytes], profile: str) -> None:
    for pipe in (process.stdin, process.stdout):  # it ends by itself when they do
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_END)
    deadline = time.monotonic() + _SECONDS_TO_END
    while left := _left(process.pid, profile):  # its helpers end a little later
        if time.monotonic() > deadline or process.poll() is None:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.poll()
        time.sleep(0.01)
    process.wait()
    shutil.rmtree(profile, ignore_errors=True)


def _left(session: int, profile: str) -> list[int]:
    """The browser's processes that live: those of its session, and those that left it but name its profile. Without
    /proc, none are seen."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            belongs = int(fields[3]) == session or profile.encode() in (entry / "cmdline").read_bytes()
            if fields[0] != "Z" and belongs and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found
