"""A candidate that serves its functions, and the judge that runs tests on them from another process."""

from __future__ import annotations

import _socket
import builtins
import contextlib
import functools
import linecache
import marshal
import os
import random
import re
import resource
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from .program import execute, new_module  # noqa: TID251 - the package has another name inside
from .wire import Channel, Json, Request, WireError, from_json, to_json  # noqa: TID251

# The modules that a test could change for the next by mistake, and that are always loaded.
_WATCHED = (
    *("bisect", "builtins", "collections", "copy", "functools", "heapq", "itertools", "json", "math", "operator"),
    *("random", "re", "string", "types", "typing"),
)
# And those whose state is not in their names: the environment, the working folder, the limit of recursion.
_STATEFUL = ("gc", "os", "signal", "sys", "warnings")

# By how much a judge may have grown, at its largest: what is left in it must never fail the next program's tests.
_GROWTH_KB = 32 * 1024


def serve(request: Request, judge: Channel, _: list[int]) -> None:
    """Load a program as a module and make the calls ``ahead``; then answer the judge's calls to its functions until the
    judge hangs up."""
    kept: dict[int, object] = {}

    def keep(value: object) -> int:
        kept[id(value)] = value
        return id(value)

    module = new_module("candidate", "<program>")
    try:
        execute(request["code"], module)
    except BaseException as error:
        judge.send({"error": _known(error), "text": str(error)[:1000]})
        raise
    judge.send([_answer(call, module, kept, keep) for call in request["ahead"]])
    while True:
        try:
            message, _ = judge.receive_request()
        except EOFError:
            os._exit(0)  # the tests are over: nobody waits for threads that the program may have left running
        judge.send([_answer(message, module, kept, keep)])


def _answer(message: Json, module: types.ModuleType, kept: dict[int, object], keep: Callable[[object], int]) -> Json:
    try:
        if "attribute" in message:
            value = module.__dict__[message["attribute"]]
            return {"callable": callable(value), "value": to_json(value, keep)}
        args = [from_json(a, kept.__getitem__) for a in message["args"]]
        kwargs = {k: from_json(v, kept.__getitem__) for k, v in message["kwargs"].items()}
        value = module.__dict__[message["call"]](*args, **kwargs)
        answer = {"value": to_json(value, keep)}
        # A test may look at what became of its arguments, so those that have changed travel back.
        after = [to_json(a, keep) for a in args]
        return answer if after == message["args"] else {**answer, "args": after}
    except BaseException as error:
        if isinstance(error, MemoryError):
            kept.clear()
        return {"error": _known(error), "text": str(error)[:1000]}


def _known(error: BaseException) -> str:
    """The name of an exception's class, or of the nearest base that the judge can raise: a standard one that is made
    from a text. `Exception` itself is too far: it would say nothing of what went wrong."""
    for kind in type(error).__mro__:
        if getattr(builtins, kind.__name__, None) is kind and kind not in (Exception, BaseException):
            with contextlib.suppress(TypeError):
                kind("")
                return str(kind.__name__)
    return type(error).__name__


class CandidateError(Exception):
    """The candidate raised something that is no standard exception, or is gone."""


class _Candidate:
    """The judge's side of `serve`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ahead: dict[str, list[Json]] = {}
        self._broken = ""

    def begin(self, ahead: list[Json]) -> None:
        """Wait until the program is loaded and has made the calls ``ahead``, whose results wait here for the tests:
        each way across is a switch of processes. Raises what loading raised."""
        answers = self._receive(len(ahead))
        for call, answer in zip(ahead, answers, strict=True):
            self._ahead.setdefault(repr(call), []).append(answer)

    def _receive(self, count: int) -> list[Json]:
        """The program's next ``count`` answers."""
        if self._broken:
            raise CandidateError(self._broken)
        try:
            answers = self._channel.receive()
        except (EOFError, OSError):
            self._broken = "the program ended"
            raise CandidateError(self._broken) from None
        except WireError as error:
            self._broken = f"the program answered with {error}"
            raise CandidateError(self._broken) from None
        if isinstance(answers, dict):
            self._read(answers)
        if not isinstance(answers, list) or len(answers) != count:
            raise CandidateError("the program answered with no answer")
        return answers

    def _ask(self, message: Request) -> Json:
        waiting = self._ahead.get(repr(message)) if self._ahead else None
        if waiting:
            return self._read(waiting.pop(0))
        with contextlib.suppress(OSError):  # a program that is gone shows below
            self._channel.send_request(message)
        return self._read(*self._receive(1))

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
            after = answer.get("args", ())
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


