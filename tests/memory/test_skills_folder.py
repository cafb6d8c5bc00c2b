"""Skills as folders: what goes out comes back, and what comes in is not trusted."""

from __future__ import annotations

import builtins
import keyword
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.errors import InvalidValue
from agentkit.memory import Memory
from agentkit.memory.skill import Skill, Status
from agentkit.memory.skills import SkillLibrary
from agentkit.memory.skills_code import InvalidSkill
from agentkit.memory.skills_folder import export_skills, folder_name, import_skills, read_skill
from tests.memory.test_skills import DOUBLE, QUADRUPLE, Subprocess

RESERVED = {*dir(builtins), *keyword.kwlist, *keyword.softkwlist}
CHARACTERS = st.characters(codec="utf-8")
HEAD = "---\nname: double\ndescription: Twice a number.\n---\nCall it.\n"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[SkillLibrary]:
    work = tmp_path / "work"
    work.mkdir()
    with Memory(":memory:") as memory:
        yield SkillLibrary(memory, Subprocess(work), timeout_s=20)


def write(folder: Path, document: str = HEAD, /, **scripts: str) -> Path:
    (folder / "scripts").mkdir(parents=True)
    (folder / "SKILL.md").write_text(document)
    for name, code in scripts.items():
        (folder / "scripts" / f"{name}.py").write_text(code)
    return folder


def test_exported_skills_come_back_as_they_were(library: SkillLibrary, tmp_path: Path) -> None:
    description = 'Four times: a number, "quoted" — as # text.\n\nWith a second paragraph: {and} [brackets].'
    library.add("double", DOUBLE, tests="assert double(4) == 8\n")
    library.add("quadruple", QUADRUPLE, description, tests="assert quadruple(1) == 4")
    places = export_skills(library.skills(), tmp_path / "out")
    assert places == [tmp_path / "out" / "double", tmp_path / "out" / "quadruple"]
    with Memory(":memory:") as memory:
        work = tmp_path / "work2"
        work.mkdir()
        other = SkillLibrary(memory, Subprocess(work))
        result = import_skills(other, tmp_path / "out")
        assert (result.proposed, result.refused) == ((), {})
        assert [s.name for s in result.admitted] == ["double", "quadruple"]
        for skill in library.skills():
            theirs = other.get(skill.name)
            for key in ("code", "tests", "description", "requires", "signature", "status"):
                assert getattr(theirs, key) == getattr(skill, key)
        again = import_skills(other, tmp_path / "out")
        assert [s.version for s in again.admitted] == [1, 1]
        assert len(other.skills(None)) == 2


def test_the_document_follows_the_convention(library: SkillLibrary, tmp_path: Path) -> None:
    library.add("openDrawer_2", "def openDrawer_2(n):\n    'Open: a drawer.'", tests="openDrawer_2(1)")
    (place,) = export_skills(library.skills(), tmp_path)
    text = (place / "SKILL.md").read_text()
    _, head, body = text.split("---\n", 2)
    parsed = yaml.safe_load(head)
    assert (parsed["name"], parsed["description"], place.name) == ("open-drawer-2", "Open: a drawer.", "open-drawer-2")
    assert all(isinstance(v, str) for v in parsed["metadata"].values())
    assert "def openDrawer_2(n)" in body
    assert (place / "scripts" / "openDrawer_2.py").read_text() == "def openDrawer_2(n):\n    'Open: a drawer.'"


def test_exporting_again_replaces_and_two_skills_never_share_a_folder(library: SkillLibrary, tmp_path: Path) -> None:
    skill = library.add("double", DOUBLE, tests="assert double(4) == 8")
    export_skills([skill], tmp_path)
    bare = library.propose("double", DOUBLE)
    export_skills([bare], tmp_path)
    assert not (tmp_path / "double" / "scripts" / "double_tests.py").exists()
    twin = library.propose("_Double", "def _Double(): 'Another.'")
    with pytest.raises(InvalidSkill, match="share the folder 'double'"):
        export_skills([skill, twin], tmp_path / "new")
    assert not (tmp_path / "new").exists()


@settings(max_examples=60, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,40}", fullmatch=True).filter(lambda s: s not in RESERVED),
    description=st.text(CHARACTERS, min_size=1, max_size=200).map(str.strip).filter(bool),
    tests=st.text(CHARACTERS, max_size=60),
)
def test_any_description_and_code_survive_the_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str, description: str, tests: str
) -> None:
    folder = tmp_path_factory.mktemp("skills")
    code = f"def {name}():\n    return {description!a}\n"
    skill = Skill(name, code, description, f"def {name}()", tests=tests, status=Status.ADMITTED)
    (place,) = export_skills([skill], folder)
    found = read_skill(place)
    assert (found["name"], found["code"], found["description"], found["tests"]) == (name, code, description, tests)
    assert place.name == folder_name(name)


