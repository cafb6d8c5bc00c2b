"""The life of a skill, with a real store and programs that are really run."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.errors import InvalidValue, UnknownName
from agentkit.memory import Memory, Record
from agentkit.memory.errors import ReadOnly
from agentkit.memory.skill import Skill, Status
from agentkit.memory.skills import SkillLibrary
from agentkit.memory.skills_code import InvalidSkill, SkillCycle, join, outline


@dataclass(frozen=True)
class Ran:
    ok: bool
    stdout: str
    stderr: str


class Subprocess:
    """Each program in a Python of its own, in a folder of its own; and how many there were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[str] = []

    def run(self, code: str, *, timeout_s: float) -> Ran:
        self.programs.append(code)
        place = self.folder / str(len(self.programs))
        place.mkdir()
        (place / "program.py").write_text(code)
        command = [sys.executable, "-I", "-S", "program.py"]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return Ran(False, "", "")
        return Ran(done.returncode == 0, done.stdout, done.stderr)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "m.db") as memory:
        yield memory


@pytest.fixture
def library(memory: Memory, tmp_path: Path) -> SkillLibrary:
    return SkillLibrary(memory, Subprocess(tmp_path), timeout_s=20)


DOUBLE = 'def double(x: int) -> int:\n    """Twice a number."""\n    return 2 * x\n'
QUADRUPLE = 'def quadruple(x: int) -> int:\n    """Four times a number."""\n    return double(double(x))\n'


def runs(library: SkillLibrary) -> int:
    assert isinstance(library.executor, Subprocess)
    return len(library.executor.programs)


# --- proposing, verifying, admitting


def test_a_skill_that_passes_its_tests_is_admitted_and_found_by_its_description(library: SkillLibrary) -> None:
    proposed = library.propose("double", DOUBLE, tests="assert double(4) == 8", task="t1", episode="e1")
    assert (proposed.status, proposed.version, proposed.requires) == (Status.PROPOSED, 1, ())
    assert library.skills() == []
    assert library.recall("twice a number") == []
    admitted = library.verify(proposed)
    assert admitted.status is Status.ADMITTED
    library.add(
        "shout", "def shout(s):\n    return s.upper()", "Write a text in capitals.", tests="assert shout('a')=='A'"
    )
    (first, second) = library.recall("two times the number", k=5)
    assert Skill.of(first.record) == library.get("double") == admitted
    assert first.relevance > second.relevance
    assert first.record.text == "def double(x: int) -> int\n    Twice a number."
    assert (first.record.kind, first.record.task, first.record.episode) == ("skill", "t1", "e1")


def test_a_skill_that_fails_stays_proposed_and_says_why(library: SkillLibrary) -> None:
    skill = library.add("double", DOUBLE.replace("2 *", "3 *"), tests="assert double(4) == 8, 'not eight'")
    assert skill.status is Status.PROPOSED
    assert "AssertionError: not eight" in skill.reason
    assert library.get("double") == skill
    assert library.skills() == []
    with pytest.raises(UnknownName, match="double"):
        library.program(["double"])


@pytest.mark.parametrize(
    ("code", "tests", "reason"),
    [
        ("def f():\n    pass\nraise SystemExit(0)", "assert False", "ended before its tests"),
        ("import os\ndef f():\n    pass\nos._exit(0)", "assert False", "ended before its tests"),
        ("def f():\n    pass", "f = None", "no longer defined"),
        ("def f():\n    while True: pass", "f()", "stopped"),
        ("def f():\n    return g()", "f()", "NameError"),
    ],
)
def test_what_only_looks_like_a_pass_is_none(library: SkillLibrary, code: str, tests: str, reason: str) -> None:
    library.timeout_s = 3
    skill = library.add("f", code, "Do a thing.", tests=tests)
    assert skill.status is Status.PROPOSED
    assert reason in skill.reason


