"""The sandbox as its users see it."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentkit.envs.sandbox import (
    WALLS,
    Ended,
    Level,
    Limits,
    ProgramInterrupted,
    Sandbox,
    SandboxUnavailable,
    Wall,
    core,
)
from agentkit.envs.sandbox import host as host_module
from agentkit.envs.sandbox.inside import kernel
from agentkit.envs.sandbox.judges import LastingJudge
from agentkit.errors import AgentkitError, InvalidValue


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(output_bytes=10_000)) as box:
        yield box


def test_a_program_runs_as_a_script(sandbox: Sandbox) -> None:
    result = sandbox.run(
        "import sys\nif __name__ == '__main__':\n    print('hello', sys.argv)\nprint('!', file=sys.stderr)"
    )
    assert (result.ended, result.stdout, result.stderr, result.exit_code) == (
        Ended.OK,
        "hello ['program.py']\n",
        "!\n",
        0,
    )
    assert result.ok
    assert result.level is sandbox.level is not Level.NONE
    assert 0 < result.wall_s < 5
    assert result.memory_mb > 1


def test_an_exception_is_shown_as_python_shows_it(sandbox: Sandbox) -> None:
    result = sandbox.run("def f(x):\n    return 1 / x\n\nf(0)\n")
    assert (result.ended, result.exit_code) == (Ended.ERROR, 1)
    lines = [line for line in result.stderr.splitlines() if set(line) - set(" ~^")]  # what is marked differs by version
    assert lines == [
        "Traceback (most recent call last):",
        '  File "<program>", line 4, in <module>',
        "    f(0)",
        '  File "<program>", line 2, in f',
        "    return 1 / x",
        "ZeroDivisionError: division by zero",
    ]


def test_a_syntax_error_names_the_line(sandbox: Sandbox) -> None:
    result = sandbox.run("x = 1\ndef f(:\n    pass\n")
    assert result.ended is Ended.ERROR
    assert 'File "<program>", line 2' in result.stderr
    assert "SyntaxError" in result.stderr


@pytest.mark.parametrize(
    ("code", "ended", "status"),
    [
        ("import sys; sys.exit(3)", Ended.ERROR, 3),
        ("raise SystemExit", Ended.OK, 0),
        ("import os; os._exit(0)", Ended.OK, 0),
        ("import os; os.abort()", Ended.ERROR, -11),
        ("import ctypes; ctypes.string_at(0)", Ended.ERROR, -11),
    ],
)
def test_how_it_ended_is_said(sandbox: Sandbox, code: str, ended: Ended, status: int) -> None:
    result = sandbox.run(code)
    assert result.ended is ended
    # Process 1 of a namespace cannot be aborted by itself: libc then crashes it.
    assert result.exit_code == status


def test_stdin_and_files_reach_the_program(sandbox: Sandbox) -> None:
    result = sandbox.run(
        "from helpers.double import double\nprint(double(int(input())), open('data.txt').read())",
        stdin="21\n",
        files={"helpers/double.py": "def double(x):\n    return 2 * x\n", "data.txt": "δ"},
    )
    assert result.stdout == "42 δ\n", result
    assert sandbox.run("input()").stderr.endswith("EOFError: EOF when reading a line\n")
    with pytest.raises(InvalidValue):
        sandbox.run("", files={"../up": ""})


def test_what_was_printed_before_the_deadline_is_kept(sandbox: Sandbox) -> None:
    result = sandbox.run("print('before')\nwhile True: pass", timeout_s=0.3)
    assert (result.ended, result.stdout, result.note) == (Ended.TIMEOUT, "before\n", "more than 0.3 seconds")


def test_the_same_program_prints_the_same_thing(sandbox: Sandbox) -> None:
    code = "import random\nprint({'a', 'b', 'c', 'd'}, random.random(), hash('x'))"
    assert len({sandbox.run(code).stdout for _ in range(3)}) == 1
    with Sandbox() as another:
        assert another.run(code).stdout == sandbox.run(code).stdout
    assert sandbox.run(code, seed=1).stdout != sandbox.run(code, seed=2).stdout


def test_programs_do_not_share_state(sandbox: Sandbox) -> None:
    sandbox.run("import math, builtins; math.pi = 3; builtins.len = None")
    assert sandbox.run("import math; print(math.pi, len('x'))").stdout == "3.141592653589793 1\n"


def test_packages_are_seen_only_when_named(sandbox: Sandbox) -> None:
    assert "ModuleNotFoundError" in sandbox.run("import numpy").stderr
    with Sandbox(packages=["numpy"]) as box:
        result = box.run("import numpy; print(numpy.arange(3).sum())", timeout_s=30)
        assert result.stdout == "3\n", result
    with pytest.raises(InvalidValue, match="no installed package 'no_such_package'"):
        Sandbox(packages=["no_such_package"]).run("")


# --- functions of the host ------------------------------------------------------------------------------------------


def test_a_program_calls_functions_of_the_host(sandbox: Sandbox) -> None:
    seen: list[object] = []

    def record(*args: object, **kwargs: object) -> object:
        seen.append((args, kwargs))
        return {"got": len(seen), (1, 2): {3}}

    result = sandbox.run(
        "import skills, world\nprint(record(1, [2.5, None], key=b'x'))\nprint(skills.twice())\nworld.record('last')",
        calls={"record": record},
        files={"skills.py": "from world import record\n\ndef twice():\n    return record('skill')['got']\n"},
    )
    assert result.stdout == "{'got': 1, (1, 2): {3}}\n2\n", result
    assert seen == [((1, [2.5, None]), {"key": b"x"}), (("skill",), {}), (("last",), {})]


def test_a_wrong_call_is_an_exception_in_the_program(sandbox: Sandbox) -> None:
    def fail(text: str) -> None:
        raise ValueError(f"no {text}")

    code = "try:\n    fail('tree')\nexcept ValueError as error:\n    print(error)\nfail()"
    result = sandbox.run(code, calls={"fail": fail})
    assert result.stdout == "no tree\n"
    assert "TypeError" in result.stderr
    assert "cannot leave the program" in sandbox.run("fail(object())", calls={"fail": fail}).stderr


def test_a_function_can_end_the_program(sandbox: Sandbox) -> None:
    def stop() -> None:
        raise ProgramInterrupted("step limit")

    result = sandbox.run("print('a')\ntry:\n    stop()\nfinally:\n    print('b')", calls={"stop": stop})
    assert (result.ended, result.stdout, result.note) == (Ended.INTERRUPTED, "a\n", "step limit")


def test_junk_on_the_channel_harms_nobody(sandbox: Sandbox) -> None:
    code = """