def test_a_folder_of_another_tool_is_taken_by_its_name_and_stays_proposed_without_tests(
    library: SkillLibrary, tmp_path: Path
) -> None:
    head = (
        "---\nname: fold-text\ndescription: >\n  Fold a text\n  at a width.\nlicense: MIT\nallowed-tools: Read\n---\n"
    )
    write(tmp_path / "s" / "fold-text", head, fold_text="def fold_text(t, n):\n    return t[:n]\n")
    result = import_skills(library, tmp_path / "s" / "fold-text")
    (skill,) = result.proposed
    assert (skill.name, skill.description) == ("fold_text", "Fold a text at a width.")
    assert "no tests" in skill.reason
    assert result.admitted == ()


def test_folders_that_are_no_skills_are_refused_one_by_one(library: SkillLibrary, tmp_path: Path) -> None:
    root = tmp_path / "s"
    write(root / "good", HEAD, double=DOUBLE, double_tests="assert double(1) == 2")
    bad = {
        "no-head": ("just text", {}),
        "no-end": ("---\nname: x\ndescription: y\n", {}),
        "not-yaml": ("---\nname: [x\n---\n", {}),
        "not-a-mapping": ("---\n- x\n---\n", {}),
        "python-object": ("---\nname: !!python/object/apply:os.system ['touch pwned']\ndescription: x\n---\n", {}),
        "bad-name": ("---\nname: ../../x\ndescription: y\n---\n", {}),
        "long-name": (f"---\nname: {'x' * 65}\ndescription: y\n---\n", {}),
        "no-description": ("---\nname: double\n---\n", {}),
        "path-in-metadata": (
            "---\nname: x\ndescription: y\nmetadata:\n  agentkit-name: ../../../../secret\n---\n",
            {},
        ),
        "no-code": ("---\nname: x\ndescription: y\n---\n", {}),
        "other-code": ("---\nname: x\ndescription: y\n---\n", {"x": "def z(): pass"}),
        "wild-needs": ("---\nname: x\ndescription: y\nmetadata: {agentkit-requires: 'zz'}\n---\n", {"x": "def x(): 1"}),
        "bad-date": ("---\nname: x\ndescription: 2024-99-99\n---\n", {"x": "def x(): pass"}),
        "twin": (HEAD, {"double": DOUBLE}),
    }
    for name, (document, scripts) in bad.items():
        write(root / name, document, **scripts)
    result = import_skills(library, root)
    assert [s.name for s in result.admitted] == ["double"]
    assert set(result.refused) == set(bad)
    assert "same name" in result.refused["twin"]
    assert not (Path.cwd() / "pwned").exists()
    assert len(library.skills(None)) == 1


def test_links_and_huge_or_binary_files_are_not_read(library: SkillLibrary, tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text(DOUBLE)
    root = tmp_path / "s"
    write(root / "file-link")
    (root / "file-link" / "scripts" / "double.py").symlink_to(secret)
    write(root / "folder-link")
    (root / "folder-link" / "scripts").rmdir()
    outside = write(tmp_path / "outside", HEAD, double=DOUBLE)
    (root / "folder-link" / "scripts").symlink_to(outside / "scripts")
    (root / "whole-link").symlink_to(outside)
    write(root / "huge", HEAD, double=DOUBLE + "#" * 1_000_001)
    write(root / "binary", HEAD)
    (root / "binary" / "scripts" / "double.py").write_bytes(b"\xff\xfe")
    write(root / "pipe", HEAD)
    os.mkfifo(root / "pipe" / "scripts" / "double.py")
    result = import_skills(library, root)
    assert set(result.refused) == {"file-link", "folder-link", "whole-link", "huge", "binary", "pipe"}
    assert "link" in result.refused["file-link"]
    assert "link" in result.refused["folder-link"]
    assert "link" in result.refused["whole-link"]
    assert "1,000,000 bytes" in result.refused["huge"]
    assert len(library.memory) == 0


def test_a_bomb_of_aliases_is_small_when_read(library: SkillLibrary, tmp_path: Path) -> None:
    levels = "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 30))
    bomb = f"---\nname: double\ndescription: Twice.\nb0: &b0 x\n{levels}metadata:\n  agentkit-requires: *b29\n---\n"
    write(tmp_path / "double", bomb, double=DOUBLE, double_tests="assert double(1) == 2")
    assert [s.name for s in import_skills(library, tmp_path / "double").admitted] == ["double"]


def test_importing_needs_a_document_and_an_executor(library: SkillLibrary, tmp_path: Path) -> None:
    with pytest.raises(InvalidSkill, match=r"no SKILL\.md"):
        import_skills(library, tmp_path / "nowhere")
    with pytest.raises(InvalidValue, match="executor"):
        import_skills(SkillLibrary(library.memory), tmp_path)
