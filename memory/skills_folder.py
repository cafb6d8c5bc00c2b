"""Skills as folders in the SKILL.md convention: written for other tools to read, and read without trusting them.

    open-drawer/
      SKILL.md                      name, description and metadata; how to call it
      scripts/open_drawer.py        the code
      scripts/open_drawer_tests.py  its tests: a program that runs after the code, where there are any

A folder of another tool's making is a skill when it has one script that defines a function or class of its own name.
Nothing of a folder is run by reading it; what is imported is verified like any other proposal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentkit.errors import AgentkitError, InvalidValue
from agentkit.memory.skill import Skill, Status
from agentkit.memory.skills import SkillLibrary
from agentkit.memory.skills_code import InvalidSkill, check_name

_LIMIT = 1_000_000  # bytes of one file: a skill is a function, not a library
_FOLDER = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_HEAD = re.compile(r"---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import: the skills now in use, those stored that did not pass (``reason`` says why), and why the
    other folders are no skills, by folder name."""

    admitted: tuple[Skill, ...]
    proposed: tuple[Skill, ...]
    refused: Mapping[str, str]


def export_skills(skills: Iterable[Skill], folder: str | os.PathLike[str]) -> list[Path]:
    """Write each skill to a folder of its own under ``folder``; returns those folders. Raises `InvalidSkill` where two
    skills would share one, and before anything is written."""
    root = Path(folder)
    places: dict[str, Skill] = {}
    for skill in skills:
        place = folder_name(skill.name)
        if place in places:
            raise InvalidSkill(
                f"the skills {places[place].name!r} and {skill.name!r} would share the folder {place!r}: "
                "export them apart"
            )
        places[place] = skill
    for place, skill in places.items():
        scripts = root / place / "scripts"
        scripts.mkdir(parents=True, exist_ok=True)
        _write(root / place / "SKILL.md", _document(place, skill))
        _write(scripts / f"{skill.name}.py", skill.code)
        tests = scripts / f"{skill.name}_tests.py"
        if skill.tests:
            _write(tests, skill.tests)
        else:
            tests.unlink(missing_ok=True)
    return [root / place for place in places]


def import_skills(library: SkillLibrary, folder: str | os.PathLike[str]) -> Imported:
    """Propose the skills of ``folder`` (one skill's, or one that holds many) and verify them, dependencies first.

    A skill that the library has in use with the same code, tests and description is left as it is. Raises
    `InvalidSkill` when there is no SKILL.md at all.
    """
    if library.executor is None:
        raise InvalidValue("this library has no executor, and what is imported is verified by running it: hand one in")
    root = Path(folder)
    places = [root] if (root / "SKILL.md").is_file() else sorted(p.parent for p in root.glob("*/SKILL.md"))
    if not places:
        raise InvalidSkill(f"there is no SKILL.md in {str(root)!r}, nor in a folder inside it")
    read: dict[str, tuple[str, dict[str, Any]]] = {}
    refused: dict[str, str] = {}
    for place in places:
        try:
            if place != root and place.is_symlink():
                raise InvalidSkill("it is a link, and is not followed")
            found = read_skill(place)
            if found["name"] in read:
                raise InvalidSkill(f"{read[found['name']][0]!r} holds a skill of the same name, {found['name']!r}")
            read[found["name"]] = place.name, found
        except InvalidSkill as error:
            refused[place.name] = str(error)
    admitted: list[Skill] = []
    proposed: list[Skill] = []
    used = {skill.name: skill for skill in library.skills()}
    for name in _dependencies_first({name: found["requires"] for name, (_, found) in read.items()}):
        place_name, found = read[name]
        mine = used.get(name)
        if mine is not None and all(getattr(mine, key) == found[key] for key in ("code", "tests", "description")):
            admitted.append(mine)
            continue
        try:
            skill = library.add(**found)
        except AgentkitError as error:
            refused[place_name] = str(error)
            continue
        (admitted if skill.status is Status.ADMITTED else proposed).append(skill)
    return Imported(tuple(admitted), tuple(proposed), refused)


