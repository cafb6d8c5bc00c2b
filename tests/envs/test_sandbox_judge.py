"""Programs that try to pass tests without solving them, and honest ones."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.envs.sandbox import Ended, Limits, Sandbox, core, host, judges
from agentkit.envs.sandbox.inside.wire import WireError, from_json, to_json

SECRET = 271828182
TESTS = [f"assert f(1) == {SECRET}", f"assert f(2) == {SECRET + 1}"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(memory_mb=256)) as box:
        yield box


def test_a_right_program_passes(sandbox: Sandbox) -> None:
    verdict = sandbox.judge(f"def f(x):\n    return {SECRET - 1} + x\n", TESTS, entry_point="f")
    assert verdict.passed, verdict
    assert [t.passed for t in verdict.tests] == [True, True]


def test_a_wrong_program_is_told_which_line_failed(sandbox: Sandbox) -> None:
    verdict = sandbox.judge(f"def f(x):\n    return {SECRET}\n", TESTS, entry_point="f")
    assert not verdict.passed
    assert [t.passed for t in verdict.tests] == [True, False]
    assert verdict.tests[1].message == f"assert f(2) == {SECRET + 1}\nAssertionError"


CHEATS = {
    "prints": "print('ok'); print('1 passed'); print('OK')\ndef f(x): return 0",
    "exit": "import os; os._exit(0)",
    "exit_in_call": "import os\ndef f(x): os._exit(0)",
    "sys_exit": "import sys\ndef f(x): sys.exit(0)",
    "raise_exit": "raise SystemExit(0)",
    "equal_to_all": "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "equal_int": "class A(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return A(5)",
    "equal_list": "class A(list):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "patch_builtins": "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {})\n"
    "builtins.exec = lambda *a: None\nbuiltins.compile = lambda *a, **k: None\ndef f(x): return 0",
    "patch_checker": "import sys\nfor m in list(sys.modules.values()):\n    for n in list(vars(m)):\n"
    "        if 'judge' in n.lower() or 'Globals' in n: setattr(m, n, None)\ndef f(x): return 0",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
    "frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
    "        for v in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
    "            if isinstance(v, str) and 'assert' in v and 'f(' in v:\n"
    "                import re\n                return int(re.findall(r'== (\\d+)', v)[x - 1])\n"
    "        frame = frame.f_back\n",
    "heap": "import gc, re\ndef f(x):\n    for o in gc.get_objects():\n        for v in (o if isinstance(o, (list, tuple)) else list(o.values()) if isinstance(o, dict) else ()):\n"
    "            if isinstance(v, str) and re.search(r'assert f\\(', v):\n"
    "                return int(re.findall(r'== (\\d+)', v)[x - 1])\n",
    "stop_iteration": "def f(x): raise StopIteration",
    "keyboard": "def f(x): raise KeyboardInterrupt",
    "assertion": "def f(x): raise AssertionError",
    "memory": "def f(x): return [0] * 10**10",
    "unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef f(x): return 0",
    "forge_result": "import json, struct, os\nbody = json.dumps({'results': [{'passed': True, 'message': ''}] * 2, 'error': ''}).encode()\n"
    "for fd in range(3, 20):\n    try: os.write(fd, struct.pack('>I', len(body)) + body)\n    except OSError: pass\ndef f(x): return 0",
    "forge_answers": "import struct, os, json\nbody = json.dumps({'value': {'judge': 1}}).encode()\n"
    "for fd in range(3, 20):\n    for _ in range(5):\n        try: os.write(fd, struct.pack('>I', len(body)) + body)\n        except OSError: pass\n",
    "flood": "import os\nwhile True:\n    for fd in range(3, 20):\n        try: os.write(fd, b'\\x7f' * 65536)\n        except OSError: pass\n",
    "deep": "def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a",
    "huge": "def f(x): return 'x' * 2**25",
    "no_function": "g = 1",
    "syntax": "def f(x: return 1",
    "endless": "def f(x):\n    while True: pass",
    "signals": "import os, signal\ndef f(x): os.kill(0, signal.SIGKILL)",
    "kill_all": "import os\ndef f(x):\n    for p in range(1, 500):\n        try: os.kill(p, 9)\n        except OSError: pass",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes(sandbox: Sandbox, cheat: str) -> None:
    verdict = sandbox.judge(CHEATS[cheat], TESTS, entry_point="f", timeout_s=1.5)
    assert not verdict.passed, verdict
    assert not any(t.passed for t in verdict.tests)
    # And the sandbox is none the worse for it.
    assert sandbox.judge(f"def f(x): return {SECRET - 1} + x", TESTS, entry_point="f").passed


def test_an_endless_program_is_named_as_such(sandbox: Sandbox) -> None:
    verdict = sandbox.judge("def f(x):\n    while True: pass", TESTS, entry_point="f", timeout_s=0.5)
    assert (verdict.program.ended, verdict.note) == (Ended.TIMEOUT, "more than 0.5 seconds")


def test_a_thread_that_never_ends_is_not_waited_for(sandbox: Sandbox) -> None:
    program = """