import os, struct, world
f = world.f.__closure__
channel = next(c.cell_contents for c in f if hasattr(c.cell_contents, "sock"))
for body in (b"junk", b"[]", b"{}", b'{"call": "g"}', b'{"call": "f", "args": 1}', b"[" * 100000):
    channel.sock.sendall(struct.pack(">I", len(body)) + body)
    print("error" in channel.receive_request()[0])
channel.sock.sendall(struct.pack(">I", 2**31))
while True: pass
"""
    result = sandbox.run(code, calls={"f": lambda: None})
    assert result.stdout == "True\n" * 6, result
    assert (result.ended, result.note) == (Ended.KILLED, "a message of 2147483648 bytes; the limit is 16777216")


def test_a_fault_of_the_host_is_not_the_programs(sandbox: Sandbox) -> None:
    class Broken(Exception):
        pass

    def fault() -> None:
        raise Broken

    with pytest.raises(Broken):
        sandbox.run("fault()", calls={"fault": fault})
    assert sandbox.run("print(1)").stdout == "1\n"


# --- many, none, closed ---------------------------------------------------------------------------------------------


def test_many_threads_share_one_sandbox(sandbox: Sandbox) -> None:
    results: dict[int, str] = {}

    def work(n: int) -> None:
        for i in range(5):
            results[n * 10 + i] = sandbox.run(f"print({n * 10 + i})").stdout

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n * 10 + i: f"{n * 10 + i}\n" for n in range(6) for i in range(5)}


def test_no_process_outlives_a_closed_sandbox() -> None:
    box = Sandbox()
    assert box.run("").ok
    [server] = box._idle
    box.close()
    assert server._process.returncode is not None
    assert not os.path.exists(server._folder)
    assert box.run("").ended is Ended.REFUSED


def test_a_server_costs_two_descriptors_and_returns_them() -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = held()
    with Sandbox() as box:
        for _ in range(10):  # more than are made ready at a time
            assert box.run("print(1)").ok
        assert held() == before + 2
        for trusted in (False, True, True):
            assert box.judge("def f(x): return x", ["assert f(1) == 1"], entry_point="f", trusted=trusted).passed
        assert held() == before + 2 * 2  # the second server is the judge's
    assert held() == before


def test_a_server_that_dies_is_replaced(sandbox: Sandbox) -> None:
    with Sandbox() as box:
        assert box.run("").ok
        box._idle[0]._process.kill()
        box._idle[0]._process.wait()
        assert [box.run("").ended for _ in range(2)][-1] is Ended.OK


def test_without_isolation_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "supported", lambda: False)
    with Sandbox() as box:
        with pytest.raises(SandboxUnavailable, match="allow_unisolated") as caught:
            _ = box.level
        assert isinstance(caught.value, AgentkitError)
        result = box.run("print(1)")
        assert (result.ended, result.stdout, result.level) == (Ended.REFUSED, "", Level.NONE)
        assert "No isolation" in result.note
        assert not box.judge("", []).passed


def test_a_server_that_cannot_be_started_is_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied", "/opt/python")

    monkeypatch.setattr(host_module, "command", unreadable)
    with Sandbox() as box:
        result = box.run("print(1)")
    assert result.ended is Ended.REFUSED
    assert "Permission denied: '/opt/python'" in result.note


def test_unisolated_runs_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "supported", lambda: False)
    with Sandbox(allow_unisolated=True, limits=Limits(output_bytes=1000)) as box:
        result = box.run("import os; print(os.listdir('.'), 'SECRET' in os.environ)")
        assert (result.ended, result.stdout, result.level) == (Ended.OK, "[] False\n", Level.NONE)
        assert box.run("while True: pass", timeout_s=0.3).ended is Ended.TIMEOUT
        assert box.run("print('x' * 10000)").ended is Ended.OUTPUT_LIMIT
        assert box.run("x = bytearray(10**10)").ended is Ended.MEMORY
        assert box.judge("def f(x): return x", ["assert f(1) == 1"]).passed


def test_bubblewrap_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SandboxUnavailable, match="bwrap is not installed"):
        _ = Sandbox(wall=WALLS[0]).level


def test_values_are_frozen(sandbox: Sandbox) -> None:
    result = sandbox.run("")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.ended = Ended.OK  # type: ignore[misc]
    assert dataclasses.is_dataclass(Wall)
    assert host_module._GRACE_S > 0


def test_a_deadline_must_be_positive(sandbox: Sandbox) -> None:
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidValue):
            sandbox.run("", timeout_s=wrong)


# --- after a fault of the host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [AttributeError, KeyboardInterrupt, FileNotFoundError, EOFError])
def test_after_a_fault_the_next_program_gets_its_own_report(fault: type[BaseException]) -> None:
    def stop() -> None:
        raise fault("the host's own")

    with Sandbox() as box:
        with pytest.raises(fault, match="the host's own"):
            box.run("stop()", calls={"stop": stop})
        for status in (3, 4):
            assert box.run(f"raise SystemExit({status})").exit_code == status


def test_an_interrupted_judging_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: LastingJudge) -> None:
        raise KeyboardInterrupt

    right, wrong = "def f(): return 1", "def f(): return 2"
    with Sandbox() as box:
        assert box.judge(right, ["assert f() == 1"], entry_point="f", trusted=True).passed
        monkeypatch.setattr(LastingJudge, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            box.judge(right, ["assert f() == 1"], entry_point="f", trusted=True)
        monkeypatch.undo()
        for program in (wrong, right):
            verdict = box.judge(program, ["assert f() == 1"], entry_point="f", trusted=True)
            assert verdict.passed == (program is right), verdict


def test_no_execution_leaves_a_descriptor_open(sandbox: Sandbox) -> None:
    def once(count: int) -> int:
        for _ in range(count):
            sandbox.run("print(1)")
            sandbox.run("f()", calls={"f": lambda: 1})
            for trusted in (True, False):
                sandbox.judge("def f(): return 1", ["assert f() == 1"], entry_point="f", trusted=trusted)
        return len(os.listdir("/proc/self/fd"))

    before = once(4)
    assert once(40) - before <= 4  # the channels of processes that wait are from none to four for each server


def test_a_stopped_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "_GRACE_S", 0.2)
    monkeypatch.setattr(core, "_JUDGE_EXTRA_S", 0.1)
    with Sandbox() as box:
        assert box.judge("def f(): return 1", ["assert f() == 1"], entry_point="f", trusted=True).passed
        for server in box.warm():
            for pid in _descendants(server._process.pid):
                os.kill(pid, signal.SIGSTOP)
        verdict = box.judge("def f(): return 1", ["assert f() == 1"], entry_point="f", trusted=True, timeout_s=0.2)
        assert not verdict.passed
        assert box.run("print(1)").stdout == "1\n"


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in _descendants(int(child)))]


def test_a_fork_of_the_host_keeps_no_program_waiting() -> None:
    with Sandbox() as box:
        assert box.judge("def f(): return 1", ["assert f() == 1"], entry_point="f", trusted=True).passed
        hold, release = os.pipe()
        forks = []
        judge_begin = LastingJudge.begin

        def begin(self: LastingJudge, request: dict[str, Any], program: socket.socket, timeout_s: float) -> None:
            forks.append(os.fork())
            if forks[-1] == 0:  # holds a copy of the program's channel for as long as it lives
                os.close(release)
                os.read(hold, 1)
                os._exit(0)
            judge_begin(self, request, program, timeout_s)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LastingJudge, "begin", begin)
            verdict = box.judge("def f(): return 1", ["assert f() == 1"], entry_point="f", trusted=True, timeout_s=3)
        os.close(release)
        os.close(hold)
        os.waitpid(forks[0], 0)
    assert (verdict.passed, verdict.program.ended) == (True, Ended.OK)


# --- what is asked ---------------------------------------------------------------------------------------------------


class _Text(str):
    """As template engines have it."""


def test_strings_of_derived_classes_are_strings(sandbox: Sandbox) -> None:
    result = sandbox.run(_Text("print(input(), open('a').read())"), stdin=_Text("1"), files={_Text("a"): _Text("2")})
    assert result.stdout == "1 2\n"
    assert sandbox.judge(_Text("def f(): return 1"), [_Text("assert f() == 1")], entry_point=_Text("f")).passed


@pytest.mark.parametrize("tests", ["assert f() == 1", [1], [b"assert f() == 1"], [None, "assert f() == 1"]])
def test_tests_that_are_no_list_of_strings_are_the_callers_mistake(sandbox: Sandbox, tests: Any) -> None:
    with pytest.raises(InvalidValue, match="give a"):
        sandbox.judge("def f(): return 1", tests, entry_point="f", trusted=True)


def test_a_file_above_the_limit_is_said_without_our_own_lines(sandbox: Sandbox) -> None:
    result = sandbox.run("print(1)", files={"a": "a" * (sandbox.limits.file_mb * 2**20 + 1)})
    assert (result.ended, result.stderr.splitlines()[-1]) == (Ended.ERROR, "OSError: [Errno 27] File too large")
    assert "/sandbox" not in result.stderr


@pytest.mark.parametrize(
    "value",
    [
        "{'Fraction': '1e999999999'}",
        "{'set': [{'int': format((2**61 - 1) * i, 'x')} for i in range(1, 500)]}",
        "{'dict': [[{'int': format((2**61 - 1) * i, 'x')}, 1] for i in range(1, 500)]}",
    ],
)
def test_no_value_keeps_the_host_busy(sandbox: Sandbox, value: str) -> None:
    code = f"""
import world
channel = next(c.cell_contents for c in world.f.__closure__ if hasattr(c.cell_contents, "sock"))
channel.send({{"call": "f", "args": {{"tuple": [{value}]}}, "kwargs": {{"dict": []}}}})
print(channel.receive_request()[0]["kind"])
"""
    assert sandbox.run(code, calls={"f": lambda x: None}).stdout == "WireError\n"