def judge(request: Request, host: Channel, files: list[int]) -> None:
    """Judge one program, and tell the host."""
    host.send(_run_tests(request, *files))


def judges(request: Request, host: Channel, files: list[int]) -> None:
    """Judge one program after another until the host hangs up. The report says ``last`` when a judging changed this
    process (a module loaded, a name of `_WATCHED` given another value, memory taken) or could have (`_STATEFUL`), which
    then judges no more."""
    modules = set(sys.modules)
    before = {name: dict(vars(sys.modules[name])) for name in _WATCHED}
    memory = _memory()
    while True:
        named = _named(request["prelude"]).union(*map(_named, request["tests"]))
        if "random" in named:
            random.seed(request["seed"])
        report = _run_tests(request, *files)
        last = modules != sys.modules.keys() or not named.isdisjoint(_STATEFUL)
        last = last or any(vars(sys.modules[n]) != before[n] for n in named)
        last = last or _memory() - memory > _GROWTH_KB
        host.send({**report, "last": last})
        if last:
            return
        try:
            request, files = host.receive_request()
        except EOFError:
            return


def _memory() -> int:
    """The most kilobytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _run_tests(request: Request, program: int) -> Json:
    """Run each test against a program in another process, whose channel is the open file ``program``; which passed,
    and why one did not.

    A test's own lines run here, so its expected values never reach the program, and what the program returns is
    compared here, as plain data.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, program)
    try:
        return _judged(request, _Candidate(Channel(sock)))
    finally:
        with contextlib.suppress(OSError):  # the program is gone
            sock.shutdown(_socket.SHUT_RDWR)  # it hears of it even where a fork of the host has a copy
        sock.close()


def _judged(request: Request, candidate: _Candidate) -> Json:
    results: list[Json] = []
    entry = request["entry_point"]
    try:
        candidate.begin(request["ahead"])
    except Exception as error:
        return {"results": [], "error": f"{type(error).__name__}: {error}"}
    for number, test in enumerate(request["tests"]):
        file = f"<test {number}>"
        scope = _Globals(candidate)
        scope["__name__"] = "tests"
        scope["_said"] = _said
        message = ""
        try:
            exec(_compiled(request, request["prelude"], "<prelude>"), scope)  # noqa: S102
            if entry:
                scope[entry] = candidate.function(entry)
            exec(_compiled(request, test, file), scope)  # noqa: S102
        except BaseException as error:
            linecache.cache[file] = (len(test), None, test.splitlines(keepends=True), file)
            message = _reason(error, file) or type(error).__name__
        scope.clear()  # the test's functions hold it in a circle, and with it all that the program answered
        results.append({"passed": not message, "message": message})
        if message and request["stop_at_first"]:
            break
    return {"results": results, "error": ""}


def _compiled(request: Request, code: str, file: str) -> types.CodeType:
    """``code`` as the host compiled it, or as it is compiled here."""
    if file in request["bytecode"]:
        made: types.CodeType = marshal.loads(request["bytecode"][file])  # noqa: S302 - from the host
        return made
    tree = _explained(code, file) if request["explain"] and file != "<prelude>" else code
    return compile(tree, file, "exec", dont_inherit=True)


@functools.lru_cache(maxsize=256)
def _named(code: str) -> frozenset[str]:
    """The modules of `_WATCHED` and `_STATEFUL` that ``code`` names: the others it cannot change."""
    return frozenset(word.strip("_") for word in re.findall(r"\w+", code)).intersection(_WATCHED + _STATEFUL)


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