import threading
def spin():
    while True: pass
def f(x):
    threading.Thread(target=spin).start()
    return x
"""
    verdict = sandbox.judge(program, ["assert f(1) == 1"], entry_point="f", timeout_s=4.0)
    assert verdict.passed
    assert verdict.program.ended is Ended.OK


def test_ending_a_loop_does_not_pass_it(sandbox: Sandbox) -> None:
    tests = ["assert all(map(f, range(5)))", "assert [*map(f, [1, 2])] == []"]
    verdict = sandbox.judge("def f(x): raise StopIteration", tests, entry_point="f")
    assert [t.passed for t in verdict.tests] == [False, False]


def test_expected_exceptions_cross(sandbox: Sandbox) -> None:
    test = "try:\n    f(0)\nexcept ZeroDivisionError as error:\n    assert 'division' in str(error)\nelse:\n    assert False"
    assert sandbox.judge("def f(x): return 1 / x", [test], entry_point="f").passed
    assert not sandbox.judge("def f(x): return x", [test], entry_point="f").passed


def test_changes_to_arguments_are_seen(sandbox: Sandbox) -> None:
    test = "xs = [3, 1, 2]\nd = {}\nassert f(xs, d) is None\nassert xs == [1, 2, 3] and d == {'n': 3}"
    assert sandbox.judge("def f(xs, d):\n    xs.sort()\n    d['n'] = len(xs)", [test], entry_point="f").passed
    assert not sandbox.judge("def f(xs, d): pass", [test], entry_point="f").passed


def test_objects_of_the_programs_own_stay_there(sandbox: Sandbox) -> None:
    program = "class P:\n    def __init__(self, x): self.x = x\ndef f(ps): return sum(p.x for p in ps)\nLIMIT = 7"
    tests = ["assert f([P(1), P(2)]) == 3", "assert LIMIT == 7", "assert f([P(1)]) == 2"]
    verdict = sandbox.judge(program, tests, entry_point="f")
    assert [t.passed for t in verdict.tests] == [True, True, False], verdict


def test_helpers_of_the_task_are_the_tasks_own(sandbox: Sandbox) -> None:
    prelude = "import math\ndef poly(x): return x * x - 2\n"
    test = "assert math.fabs(poly(f())) < 1e-6"
    assert sandbox.judge("def f(): return 2 ** 0.5", [test], entry_point="f", prelude=prelude).passed
    cheat = "def poly(x): return 0\ndef f(): return 5"
    assert not sandbox.judge(cheat, [test], entry_point="f", prelude=prelude).passed


def test_tests_do_not_share_their_globals(sandbox: Sandbox) -> None:
    verdict = sandbox.judge("def f(): return 1", ["x = 1", "assert x == 1"], entry_point="f")
    assert [t.passed for t in verdict.tests] == [True, False]


def test_a_function_as_an_argument_is_refused_in_words(sandbox: Sandbox) -> None:
    verdict = sandbox.judge("def f(g): return g(1)", ["assert f(lambda x: x) == 1"], entry_point="f")
    assert "cannot leave the program" in verdict.tests[0].message


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=200, deadline=None)
def test_plain_data_crosses_unchanged(value: object) -> None:
    back = from_json(to_json(value))
    assert back == value
    assert type(back) is type(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["tuple", "dict", "set", "int", "bytes", "range", "Fraction", "Decimal", "x"]), inner
        )
    ),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_any_message_is_data_or_refused(message: object) -> None:
    try:
        value = from_json(message)
    except WireError:
        return
    assert type(value).__module__ in ("builtins", "collections", "decimal", "fractions")


# --- a judge that lives on, for trusted tests -----------------------------------------------------------------------


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes_a_judge_that_lives_on(sandbox: Sandbox, cheat: str) -> None:
    verdict = sandbox.judge(CHEATS[cheat], TESTS, entry_point="f", timeout_s=1.5, trusted=True)
    assert not verdict.passed, verdict
    assert not any(t.passed for t in verdict.tests)
    assert sandbox.judge(f"def f(x): return {SECRET - 1} + x", TESTS, entry_point="f", trusted=True).passed


def test_trusted_tests_leave_nothing_for_the_next(sandbox: Sandbox) -> None:
    program = "def f(x): return x"
    marks = [
        "import builtins\nbuiltins.mark = 1\nassert f(1) == 1",
        "import math\nmath.pi = 3\nassert f(1) == 1",
        "import colorsys\ncolorsys.mark = 1\nassert f(1) == 1",
        "mark = 1\nassert f(1) == 1",
        "import random\nrandom.random()\nassert f(1) == 1",
        "import sys\nsys.setrecursionlimit(150)\nassert f(1) == 1",
        "import os\nos.environ['mark'] = '1'\nassert f(1) == 1",
        "import gc\ngc.disable()\nassert f(1) == 1",
    ]
    look = (
        "import builtins, colorsys, gc, math, os, random, sys\n"
        "assert sys.getrecursionlimit() > 150 and 'mark' not in os.environ and gc.isenabled()\n"
        "assert not hasattr(builtins, 'mark') and not hasattr(colorsys, 'mark') and 'mark' not in globals()\n"
        "assert math.pi > 3.1 and random.random() == random.Random(0).random() and f(1) == 1"
    )
    for mark in marks:
        assert sandbox.judge(program, [mark], entry_point="f", trusted=True).passed
        verdict = sandbox.judge(program, [look], entry_point="f", trusted=True)
        assert verdict.passed, (mark, verdict)


def test_trusted_tests_share_a_judge_and_others_do_not() -> None:
    program, tests = "def f(x): return x", ["assert f(1) == 1"]
    with Sandbox() as box:
        assert box.judge(program, tests).passed
        assert not box._judges
        assert box.judge(program, tests, trusted=True).passed
        [lasting] = box._judges
        assert box.judge(program, tests, trusted=True).passed
        assert box.judge(program, tests).passed
        assert box._judges == [lasting]


def test_a_trusted_test_that_never_ends_is_ended(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_JUDGE_EXTRA_S", 0.3)
    for test in ("f(1)\nwhile True: pass", "import os\nos._exit(0)"):
        verdict = sandbox.judge("def f(x): return x", [test], entry_point="f", timeout_s=0.3, trusted=True)
        assert not verdict.passed
        assert verdict.judge.ended in (Ended.TIMEOUT, Ended.KILLED)
        assert sandbox.judge("def f(x): return x", ["assert f(1) == 1"], entry_point="f", trusted=True).passed


def test_a_judging_that_was_interrupted_leaves_no_report_for_the_next(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def interrupted(self: object) -> None:
        raise Stop

    for kind in (judges.LastingJudge, judges.FreshJudge, host.Execution):
        trusted = kind is not judges.FreshJudge
        with monkeypatch.context() as patch:
            patch.setattr(kind, "wait", interrupted)
            with pytest.raises(Stop):
                sandbox.judge("def f(x): return 1", ["assert f(1) == 1"], entry_point="f", trusted=trusted)
        for trusted in (True, False):
            wrong = sandbox.judge("def f(x): return 2", ["assert f(1) == 1"], entry_point="f", trusted=trusted)
            assert [t.passed for t in wrong.tests] == [False]
            assert sandbox.run("print(3)").stdout == "3\n"


def test_what_a_program_answers_takes_no_memory_from_the_next() -> None:
    with Sandbox(limits=Limits(memory_mb=128)) as sandbox:
        hoard = "L = [0.5] * 1000000\ndef f(x):\n    return 0 if x == 1 else L if x == 2 else 0\n"
        asks = "def check(c):\n    assert f(1) == 2\n    assert f(2) == 3\ncheck(f)"
        for _ in range(12):
            assert not sandbox.judge(hoard, [asks], entry_point="f", trusted=True).passed
        needs = "x = [float(i) for i in range(500_000)]\nassert f(1) == 1"
        verdict = sandbox.judge("def f(x):\n    return x\n", [needs], entry_point="f", trusted=True)
        assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("class Own(ValueError): pass\ndef f(x): raise Own('no')", "ValueError"),
        ("import json\ndef f(x): json.loads('{')", "ValueError"),
        ("def f(x): bytes([255]).decode()", "ValueError"),
        ("class Own(KeyError, ValueError): pass\ndef f(x): raise Own('no')", "LookupError"),
        ("class Own(Exception): pass\ndef f(x): raise Own('no')", "Exception"),
    ],
)
def test_an_exception_of_a_derived_class_is_the_one_that_a_test_expects(
    sandbox: Sandbox, program: str, expected: str
) -> None:
    test = f"said = ''\ntry:\n    f(1)\nexcept {expected}:\n    said = 'raised'\nassert said == 'raised'"
    verdict = sandbox.judge(program, [test], entry_point="f")
    assert verdict.passed, verdict


def test_a_program_that_remembers_is_asked_in_the_order_of_the_test(sandbox: Sandbox) -> None:
    program = (
        "n = 0\ndef f(step=1):\n    global n\n    n += step\n    return n\ndef reset():\n    global n\n    n = 0\n"
    )
    for test in (
        "assert f() == 1\nreset()\nassert f() == 1",
        "assert f() == 1\nassert n == 1\nassert f() == 2",
        "for i in range(2):\n    assert f(1) == 3 * i + 1\n    assert f(2) == 3 * i + 3",
        "step = 5\nassert f(step) == 5 and f(1) == 6\nassert f(2) == 8",
        "if not __name__:\n    f(100)\nassert f() == 1",
        "def check(g):\n    assert g() == 1\n    reset()\n    assert g() == 1\nassert f() == 1\nassert f(-1) == 0\ncheck(f)",
        "def twice():\n    return f(1) + f(1)\nassert f(2) == 2\nassert twice() == 3 + 4",
    ):
        verdict = sandbox.judge(program, [test], entry_point="f")
        assert verdict.passed, (test, verdict.tests)
    assert sandbox.judge(program, ["assert f() == 6"], prelude="f(5)", entry_point="f").passed


@pytest.mark.parametrize("said", ["'x'", "{}", "[1]", "{'results': [1], 'error': ''}", "{'results': None}"])
def test_a_report_that_a_test_made_up_is_no_pass(sandbox: Sandbox, said: str) -> None:
    test = f"""
import os, sys
frame = sys._getframe()
while 'host' not in frame.f_locals:
    frame = frame.f_back
frame.f_locals['host'].send({said})
os._exit(0)
"""
    verdict = sandbox.judge("def f(): return 1", [test], entry_point="f")
    assert (verdict.passed, verdict.note) == (False, "the judge's report is none")


def test_a_test_that_floods_the_host_fills_none_of_its_memory(sandbox: Sandbox) -> None:
    test = """
import sys
frame = sys._getframe()
while 'host' not in frame.f_locals:
    frame = frame.f_back
for _ in range(50):
    frame.f_locals['host'].send('x' * 1_000_000)
"""
    tracemalloc.start()
    try:
        assert not sandbox.judge("def f(): return 1", [test], entry_point="f").passed
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("module", ["heapq", "json", "operator"])
def test_a_patched_module_is_not_the_next_programs(sandbox: Sandbox, module: str) -> None:
    patch = f"import {module}\n{module}.patched = 1"
    assert sandbox.judge("", [patch], trusted=True).passed
    assert sandbox.judge("", [f"import {module}\nassert not hasattr({module}, 'patched')"], trusted=True).passed
