"""TextWorld games by kind, settings and seed: generated once, compiled, and kept in the cache folder.

Making a game takes some seconds, most of them in the Inform 7 compiler that comes with the package ``textworld``.
`generate_games` makes many ahead of time, in several processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agentkit.envs.extras import cache_folder
from agentkit.envs.tasks import checked, choose
from agentkit.errors import AgentkitError, InvalidValue, MissingExtra, UnknownName

# Each kind's settings and their defaults. Those of the package's own generators keep their names and meanings.
KINDS: dict[str, dict[str, Any]] = {
    "coin_collector": {"level": 5, "instructions": "last"},
    "treasure_hunter": {"level": 5, "instructions": "last"},
    "cooking": {
        "recipe": 1,
        "take": 1,
        "go": 1,
        "open": False,
        "cook": False,
        "cut": False,
        "drop": False,
        "recipe_seed": None,
        "split": None,
    },
    "simple": {"rewards": "dense", "goal": "brief", "test": False},
    "quest": {"rooms": 5, "objects": 10, "length": 4, "instructions": "last"},
}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "instructions": ("last", "all"),
    "go": (1, 6, 9, 12),
    "split": (None, "train", "valid", "test"),
    "rewards": ("dense", "balanced", "sparse"),
    "goal": ("detailed", "brief", "none"),
}
_RANGES = {"recipe": (1, 5), "take": (0, 5), "rooms": (1, 60), "objects": (1, 100), "length": (1, 30)}
_LEVELS = {"coin_collector": 300, "treasure_hunter": 30}
_FORMAT = 1
_locks: dict[Path, threading.Lock] = {}
_locks_guard = threading.Lock()


class GenerationError(AgentkitError, RuntimeError):
    """A game could not be made."""


@dataclass(frozen=True, slots=True)
class Game:
    """One game. ``settings`` holds every setting of its kind, as canonical JSON, so that equal games are equal."""

    kind: str
    seed: int
    settings: str

    @classmethod
    def of(cls, kind: str, seed: int, **settings: Any) -> Game:
        """The game of these settings, the others at their defaults. Raises `UnknownName` or `InvalidValue`."""
        choose("kind", kind, KINDS)
        full = dict(KINDS[kind])
        for name, value in settings.items():
            if name not in full:
                raise UnknownName.among(f"setting of a {kind} game", name, full)
            full[name] = value
        for name, value in full.items():
            _check(kind, name, value)
        if kind == "cooking":
            if full["take"] > full["recipe"]:
                raise InvalidValue(f"take={full['take']} must not be more than recipe={full['recipe']}")
            if full["recipe_seed"] is None:
                full["recipe_seed"] = seed
        if not 0 <= seed < 2**32:
            raise InvalidValue(f"the seed of a TextWorld game is in [0, 2**32), not {seed}")
        return cls(kind, seed, json.dumps(full, sort_keys=True))

    def path(self) -> Path:
        """Where its compiled file is, or will be. Raises `MissingExtra` when ``textworld`` is not installed."""
        try:
            release = version("textworld")
        except PackageNotFoundError:
            raise MissingExtra.of("textworld", "textworld") from None
        key = json.dumps([_FORMAT, release, self.kind, self.seed, self.settings])
        name = f"{self.kind}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.z8"
        return cache_folder("textworld") / name


def _check(kind: str, name: str, value: Any) -> None:
    if name in _CHOICES:
        if isinstance(value, bool) or value not in _CHOICES[name]:  # True would be 1
            raise InvalidValue(f"{name}={value!r}: one of {', '.join(map(repr, _CHOICES[name]))} is needed")
    elif isinstance(KINDS[kind][name], bool):
        checked(name, value, bool)
    elif not (value is None and KINDS[kind][name] is None):
        low, high = (1, _LEVELS[kind]) if name == "level" else _RANGES.get(name, (0, 2**32 - 1))
        checked(name, value, int, low=low, high=high)


def game_file(game: Game) -> Path:
    """The compiled game, made now if it is not in the cache. Raises `GenerationError`."""
    return generate_games([game], workers=1)[0]


def generate_games(
    games: Iterable[Game | Mapping[str, Any]],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Make those games that are not in the cache, several at once, and return the files of all, in order.

    A game may be given as a mapping, ``{"kind": "coin_collector", "seed": 7, "level": 4}``. ``workers`` processes work
    at once (by default one for each CPU). ``progress(done, total)`` is called from this thread: at the start with what
    was there already, and after each game. Raises `GenerationError` for the first game that could not be made, after
    the others are done.

    Safe for several threads and processes at once: a game's files appear whole or not at all.
    """
    wanted = [g if isinstance(g, Game) else Game.of(**g) for g in games]
    paths = [g.path() for g in wanted]
    missing = {path: game for path, game in zip(paths, wanted, strict=True) if not path.exists()}
    total = len(set(paths))
    if progress is not None:
        progress(total - len(missing), total)
    if missing:
        _generate(missing, workers or os.cpu_count() or 1, total, progress)
    return paths


def _generate(
    missing: Mapping[Path, Game], workers: int, total: int, progress: Callable[[int, int], None] | None
) -> None:
    todo: queue.SimpleQueue[tuple[Path, Game]] = queue.SimpleQueue()
    for item in missing.items():
        todo.put(item)
    done: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            with _Worker() as worker:
                while True:
                    try:
                        path, game = todo.get_nowait()
                    except queue.Empty:
                        return
                    with _lock(path):
                        done.put("" if path.exists() else worker.make(game, path))
        except BaseException as error:  # handed to the caller, who waits on the queue
            done.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(missing)))]
    for thread in threads:
        thread.start()
    failures = []
    for count in range(1, len(missing) + 1):
        result = done.get()
        if isinstance(result, BaseException):
            raise result
        if result:
            failures.append(result)
        if progress is not None:
            progress(total - len(missing) + count, total)
    for thread in threads:
        thread.join()
    if failures:
        raise GenerationError(failures[0])


class _Worker:
    """A generator process; it ends with the ``with`` block, or when this process does."""

    def __enter__(self) -> _Worker:
        self._folder = tempfile.TemporaryDirectory(prefix="agentkit-textworld-")
        self._errors = open(Path(self._folder.name) / "stderr", "w+b")
        script = Path(__file__).with_name("textworld_worker.py")
        # -P: the script's folder holds a module called textworld too. The working folder is empty because the package
        # would take grammars from it.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(  # noqa: S603  our own script
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._folder.name,
            env=environment,
            text=True,
        )
        return self

    def make(self, game: Game, target: Path) -> str:
        """Make one game; returns what went wrong, or an empty string."""
        request = {
            "kind": game.kind,
            "settings": json.loads(game.settings),
            "seed": game.seed,
            "target": str(target),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        what = f"TextWorld could not make the game {game.kind} seed={game.seed} {game.settings}"
        if not answer:
            self._errors.seek(0)
            raise GenerationError(f"{what}: its process ended.\n{self._errors.read()[-2000:].decode(errors='replace')}")
        error = json.loads(answer)["error"]
        return f"{what}: {error}" if error else ""

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()


def _lock(path: Path) -> threading.Lock:
    with _locks_guard:
        return _locks.setdefault(path, threading.Lock())
