"""What a program is run by: a module for its names, tracebacks without our own lines, and the host's functions."""

from __future__ import annotations

import _thread
import builtins
import contextlib
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable

from .wire import Channel, Request, from_json, to_json  # noqa: TID251 - the package has another name inside

OUT_OF_MEMORY = 86
"""The exit status of a program that ended with an uncaught MemoryError."""


def show(error: BaseException) -> None:
    """Print a traceback without the frames of this file."""
    with contextlib.suppress(BaseException):
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(os.path.dirname(__file__)):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace, limit=-20)
        sys.stderr.write("".join(lines))


def new_module(name: str, file: str) -> types.ModuleType:
    """A new module ``name`` that holds nothing yet."""
    module = types.ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    return module


def execute(code: str, module: types.ModuleType) -> None:
    exec(compile(code, str(module.__file__), "exec", dont_inherit=True), module.__dict__)  # noqa: S102


class CallError(Exception):
    """What a host function raised, in the program that called it."""


def run(request: Request, host: Channel, _: list[int]) -> None:
    """Run a program as a script, with the host's functions in its reach."""
    code = request["code"]
    main_module = new_module("__main__", "<program>")
    linecache.cache["<program>"] = (len(code), None, code.splitlines(keepends=True), "<program>")  # for tracebacks
    names: list[str] = request.get("calls", [])
    if names:
        world = types.ModuleType(request["calls_module"])
        lock = _thread.allocate_lock()
        for name in names:
            function = _host_function(name, host, lock)
            setattr(world, name, function)
            setattr(main_module, name, function)
        sys.modules[world.__name__] = world
        setattr(world, "CallError", CallError)  # noqa: B010
    else:
        host.sock.close()
    execute(code, main_module)


def _host_function(name: str, channel: Channel, lock: _thread.LockType) -> Callable[..., object]:
    def call(*args: object, **kwargs: object) -> object:
        message = {"call": name, "args": to_json(args), "kwargs": to_json(kwargs)}
        with lock:
            channel.send(message)
            answer, _ = channel.receive_request()
        if "error" in answer:
            kind = getattr(builtins, answer["kind"], None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                raise kind(answer["error"])
            raise CallError(answer["error"])
        return from_json(answer["value"])

    call.__name__ = call.__qualname__ = name
    return call