def test_a_skill_without_tests_needs_evidence_and_its_code_is_run_all_the_same(library: SkillLibrary) -> None:
    assert "no tests" in library.add("double", DOUBLE).reason
    assert runs(library) == 0
    assert library.add("double", DOUBLE, evidence="solved episode 7").status is Status.ADMITTED
    broken = library.add(
        "half", "import nothing_of_this_name\n\ndef half(x): return x / 2", "Half.", evidence="said so"
    )
    assert "ModuleNotFoundError" in broken.reason


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("../x", DOUBLE, "no name"),
        ("print", DOUBLE, "Python has it"),
        ("match", DOUBLE, "Python has it"),
        ("__init__", DOUBLE, "Python has it"),
        ("größe", DOUBLE, "no name"),
        ("a" * 65, DOUBLE, "no name"),
        ("double", "def double(x:\n", r"not valid Python: .* \(line 1\)"),
        ("double", "def double(x):\n    return 1\nreturn 2", "not valid Python"),
        ("double", "def double(x): '\ud800'", "not valid Python"),
        ("double", DOUBLE + "\0", "not valid Python"),
        ("double", "def double(x): return " + "(" * 5000 + "x" + ")" * 5000, "not valid Python"),
        ("double", "def twice(x): return 2 * x", "it defines twice"),
        ("double", "def double(x): return 2 * x", "has 0 characters"),
    ],
)
def test_what_is_no_skill_is_refused_and_nothing_is_stored_or_run(
    library: SkillLibrary, name: str, code: str, message: str
) -> None:
    with pytest.raises(InvalidSkill, match=message):
        library.add(name, code, tests="assert double(1) == 2")
    assert len(library.memory) == 0
    assert runs(library) == 0


def test_tests_that_are_no_python_and_descriptions_without_end_are_refused(library: SkillLibrary) -> None:
    with pytest.raises(InvalidSkill, match="tests of 'double'"):
        library.add("double", DOUBLE, tests="assert (")
    with pytest.raises(InvalidSkill, match="1025 characters"):
        library.add("double", DOUBLE, "x" * 1025, tests="pass")


# --- dependencies


