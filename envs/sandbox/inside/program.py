"""What the innermost process does: run a program, serve its functions to a judge, or judge.

The process has given up its privileges by the time any of this runs. It ends through `_leave`, never by returning.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import io
import json
import linecache
import os
import random
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from .wire import Channel, Json, Reference, WireError, from_json, to_json  # noqa: TID251 - the package has another name inside

OUT_OF_MEMORY = 86
"""The exit status of a program that ended with an uncaught MemoryError."""


def prepare(scratch: str | None) -> None:
    """Do once, in the server, what can be shared by all programs, and touch what each would otherwise touch first.
    ``scratch`` is the writable folder, when it is the same for all."""
    sys.argv = ["program.py"]
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    sys.stdin = io.StringIO()
    sys.__stdout__, sys.__stderr__, sys.__stdin__ = sys.stdout, sys.stderr, sys.stdin  # type: ignore[misc,assignment]
    _execute("def f():\n    return [1]\nf()", _module("warm", "", "<warm>"))
    del sys.modules["warm"], linecache.cache["<warm>"]
    if scratch is not None:
        _live_in(scratch)


def _live_in(scratch: str) -> None:
    os.environ["HOME"] = os.environ["TMPDIR"] = scratch
    sys.path.insert(0, scratch)


def main(request: Json, channels: list[int], scratch: str | None) -> NoReturn:
    """Do what ``request`` asks: ``role`` is ``program``, ``serve`` or ``judge``. ``scratch`` as in `prepare`, when it
    is this program's own."""
    if scratch is not None:
        _live_in(scratch)
        os.chdir(scratch)
    if request["seed"]:
        random.seed(request["seed"])
    if "stdin" in request:
        sys.stdin = sys.__stdin__ = io.StringIO(request["stdin"])  # type: ignore[misc,assignment]
    for name, text in request.get("files", {}).items():
        path = os.path.normpath(os.path.join(os.environ["HOME"], name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    roles: dict[str, Callable[[Json, list[Channel]], None]] = {"program": _program, "serve": _serve, "judge": _judge}
    try:
        roles[request["role"]](request, [Channel(socket.socket(fileno=c)) for c in channels])
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            _leave((stop.code or 0) & 0xFF)
        print(stop.code, file=sys.stderr)
        _leave(1)
    except MemoryError as error:
        _show(error)
        _leave(OUT_OF_MEMORY)
    except BaseException as error:
        _show(error)
        _leave(1)
    _leave(0)


def _leave(status: int) -> NoReturn:
    """End as an interpreter does (threads, exit functions, buffers), but without tearing down a forked heap."""
    try:
        if threading.active_count() > 1:
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        status = status or 1
    os._exit(status)


def _show(error: BaseException) -> None:
    """Print a traceback without the frames of this file."""
    with contextlib.suppress(BaseException):
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(os.path.dirname(__file__)):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace, limit=-20)
        sys.stderr.write("".join(lines))


def _module(name: str, code: str, file: str) -> types.ModuleType:
    """A new module ``name`` that holds nothing yet; tracebacks will show the lines of ``code``."""
    module = types.ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    return module


def _execute(code: str, module: types.ModuleType) -> None:
    exec(compile(code, str(module.__file__), "exec", dont_inherit=True), module.__dict__)  # noqa: S102


# --- a program, with functions of the host --------------------------------------------------------------------------


class CallError(Exception):
    """What a host function raised, in the program that called it."""


def _program(request: Json, channels: list[Channel]) -> None:
    main_module = _module("__main__", request["code"], "<program>")
    names: list[str] = request.get("calls", [])
    if names:
        world = types.ModuleType(request["calls_module"])
        lock = threading.Lock()
        for name in names:
            function = _host_function(name, channels[0], lock)
            setattr(world, name, function)
            setattr(main_module, name, function)
        sys.modules[world.__name__] = world
        setattr(world, "CallError", CallError)  # noqa: B010
    _execute(request["code"], main_module)


def _host_function(name: str, channel: Channel, lock: threading.Lock) -> Callable[..., object]:
    def call(*args: object, **kwargs: object) -> object:
        message = {"call": name, "args": to_json(args), "kwargs": to_json(kwargs)}
        with lock:
            channel.send(message)
            answer = channel.receive()
        if "error" in answer:
            kind = getattr(builtins, answer["kind"], None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                raise kind(answer["error"])
            raise CallError(answer["error"])
        return from_json(answer["value"])

    call.__name__ = call.__qualname__ = name
    return call


# --- a candidate, and the judge that calls it -----------------------------------------------------------------------


def _serve(request: Json, channels: list[Channel]) -> None:
    """Load a program as a module, then answer the judge's calls to its functions until the judge hangs up."""
    [judge] = channels
    kept: dict[int, object] = {}

    def keep(value: object) -> int:
        kept[id(value)] = value
        return id(value)

    module = _module("candidate", request["code"], "<program>")
    try:
        _execute(request["code"], module)
    except BaseException as error:
        judge.send({"error": type(error).__name__, "text": str(error)[:1000]})
        raise
    judge.send({"loaded": True})
    while True:
        try:
            message = judge.receive()
        except EOFError:
            return
        judge.send([_answer(m, module, kept, keep) for m in message])


def _answer(message: Json, module: types.ModuleType, kept: dict[int, object], keep: Callable[[object], int]) -> Json:
    try:
        if "attribute" in message:
            value = module.__dict__[message["attribute"]]
            return {"callable": callable(value), "value": to_json(value, keep)}
        args = [from_json(a, kept.__getitem__) for a in message["args"]]
        kwargs = {k: from_json(v, kept.__getitem__) for k, v in message["kwargs"].items()}
        value = module.__dict__[message["call"]](*args, **kwargs)
        # A test may look at what became of its arguments, so they travel back: they can have changed.
        return {"value": to_json(value, keep), "args": [to_json(a, keep) for a in args]}
    except BaseException as error:
        if isinstance(error, MemoryError):
            kept.clear()
        _show(error)
        return {"error": type(error).__name__, "text": str(error)[:1000]}


class CandidateError(Exception):
    """The candidate raised something that is no standard exception, or is gone."""


class _Candidate:
    """The judge's side of `_serve`. Calls go over in batches: each way across is a switch of processes, which is what
    judging costs."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ahead: dict[str, list[Json]] = {}
        self._broken = ""

    def begin(self, calls: list[Json]) -> None:
        """Wait until the program is loaded; have it make ``calls`` ahead, whose results wait here for the tests."""
        if calls:
            with contextlib.suppress(OSError):  # a program that is gone shows below
                self._channel.send(calls)
        self._read(self._receive())
        if calls:
            answers = self._receive()
            if not isinstance(answers, list) or len(answers) != len(calls):
                raise CandidateError("the program answered with no answer")
            for call, answer in zip(calls, answers, strict=True):
                self._ahead.setdefault(json.dumps(call), []).append(answer)

    def _receive(self) -> Json:
        if self._broken:
            raise CandidateError(self._broken)
        try:
            return self._channel.receive()
        except (EOFError, OSError):
            self._broken = "the program ended"
        except WireError as error:
            self._broken = f"the program answered with {error}"
        raise CandidateError(self._broken)

    def _ask(self, message: Json) -> Json:
        key = json.dumps(message)
        if self._ahead.get(key):
            return self._read(self._ahead[key].pop(0))
        try:
            self._channel.send([message])
        except OSError:
            self._broken = self._broken or "the program ended"
        answers = self._receive()
        if not isinstance(answers, list) or len(answers) != 1:
            raise CandidateError("the program answered with no answer")
        return self._read(answers[0])

    def _read(self, answer: Json) -> Json:
        """An answer, or the exception that it is."""
        if not isinstance(answer, dict):
            raise CandidateError("the program answered with no answer")
        if "error" in answer:
            kind = getattr(builtins, str(answer["error"]), None)
            text = str(answer.get("text", ""))[:1000]
            # A StopIteration would end a loop of the test's own, and so pass it.
            ends_loops = (StopIteration, StopAsyncIteration)
            if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, ends_loops):
                raise kind(text)
            raise CandidateError(f"{str(answer['error'])[:100]}: {text}")
        return answer

    def _value(self, answer: Json, key: str = "value") -> object:
        try:
            return from_json(answer.get(key))
        except (WireError, RecursionError) as error:
            raise CandidateError(f"the program returned {error}") from None

    def attribute(self, name: str) -> object:
        """The program's global ``name``: a function that calls it there, or its value."""
        try:
            answer = self._ask({"attribute": name})
        except KeyError:
            raise NameError(f"name {name!r} is not defined") from None
        if answer.get("callable") is True:
            return self.function(name)
        return self._value(answer)

    def function(self, name: str) -> Callable[..., object]:
        """A function that calls the program's function ``name`` there and returns plain data."""

        def call(*args: object, **kwargs: object) -> object:
            body = {
                "call": name,
                "args": [to_json(a) for a in args],
                "kwargs": {k: to_json(v) for k, v in kwargs.items()},
            }
            answer = self._ask(body)
            value = self._value(answer)
            after = answer.get("args")
            for mine, theirs in zip(args, after if isinstance(after, list) else (), strict=False):
                if isinstance(mine, list | dict | set | bytearray) and theirs != to_json(mine):
                    _become(mine, self._value({"value": theirs}))
            return value

        call.__name__ = call.__qualname__ = name
        return call


def _become(mine: Any, theirs: Any) -> None:
    """Change the container ``mine`` to hold what ``theirs`` holds."""
    if type(mine) is not type(theirs):
        raise CandidateError("the program changed the type of an argument")
    mine.clear()
    (mine.extend if isinstance(mine, list | bytearray) else mine.update)(theirs)


class _Globals(dict[str, object]):
    """A test's globals. What the tests and the trusted prelude do not define is looked up in the program."""

    def __init__(self, candidate: _Candidate) -> None:
        super().__init__()
        self._candidate = candidate

    def __missing__(self, name: str) -> object:
        if hasattr(builtins, name):
            raise KeyError(name)
        return self._candidate.attribute(name)


def _judge(request: Json, channels: list[Channel]) -> None:
    """Run each test against a program in another process; tell the host which passed, and why one did not.

    A test's own lines run here, so its expected values never reach the program, and what the program returns is
    compared here, as plain data.
    """
    host, peer = channels
    candidate = _Candidate(peer)
    results: list[Json] = []
    entry = request["entry_point"]
    ahead = [{"call": entry, "args": args, "kwargs": {}} for args in request["ahead"]]
    try:
        candidate.begin(ahead)
    except Exception as error:
        host.send({"results": [], "error": f"{type(error).__name__}: {error}"})
        return
    for number, test in enumerate(request["tests"]):
        file = f"<test {number}>"
        linecache.cache[file] = (len(test), None, test.splitlines(keepends=True), file)
        scope = _Globals(candidate)
        scope["__name__"] = "tests"
        scope["_said"] = _said
        message = ""
        try:
            exec(compile(request["prelude"], "<prelude>", "exec", dont_inherit=True), scope)  # noqa: S102
            if entry:
                scope[entry] = candidate.function(entry)
            tree = _explained(test, file) if request["explain"] else test
            exec(compile(tree, file, "exec", dont_inherit=True), scope)  # noqa: S102
        except BaseException as error:
            message = _reason(error, file) or type(error).__name__
        results.append({"passed": not message, "message": message})
        if message and request["stop_at_first"]:
            break
    host.send({"results": results, "error": ""})


def _explained(test: str, file: str) -> Any:
    """The syntax tree of ``test`` where each ``assert a == b`` says what ``a`` was."""
    import ast  # not loaded for the judging that only scores

    class Explain(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> ast.Assert:
            match node:
                case ast.Assert(ast.Compare(left, [ast.Eq()], [right]), None):
                    value = ast.Name("_value", ast.Load())
                    said = ast.Call(ast.Name("_said", ast.Load()), [value], [])
                    bind = ast.NamedExpr(ast.Name("_value", ast.Store()), left)
                    explained = ast.Assert(ast.Compare(bind, [ast.Eq()], [right]), said)
                    return ast.fix_missing_locations(ast.copy_location(explained, node))
            return node

    return Explain().visit(ast.parse(test, file))


def _said(value: object) -> str:
    text = repr(value)
    return f"it was {text if len(text) <= 500 else text[:500] + '…'}"


def _reason(error: BaseException, file: str) -> str:
    """The line of the test that failed and what it raised."""
    line = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == file:
            line = frame.line or ""
    kind = type(error).__name__
    said = f"{kind}: {error}" if str(error) else kind
    return f"{line}\n{said}" if line else said


__all__ = ["OUT_OF_MEMORY", "CallError", "CandidateError", "Reference", "main"]
