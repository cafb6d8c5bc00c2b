"""What the innermost process does: run a program, serve its functions to a judge, or judge.

The process has given up its privileges by the time any of this runs. It ends through `_leave`, never by returning.
"""

from __future__ import annotations

import atexit
import io
import os
import random
import sys
from collections.abc import Callable
from typing import NoReturn

from . import judging, program  # noqa: TID251 - the package has another name inside
from .program import OUT_OF_MEMORY, execute, new_module, show  # noqa: TID251
from .wire import Channel, Request  # noqa: TID251

_ROLES: dict[str, Callable[[Request, Channel, list[int]], None]] = {
    "program": program.run,
    "serve": judging.serve,
    "judge": judging.judge,
    "judges": judging.judges,
}


def prepare(scratch: str | None) -> None:
    """Do once, in the server, what can be shared by all programs, and touch what each would otherwise touch first.
    ``scratch`` is the writable folder, when it is the same for all."""
    sys.argv = ["program.py"]
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    sys.stdin = io.StringIO()
    sys.__stdout__, sys.__stderr__, sys.__stdin__ = sys.stdout, sys.stderr, sys.stdin  # type: ignore[misc,assignment]
    execute("def f():\n    return [1]\nf()", new_module("warm", "<warm>"))
    del sys.modules["warm"]
    if scratch is not None:
        _live_in(scratch)


def _live_in(scratch: str) -> None:
    os.environ["HOME"] = os.environ["TMPDIR"] = scratch
    sys.path.insert(0, scratch)


def main(request: Request, channel: Channel, files: list[int]) -> NoReturn:
    """Do what ``request`` asks: ``role`` is a key of `_ROLES`; ``output`` says whether the first two of ``files`` are
    to be standard output and standard error; ``scratch`` is the writable folder, where it is this program's own."""
    try:
        if request["output"]:
            for number in (1, 2):
                os.dup2(files[0], number)
                os.close(files.pop(0))
        if "scratch" in request:
            _live_in(request["scratch"])
        os.chdir(sys.path[0])
        if request["seed"]:
            random.seed(request["seed"])
        if "stdin" in request:
            sys.stdin = sys.__stdin__ = io.StringIO(request["stdin"])  # type: ignore[misc,assignment]
        for name, text in request.get("files", {}).items():
            path = os.path.abspath(name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        _ROLES[request["role"]](request, channel, files)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            _leave((stop.code or 0) & 0xFF)
        print(stop.code, file=sys.stderr)
        _leave(1)
    except MemoryError as error:
        show(error)
        _leave(OUT_OF_MEMORY)
    except BaseException as error:
        show(error)
        _leave(1)
    _leave(0)


def _leave(status: int) -> NoReturn:
    """End as an interpreter does (threads, exit functions, buffers), but without tearing down a forked heap."""
    try:
        threads = sys.modules.get("threading")  # loaded only by a program that needs it
        if threads is not None and threads.active_count() > 1:
            threads._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        status = status or 1
    os._exit(status)