def test_dependencies_are_found_in_the_code_and_run_before_it(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    skill = library.add("quadruple", QUADRUPLE, tests="assert quadruple(1) == 4")
    assert skill.requires == ("double",)
    assert skill.verified_with == {"double": 1}
    octuple = "def octuple(x):\n    'Eight times.'\n    double = quadruple\n    return 2 * double(x)"
    assert library.add("octuple", octuple, tests="assert octuple(1) == 8").requires == ("quadruple",)
    program = library.program(["octuple"])
    assert [program.index(f"def {name}(") for name in ("double", "quadruple", "octuple")] == sorted(
        program.index(f"def {name}(") for name in ("double", "quadruple", "octuple")
    )
    names: dict[str, object] = {}
    exec(program, names)
    assert names["octuple"](3) == 24  # type: ignore[operator]
    assert library.program(["octuple", "double"]) == program
    assert library.program([]).strip() == ""


def test_a_dependency_that_is_unknown_or_not_in_use_is_named(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    with pytest.raises(UnknownName, match="Did you mean 'double'"):
        library.propose("quadruple", QUADRUPLE, requires=["dubble"])
    library.demote("double", "by hand")
    skill = library.add("quadruple", QUADRUPLE, tests="assert quadruple(1) == 4")
    assert skill.reason == "needs double, not in use"


def test_circles_are_refused(library: SkillLibrary) -> None:
    with pytest.raises(SkillCycle, match="even -> even"):
        library.propose("even", "def even(n):\n    'Is it even?'\n    return odd(n)", requires=["even"])
    library.add("even", "def even(n):\n    'Is it even?'\n    return n % 2 == 0", tests="assert even(2)")
    library.add("odd", "def odd(n):\n    'Is it odd?'\n    return not even(n)", tests="assert odd(1)")
    before = len(library.skills(None))
    with pytest.raises(SkillCycle, match="even -> odd -> even"):
        library.add("even", "def even(n):\n    'Is it even?'\n    return n == 0 or odd(n - 1)", tests="assert even(2)")
    assert len(library.skills(None)) == before


def test_programs_that_would_hide_each_others_names_are_refused(library: SkillLibrary) -> None:
    library.add("double", "def _help(x): return x\n" + DOUBLE, tests="assert double(1) == 2")
    with pytest.raises(InvalidSkill, match="binds _help"):
        library.propose("half", "def _help(x): return x\ndef half(x):\n    'Half.'\n    return x / 2")
    with pytest.raises(InvalidSkill, match="binds double"):
        library.propose("half", "from numpy import double\ndef half(x):\n    'Half.'\n    return x / 2")
    library.propose("half", "def half(x):\n    'Half.'\n    _help = 2\n    return x / _help")


# --- versions, re-runs, demotion


def test_a_new_version_takes_the_place_of_the_old_and_its_dependents_are_run_again(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    library.add("quadruple", QUADRUPLE, tests="assert quadruple(1) == 4")
    before = runs(library)
    second = library.add("double", DOUBLE.replace("2 * x", "x + x"), tests="assert double(4) == 8")
    assert runs(library) == before + 2
    assert (second.version, library.get("double").code) == (2, DOUBLE.replace("2 * x", "x + x"))
    assert [(s.version, s.status) for s in library.history("double")] == [(1, Status.SUPERSEDED), (2, Status.ADMITTED)]
    assert library.get("double", 1).code == DOUBLE
    assert library.get("quadruple").verified_with == {"double": 2}


def test_dependents_that_stop_passing_are_demoted_all_the_way_up_and_come_back_when_it_is_repaired(
    library: SkillLibrary,
) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    library.add("quadruple", QUADRUPLE, tests="assert quadruple(1) == 4")
    library.add("octuple", "def octuple(x):\n    'Eight.'\n    return 2*quadruple(x)", tests="assert octuple(1) == 8")
    library.add("other", "def other(x):\n    'Another.'\n    return x", tests="assert other(1) == 1")
    admitted_at = library.memory.seq
    library.add("double", DOUBLE.replace("2 *", "3 *"), tests="assert double(2) == 6")
    assert [s.name for s in library.skills()] == ["double", "other"]
    assert "AssertionError" in library.get("quadruple").reason
    assert library.get("octuple").reason == "needs quadruple, not in use"
    assert {r.record.data["name"] for r in library.recall("eight four", k=9)} == {"double", "other"}
    assert [s.name for s in library.at(admitted_at).skills()] == ["double", "octuple", "other", "quadruple"]
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    assert [s.name for s in library.skills()] == ["double", "octuple", "other", "quadruple"]
    assert library.get("octuple").verified_with == {"double": 3, "quadruple": 1}


def test_a_failing_proposal_leaves_the_version_in_use_alone(library: SkillLibrary) -> None:
    first = library.add("double", DOUBLE, tests="assert double(4) == 8")
    failed = library.add("double", DOUBLE.replace("2 *", "3 *"), tests="assert double(4) == 8")
    assert (failed.version, failed.status) == (2, Status.PROPOSED)
    assert library.get("double") == first
    third = library.add("double", DOUBLE.replace("2 * x", "x + x"), tests="assert double(4) == 8")
    assert (third.version, library.get("double")) == (3, third)
    with pytest.raises(InvalidSkill, match="version 3 took its place"):
        library.verify(failed)


def test_a_skill_demoted_by_hand_stays_so_until_it_is_verified(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    library.add("quadruple", QUADRUPLE, tests="assert quadruple(1) == 4")
    library.demote("quadruple", "it misleads")
    library.add("double", DOUBLE.replace("2 * x", "x + x"), tests="assert double(4) == 8")
    assert library.refresh(everything=True) == []
    held = library.get("quadruple")
    assert (held.status, held.reason, held.held) == (Status.DEMOTED, "it misleads", True)
    assert library.verify(held).status is Status.ADMITTED
    library.demote("double", "by hand")
    assert library.skills() == []


def test_refresh_runs_again_what_passed_with_other_versions(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    quadruple = library.add("quadruple", QUADRUPLE, tests="assert quadruple(1) == 4")
    assert library.refresh() == []
    data = dict(library.memory.get(quadruple.id).data)
    assert isinstance(library.memory, Memory)
    library.memory.edit(quadruple.id, data={**data, "verified_with": {"double": 0}})
    before = runs(library)
    (changed,) = library.refresh()
    assert (changed.name, changed.verified_with, runs(library)) == ("quadruple", {"double": 1}, before + 1)
    library.refresh(everything=True)
    assert runs(library) == before + 3


def test_a_skill_that_fails_when_it_is_run_again_is_demoted(library: SkillLibrary, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.write_text("")
    code = f"import os\n\ndef there():\n    'Is the file there?'\n    return os.path.exists({str(flag)!r})"
    skill = library.add("there", code, tests="assert there()")
    flag.unlink()
    assert library.verify(skill).status is Status.DEMOTED
    flag.write_text("")
    (back,) = library.refresh(everything=True)
    assert back.status is Status.ADMITTED


# --- the log


def test_rolling_back_the_memory_rolls_back_the_library(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    assert isinstance(library.memory, Memory)
    seq = library.memory.seq
    library.add("double", DOUBLE.replace("2 *", "3 *"), tests="assert double(4) == 12")
    assert library.at(seq).program(["double"]) != library.program(["double"])
    library.memory.rollback(seq)
    assert [(s.version, s.code) for s in library.skills(None)] == [(1, DOUBLE)]
    assert library.program(["double"]) == library.at(seq).program(["double"])


def test_a_library_of_the_past_can_be_read_and_not_changed(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    past = library.at(library.memory.seq)
    assert [Skill.of(r.record).name for r in past.recall("twice")] == ["double"]
    with pytest.raises(ReadOnly):
        past.propose("double", DOUBLE)
    bare = SkillLibrary(library.memory)
    with pytest.raises(InvalidValue, match="executor"):
        bare.add("double", DOUBLE, tests="pass")


def test_a_library_survives_its_process_and_shares_a_memory_with_others(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(path) as memory:
        memory.add(Record("lesson", "twice a number"))
        SkillLibrary(memory, Subprocess(tmp_path), namespace="a").add("double", DOUBLE, tests="assert double(1) == 2")
    with Memory(path) as memory:
        assert SkillLibrary(memory, namespace="a").get("double").status is Status.ADMITTED
        assert SkillLibrary(memory, namespace="b").skills(None) == []
        assert SkillLibrary(memory, namespace="b").recall("twice a number") == []
        assert len(SkillLibrary(memory, namespace="a").recall("twice a number")) == 1


def test_skills_learned_inside_a_transaction_are_committed_with_it(library: SkillLibrary) -> None:
    assert isinstance(library.memory, Memory)
    with library.memory.transaction():
        library.add("double", DOUBLE, tests="assert double(4) == 8")
        assert library.skills() == []
    (skill,) = library.skills()
    assert (skill.name, skill.id > 0) == ("double", True)

    class Stop(Exception):
        pass

    def interrupted() -> None:
        assert isinstance(library.memory, Memory)
        with library.memory.transaction():
            library.add("other", "def other():\n    'Other.'", tests="other()")
            raise Stop

    with pytest.raises(Stop):
        interrupted()
    assert [s.name for s in library.skills(None)] == ["double"]


# --- rendering, and what the code says of itself


def test_signatures_are_rendered_within_a_budget_and_whole_programs_when_asked(library: SkillLibrary) -> None:
    library.add("double", DOUBLE, tests="assert double(4) == 8")
    library.add("quadruple", QUADRUPLE, tests="assert quadruple(1) == 4")
    recalled = library.recall("four times a number", k=2)
    text, ids = library.render(recalled, 1000)
    assert text == (
        "def quadruple(x: int) -> int\n    Four times a number.\n\ndef double(x: int) -> int\n    Twice a number."
    )
    assert ids == (library.get("quadruple").id, library.get("double").id)
    text, ids = library.render(recalled, 15)
    assert text.startswith("def quadruple")
    assert len(ids) == 1
    text, _ = library.render(recalled, 1000, whole=True)
    assert text == f"{QUADRUPLE.strip()}\n\n{DOUBLE.strip()}"


def test_outlines() -> None:
    code = '''
from __future__ import annotations
import math as m
from os import path, sep
LIMIT: int = 3
async def fetch(a, /, b: int = 2, *rest, c=None, **more) -> list[str]:
    """Fetch
    things.

    More of it."""
    global SEEN
    local = helper(a)
    return [other(x) for x in local]
class Box(dict):
    "A box."
    def __init__(self, size: int): ...
    def open(self): return m.sin(unknown)
    def _hidden(self): ...
'''
    shape = outline("fetch", code)
    assert shape.signature == "async def fetch(a, /, b: int=2, *rest, c=None, **more) -> list[str]"
    assert shape.summary == "Fetch things."
    assert shape.imports >= {"m", "path", "sep"}
    assert shape.defines == {"LIMIT", "fetch", "Box"}
    assert shape.uses >= {"helper", "other", "unknown", "m"}
    assert not shape.uses & {"local", "x", "a"}
    box = outline("Box", code)
    assert box.signature == "class Box(dict)\n    def __init__(self, size: int)\n    def open(self)"


def test_joined_programs_keep_future_imports_first_and_everything_else() -> None:
    first = "'doc'\nfrom __future__ import annotations\nx = 1"
    second = "from __future__ import (\n    annotations,\n    generator_stop,\n); y = 'é'\n"
    second += "z = '''\nfrom __future__ import x'''"
    program = join([first, second, "", "assert (x, y) == (1, 'é')"])
    assert program.startswith("from __future__ import annotations, generator_stop\n")
    names: dict[str, object] = {}
    exec(program, names)
    assert names["z"] == "\nfrom __future__ import x"


class InProcess:
    """Runs programs of this file's own making, hundreds of them, where a process for each would take too long."""

    def run(self, code: str, *, timeout_s: float) -> Ran:
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(code, {})
        except AssertionError as error:
            return Ran(False, out.getvalue(), f"AssertionError: {error}")
        return Ran(True, out.getvalue(), "")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_programs_hold_everything_below_them_and_dependencies_come_first(data: st.DataObject) -> None:
    """Random acyclic graphs of skills: the order of a program is a topological order of what is below its names, and
    each skill returns all that it reaches."""

    count = data.draw(st.integers(1, 7))
    below = [data.draw(st.sets(st.integers(0, i - 1))) if i else set() for i in range(count)]
    reach: list[set[int]] = []
    for i in range(count):
        reach.append({i}.union(*(reach[j] for j in below[i])))
    with Memory(":memory:") as memory:
        library = SkillLibrary(memory, InProcess())
        for i in range(count):
            calls = " | ".join([f"{{{i}}}", *(f"s{j}()" for j in sorted(below[i]))])
            skill = library.add(f"s{i}", f"def s{i}():\n    'Skill.'\n    return {calls}", tests=f"s{i}()")
            assert skill.status is Status.ADMITTED
            assert set(skill.requires) == {f"s{j}" for j in below[i]}
        wanted = data.draw(st.sets(st.integers(0, count - 1)))
        program = library.program([f"s{i}" for i in wanted])
        present = [int(line[5:].partition("(")[0]) for line in program.splitlines() if line.startswith("def s")]
        assert set(present) == set().union(*(reach[i] for i in wanted))
        for place, i in enumerate(present):
            assert below[i] <= set(present[:place])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happens_what_is_in_use_passes_with_what_is_in_use(data: st.DataObject) -> None:
    """Random proposals (which may break others, need others, or fail), demotions, rollbacks and refreshes. A skill
    returns a number and calls those below it; its tests want of them the numbers that they returned at its proposal."""
    with Memory(":memory:") as memory:
        library = SkillLibrary(memory, InProcess())
        held: set[str] = set()
        saved: list[tuple[int, set[str]]] = [(0, set())]
        for _ in range(data.draw(st.integers(1, 14))):
            known = {s.name: s for s in library.skills(None) if s.status in (Status.ADMITTED, Status.DEMOTED)}
            kind = data.draw(st.sampled_from(["add", "add", "add", "demote", "rollback", "refresh"]))
            if kind == "add":
                name = f"s{data.draw(st.integers(0, 4))}"
                below = sorted(data.draw(st.sets(st.sampled_from(sorted(known)))) - {name}) if known else []
                value = data.draw(st.integers(0, 2))
                wanted = {other: int(library.get(other).code.rpartition(" ")[2]) for other in below}
                tests = "".join(f"assert {other}() == {n}\n" for other, n in wanted.items())
                tests += f"assert {name}() == {value if data.draw(st.booleans()) else value + 1}"
                calls = "".join(f"    {other}()\n" for other in below)
                with contextlib.suppress(SkillCycle):
                    skill = library.add(name, f"def {name}():\n    'Skill.'\n{calls}    return {value}", tests=tests)
                    if skill.status is Status.ADMITTED:
                        held.discard(name)
            elif kind == "demote" and known:
                name = data.draw(st.sampled_from(sorted(known)))
                library.demote(name, "by hand")
                held.add(name)
            elif kind == "rollback":
                seq, then = data.draw(st.sampled_from(saved))
                memory.rollback(seq)
                held = set(then)
            else:
                assert library.refresh() == []
            saved.append((memory.seq, set(held)))

            used = {s.name: s for s in library.skills()}
            assert not held & used.keys()
            assert len(used) == len(library.skills())
            for skill in used.values():
                assert set(skill.requires) <= used.keys()
                assert skill.verified_with.keys() >= set(skill.requires)
                assert all(used[name].version == version for name, version in skill.verified_with.items())
                exec(library.program([skill.name]) + skill.tests, {})
            for skill in library.skills(Status.DEMOTED):
                if skill.name not in held and set(skill.requires) <= used.keys():
                    program = library.program(skill.requires) + skill.code + "\n" + skill.tests
                    with pytest.raises(AssertionError):
                        exec(program, {})
            assert {r.record.data["name"] for r in library.recall("skill", k=20)} == used.keys()


def test_the_sandbox_is_an_executor(memory: Memory) -> None:
    from agentkit.envs.sandbox import Level, Sandbox, SandboxUnavailable

    with Sandbox() as sandbox:
        try:
            assert sandbox.level is not Level.NONE
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        library = SkillLibrary(memory, sandbox)
        assert library.add("double", DOUBLE, tests="assert double(4) == 8").status is Status.ADMITTED
        failed = library.add("double", DOUBLE, tests="assert double(4) == 9")
        assert "AssertionError" in failed.reason
