"""The skill library: programs that an agent wrote, verified by running them, kept on the same log as all it remembers.

A skill is proposed; its tests are run; when they pass it is admitted and can be recalled. When a skill changes, those
that depend on it are run again, and demoted when they no longer pass. Every step is an event of the memory's log: a
library can be read, compared and rolled back like anything else in it.

(Wang et al. 2023, "Voyager", section 2.2, has the library of skills retrieved by description; the life after admission
is this module's own.)
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from agentkit.errors import InvalidValue, UnknownName
from agentkit.memory.records import Recalled, Record, Where
from agentkit.memory.rendering import estimate_tokens, render
from agentkit.memory.skill import Executor, Skill, Status
from agentkit.memory.skills_code import InvalidSkill, Outline, SkillCycle, check_name, join, outline, parse

if TYPE_CHECKING:
    from agentkit.memory.scoring import Scorer
    from agentkit.memory.store import Memory
    from agentkit.memory.view import View

_REASON = 2000  # characters kept of why a skill does not pass
_DESCRIPTION = 1024  # characters, the limit of the SKILL.md convention


class SkillLibrary:
    """The skills of a memory, or of a view of its past (which can be read, not changed).

    ``executor`` runs proposed skills and their tests, each for at most ``timeout_s`` seconds; a library without one can
    only be read and proposed to. Libraries of different ``namespace`` in one memory know nothing of each other.
    """

    def __init__(
        self,
        memory: Memory | View,
        executor: Executor | None = None,
        *,
        namespace: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self.memory = memory
        self.executor = executor
        self.namespace = namespace
        self.timeout_s = timeout_s

    def at(self, seq: int) -> SkillLibrary:
        """The library as it was at a sequence number of the memory's log."""
        return SkillLibrary(self._memory.at(seq), namespace=self.namespace)

    # --- reading

    def skills(self, status: Status | None = Status.ADMITTED) -> list[Skill]:
        """The skills in use, by name; those of another ``status``; or, for None, every version of every skill."""
        found = self._read(list(Status) if status is None else [status])
        return sorted(found, key=lambda s: (s.name, s.version, s.id))

    def get(self, name: str, version: int | None = None) -> Skill:
        """The skill in use under ``name`` (the demoted one where none is), or a given version. Raises `UnknownName`."""
        everything = self._read(list(Status))
        if version is None:
            found = _newest(everything).get(name)
        else:
            found = next((s for s in everything if (s.name, s.version) == (name, version)), None)
        if found is None:
            hint = f"(version {version})" if version is not None else ""
            raise UnknownName.among("skill", name, {s.name for s in everything}, hint)
        return found

    def history(self, name: str) -> list[Skill]:
        """All versions of a skill, in order."""
        return [s for s in self.skills(None) if s.name == name]

    def recall(self, query: str, k: int = 5, *, scorer: Scorer | None = None) -> list[Recalled]:
        """The ``k`` skills in use whose descriptions are nearest to ``query``; `Skill.of` reads a record."""
        where = Where(kinds=(Status.ADMITTED.value,), namespace=self.namespace)
        return self.memory.recall(query, k, where=where, scorer=scorer)

    def render(
        self,
        recalled: Iterable[Recalled],
        budget_tokens: int,
        count: Callable[[str], int] = estimate_tokens,
        *,
        whole: bool = False,
    ) -> tuple[str, tuple[int, ...]]:
        """Signatures and descriptions (``whole`` programs if asked) that fit the budget, and their records' ids."""
        return render(
            recalled,
            budget_tokens,
            count,
            line=lambda item: Skill.of(item.record).render(whole=whole),
            separator="\n\n",
        )

    def program(self, names: Iterable[str]) -> str:
        """A program that defines the named skills and all that they depend on, dependencies first.

        Put it before a program that calls them. Raises `UnknownName` for a skill that is not in use.
        """
        world = self._world()
        return join(world[name].code for name in _order(names, world))

    # --- the life of a skill

    def propose(
        self,
        name: str,
        code: str,
        description: str = "",
        *,
        tests: str = "",
        requires: Sequence[str] | None = None,
        evidence: str = "",
        task: str = "",
        episode: str = "",
    ) -> Skill:
        """Store a new version of a skill, not in use yet. Nothing is run.

        ``description`` defaults to the docstring. ``requires`` defaults to the skills of the library that the code
        names. Raises `InvalidSkill` when the code is no Python, does not define ``name``, binds a name that another
        skill binds, or has no description; `SkillCycle`; and `UnknownName` for a dependency that is not there.
        """
        check_name(name)
        code, tests = (text.replace("\r\n", "\n").replace("\r", "\n") for text in (code, tests))
        shape = outline(name, code)
        parse(tests, f"the tests of {name!r}")
        described = (description or shape.summary).strip()
        if not described or len(described) > _DESCRIPTION:
            raise InvalidSkill(
                f"the description of {name!r} has {len(described)} characters; it takes 1 to {_DESCRIPTION}, given or "
                "as a docstring: a skill is found by it"
            )
        everything = self._read(list(Status))
        known = _newest(everything)
        lived = {n: s for n, s in known.items() if s.status in (Status.ADMITTED, Status.DEMOTED)}
        if requires is None:
            requires = sorted((shape.uses - shape.defines - shape.imports) & lived.keys() - {name})
        else:
            requires = sorted(set(requires))
            for other in requires:
                if other not in known and other != name:
                    raise UnknownName.among("skill", other, known, f"{name!r} requires it.")
        skill = Skill(
            name=name,
            code=code,
            description=described,
            signature=shape.signature,
            requires=tuple(requires),
            tests=tests,
            evidence=evidence,
            version=1 + max((s.version for s in everything if s.name == name), default=0),
            task=task,
            episode=episode,
        )
        _order([name], known | {name: skill}, missing_ok=True)
        _check_clashes(skill, shape, lived.values())
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).strip()
        record = Record(
            kind=skill.status,
            text=skill.render(),
            key=f"{words}: {described}",
            data=skill._data(),
            namespace=self.namespace,
            task=task,
            episode=episode,
        )
        return replace(skill, id=self._memory.add(record))

    def verify(self, skill: Skill) -> Skill:
        """Run a skill with its tests, and what depends on it if it passes; returns it as it is then stored.

        A proposed skill that passes is admitted and takes the place of its earlier version; one that fails stays
        proposed, and ``reason`` says why. One that was admitted and fails is demoted. All changes are one commit.
        """
        current = _newest(self._read([Status.ADMITTED, Status.DEMOTED]))
        rival = current.get(skill.name)
        if rival is not None and rival.id != skill.id and rival.version >= skill.version:
            raise InvalidSkill(
                f"version {skill.version} of {skill.name!r} is past: version {rival.version} took its place. "
                "Propose its code again"
            )
        _check_clashes(skill, outline(skill.name, skill.code), current.values())
        changes: dict[int, Skill] = {}
        world = {n: s for n, s in current.items() if s.status is Status.ADMITTED}
        verified = self._judged(replace(skill, held=False), world)
        changes[skill.id] = verified
        if verified.status is Status.ADMITTED:
            if rival is not None and rival.id != skill.id:
                changes[rival.id] = replace(rival, status=Status.SUPERSEDED, reason="")
            current[skill.name] = world[skill.name] = verified
            self._ripple(current, world, {skill.name}, changes)
        elif skill.status is Status.ADMITTED:
            current[skill.name] = verified
            del world[skill.name]
            self._ripple(current, world, {skill.name}, changes)
        self._store(changes)
        return verified

    def add(
        self,
        name: str,
        code: str,
        description: str = "",
        *,
        tests: str = "",
        requires: Sequence[str] | None = None,
        evidence: str = "",
        task: str = "",
        episode: str = "",
    ) -> Skill:
        """`propose`, then `verify`: the skill's ``status`` says whether it is in use now."""
        self._executor()
        return self.verify(
            self.propose(
                name, code, description, tests=tests, requires=requires, evidence=evidence, task=task, episode=episode
            )
        )

    def demote(self, name: str, reason: str) -> None:
        """Take a skill out of use by hand, and with it the skills that depend on it."""
        current = _newest(self._read([Status.ADMITTED, Status.DEMOTED]))
        if name not in current:
            raise UnknownName.among("skill", name, current)
        changes = {current[name].id: replace(current[name], status=Status.DEMOTED, reason=reason, held=True)}
        current[name] = changes[current[name].id]
        world = {n: s for n, s in current.items() if s.status is Status.ADMITTED}
        self._ripple(current, world, {name}, changes)
        self._store(changes)

    def refresh(self, *, everything: bool = False) -> list[Skill]:
        """Run again the skills that passed with other versions of their dependencies than those now in use (after a
        rollback, or an import), or ``everything`` (after a change of the interpreter); returns those that changed."""
        current = _newest(self._read([Status.ADMITTED, Status.DEMOTED]))
        world = {n: s for n, s in current.items() if s.status is Status.ADMITTED}
        stale = {
            name
            for name, skill in current.items()
            if not skill.held and (everything or skill.verified_with != _versions(skill, world))
        }
        changes: dict[int, Skill] = {}
        self._ripple(current, world, set(), changes, stale)
        self._store(changes)
        return [s for _, s in sorted(changes.items())]

    # --- the parts of that

    def _ripple(
        self,
        current: dict[str, Skill],
        world: dict[str, Skill],
        dirty: set[str],
        changes: dict[int, Skill],
        force: Iterable[str] = (),
    ) -> None:
        """Judge again every skill above the ``dirty`` ones (and those of ``force``), lowest first."""
        force = set(force)
        free = {name: skill for name, skill in current.items() if not skill.held}
        for name in _order(free, free, missing_ok=True):
            skill = current[name]
            if not (name in force or dirty.intersection(skill.requires)):
                continue
            world.pop(name, None)
            judged = self._judged(skill, world)
            if judged.status is Status.ADMITTED:
                world[name] = judged
            if judged != skill:
                changes[skill.id] = judged
            current[name] = judged
            dirty.add(name)

    def _judged(self, skill: Skill, world: Mapping[str, Skill]) -> Skill:
        """The skill as it is after a run with the skills of ``world``."""
        failed = Status.PROPOSED if skill.status is Status.PROPOSED else Status.DEMOTED
        missing = [name for name in skill.requires if name not in world]
        if missing:
            return replace(skill, status=failed, reason=f"needs {', '.join(missing)}, not in use", verified_with={})
        below = {**world, skill.name: skill}
        order = _order([skill.name], below)
        reason = self._run(skill, [below[name].code for name in order])
        if reason:
            return replace(skill, status=failed, reason=reason, verified_with=_versions(skill, world))
        return replace(skill, status=Status.ADMITTED, reason="", verified_with=_versions(skill, world))

    def _run(self, skill: Skill, programs: list[str]) -> str:
        """Why the skill does not pass, or nothing."""
        if not skill.tests.strip() and not skill.evidence:
            return "it has no tests, and no evidence that it works"
        # A program that leaves early would look as if it had passed: the last line of a real pass cannot be guessed.
        token = secrets.token_hex(16)
        last = f"assert callable({skill.name}), 'it is no longer defined'\nprint({token!r})"
        result = self._executor().run(join([*programs, skill.tests, last]), timeout_s=self.timeout_s)
        if not result.ok:
            said = result.stderr.strip() or str(getattr(result, "note", "")) or "it was stopped (time or another limit)"
            return said[-_REASON:].replace(token, "")
        if token not in result.stdout:
            return "it ended before its tests did"
        return ""

    def _store(self, changes: Mapping[int, Skill]) -> None:
        with self._atomic():
            for id_, skill in changes.items():
                self._memory.edit(id_, kind=skill.status.value, data=skill._data())

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        with ExitStack() as stack:
            # Inside a transaction of the caller's, the changes are part of that one.
            with suppress(InvalidValue):
                stack.enter_context(self._memory.transaction())
            yield

    def _executor(self) -> Executor:
        if self.executor is None:
            raise InvalidValue("this library has no executor, and skills are verified by running them: hand one in")
        return self.executor

    @property
    def _memory(self) -> Memory:
        from agentkit.memory.errors import ReadOnly
        from agentkit.memory.store import Memory

        if not isinstance(self.memory, Memory):
            raise ReadOnly("this library reads a view of the past: it cannot be changed")
        return self.memory

    def _read(self, statuses: Iterable[Status]) -> list[Skill]:
        where = Where(kinds=tuple(s.value for s in statuses), namespace=self.namespace)
        return [Skill.of(record) for record in self.memory.records(where)]

    def _world(self) -> dict[str, Skill]:
        return _newest(self._read([Status.ADMITTED]))