def folder_name(name: str) -> str:
    """The folder of a skill: lower case, words divided by single hyphens, as the convention has it."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower().replace("_", "-")
    return re.sub(r"-+", "-", words).strip("-") or "skill"


def read_skill(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a skill's folder says: the arguments of `SkillLibrary.propose`. Raises `InvalidSkill`."""
    place = Path(folder)
    head = _head(_read(place, "SKILL.md"))
    title = head.get("name")
    if not isinstance(title, str) or not _FOLDER.fullmatch(title) or len(title) > 64:
        raise InvalidSkill(
            f"the name in SKILL.md is {title!r}; it takes 1 to 64 lower-case letters, digits and hyphens"
        )
    description = head.get("description")
    if not isinstance(description, str):
        raise InvalidSkill("SKILL.md has no description")
    metadata = head.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name = metadata.get("agentkit-name", title.replace("-", "_"))
    if not isinstance(name, str):
        raise InvalidSkill(f"agentkit-name in SKILL.md is {name!r}, not a text")
    check_name(name)
    code = _read(place, "scripts", f"{name}.py")
    tests = _read(place, "scripts", f"{name}_tests.py", missing="")
    found: dict[str, Any] = {"name": name, "code": code, "description": description, "tests": tests, "requires": None}
    required = metadata.get("agentkit-requires")
    if isinstance(required, str):
        found["requires"] = re.findall(r"[^\s,]+", required)
    return found


def _document(title: str, skill: Skill) -> str:
    import yaml

    metadata = {"agentkit-name": skill.name, "agentkit-version": str(skill.version)}
    metadata["agentkit-requires"] = ", ".join(skill.requires)
    head = {"name": title, "description": skill.description, "metadata": metadata}
    needs = [f"It calls {', '.join(f'`{name}`' for name in skill.requires)}.", ""] if skill.requires else []
    tested = [f"`scripts/{skill.name}_tests.py` tests it, run after it in the same program.", ""] if skill.tests else []
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120).rstrip("\n"),
            "---",
            "",
            f"# {title}",
            "",
            skill.description,
            "",
            "```python",
            skill.signature,
            "```",
            "",
            f"The code is `scripts/{skill.name}.py`.",
            "",
            *needs,
            *tested,
        ]
    )


def _head(text: str) -> dict[str, Any]:
    import yaml

    match = _HEAD.match(text.removeprefix("\ufeff"))
    if match is None:
        raise InvalidSkill("SKILL.md does not begin with its metadata between two lines of ---")
    try:
        head = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none, and the like
        raise InvalidSkill(f"the metadata of SKILL.md is not valid YAML: {error}") from error
    if not isinstance(head, dict):
        raise InvalidSkill("the metadata of SKILL.md is not a mapping")
    return head


def _read(place: Path, *parts: str, missing: str | None = None) -> str:
    """The text of a file below ``place``, which no link on the way may lead out of."""
    path = place
    shown = "/".join(parts)
    for part in parts:
        path /= part
        if path.is_symlink():
            raise InvalidSkill(f"{shown} is a link, and is not followed")
    if not path.is_file():
        if missing is not None and not path.exists():
            return missing
        raise InvalidSkill(f"there is no file {shown}")
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise InvalidSkill(f"{shown} has more than {_LIMIT:,} bytes")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSkill(f"{shown} cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _dependencies_first(requires: Mapping[str, list[str] | None]) -> list[str]:
    """The names, each after those it requires; where they form a circle, in any order: proposing them says so."""
    order: dict[str, None] = {}
    entered: set[str] = set()

    def visit(name: str) -> None:
        if name not in requires or name in entered:
            return
        entered.add(name)
        for other in requires[name] or ():
            visit(other)
        order[name] = None

    for name in sorted(requires):
        visit(name)
    return list(order)
