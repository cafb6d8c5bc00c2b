"""Worlds that run in a Java virtual machine of their own, through the package py4j.

The packages' own Python wrappers are passed by: they open a second port with threads that keep an interpreter from
exiting, let any local user connect, and leave the process behind for a while after ``close``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import weakref
from typing import Any

from agentkit.envs.extras import MissingProgram, require

_SECONDS_TO_END = 5.0


class Jvm:
    """A Java process with one of its objects. It ends with `close`, with this object, and with this process.

    ``world`` is the Java object, whose methods may be called; ``pid`` is the process's. Raises `MissingProgram` where
    there is no Java.
    """

    def __init__(self, jar: str, interface: str, *options: str) -> None:
        """``jar``: the file; ``interface``: the Java class to make an object of, by its full name; ``options``: the
        JVM's."""
        if shutil.which("java") is None:
            raise MissingProgram(
                "this world needs Java: the program `java` was not found. "
                "Install it, for example with: apt-get install default-jre-headless"
            )
        py4j = require("py4j.java_gateway", "py4j", "scienceworld")
        port, token, process = py4j.launch_gateway(
            classpath=jar,
            die_on_exit=True,
            enable_auth=True,
            return_proc=True,
            cwd=os.path.dirname(jar),  # the games look for their data there
            javaopts=["-XX:+UseSerialGC", *options],  # quicker to start, smaller
        )
        gateway = py4j.JavaGateway(
            gateway_parameters=py4j.GatewayParameters(auto_field=True, port=port, auth_token=token),
            java_process=process,
        )
        self.pid: int = process.pid
        self._end = weakref.finalize(self, _end, gateway, process)
        try:
            made: Any = gateway.jvm
            for part in interface.split("."):
                made = getattr(made, part)
            self.world: Any = made()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """End the process and wait until it is gone. Again does nothing."""
        self._end()


def _end(gateway: Any, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(Exception):  # py4j's own error classes; the process is ended below in any case
        gateway.shutdown()
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()  # the JVM ends when its standard input does
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
