"""An environment's child process must not outlive it, however the process that holds it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def end_holder(code: str, pid: str, ending: str, alive: Callable[[int], bool] | None = None) -> None:
    """Hold ``env``, which ``code`` makes, in another process, end it by ``ending``, and see that its child is gone.

    ``pid`` is the expression of the child's process id; ``ending`` is ``close``, ``exit``, ``error`` or ``kill``;
    ``alive`` says whether anything of the child is there, by default whether the process is.
    """
    alive = alive or _alive
    program = f"import sys\n{code}\nprint({pid}, flush=True)\nsys.stdin.readline()\n"
    program += {
        "close": "env.close(); print('closed', flush=True); sys.stdin.readline()\n",
        "error": "raise RuntimeError\n",
    }.get(ending, "")
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert alive(child)
        if ending == "kill":
            process.send_signal(signal.SIGKILL)
        else:
            process.stdin.write("\n")
            process.stdin.flush()
        if ending == "close":
            assert process.stdout.readline() == "closed\n"
            assert not alive(child)
            process.stdin.close()
        process.wait(30)
    deadline = time.monotonic() + 30
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