def _newest(skills: Iterable[Skill]) -> dict[str, Skill]:
    """The version that counts, of each name: one in use before one that is not, then the latest."""

    def rank(skill: Skill) -> tuple[int, int, int]:
        life = [Status.SUPERSEDED, Status.PROPOSED, Status.DEMOTED, Status.ADMITTED]
        return life.index(skill.status), skill.version, skill.id

    return {skill.name: skill for skill in sorted(skills, key=rank)}


def _order(names: Iterable[str], known: Mapping[str, Skill], *, missing_ok: bool = False) -> list[str]:
    """``names`` and all below them, dependencies first. Raises `SkillCycle`; `UnknownName` unless ``missing_ok``."""
    done: dict[str, None] = {}
    path: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in done:
            return
        if name in path:
            circle = [*list(path)[list(path).index(name) :], name]
            raise SkillCycle(f"skills cannot depend on each other in a circle: {' -> '.join(circle)}")
        if name not in known:
            if missing_ok:
                return
            raise UnknownName.among("skill", name, known, "Only skills in use can be run.")
        path[name] = None
        for below in known[name].requires:
            visit(below)
        del path[name]
        done[name] = None

    for name in names:
        visit(name)
    return list(done)


def _versions(skill: Skill, world: Mapping[str, Skill]) -> dict[str, int]:
    below = _order(skill.requires, world, missing_ok=True)
    return {name: world[name].version for name in below}


def _check_clashes(skill: Skill, shape: Outline, others: Iterable[Skill]) -> None:
    """Programs are joined into one: what one binds at its top level must not hide what another does."""
    for other in others:
        if other.name == skill.name:
            continue
        theirs = outline(other.name, other.code)
        clash = (shape.defines & (theirs.defines | theirs.imports)) | (shape.imports & theirs.defines)
        if clash:
            raise InvalidSkill(
                f"the code of {skill.name!r} binds {', '.join(sorted(clash))} at its top level, and so does the skill "
                f"{other.name!r}. Rename it, put it inside the function, or call the other skill"
            )
