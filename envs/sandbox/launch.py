"""How the warm server is started behind each kind of wall."""

from __future__ import annotations

import compileall
import functools
import importlib.util
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agentkit.envs.sandbox.inside import kernel
from agentkit.envs.sandbox.values import Level, Limits
from agentkit.errors import InvalidValue

SCRATCH = "/scratch"
PACKAGES = "/packages"
_CODE = "/sandbox/inside"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_BOOT = (
    "import json, sys; sys.path.append(sys.argv[1]); from inside.server import main; sys.path.pop(); "
    "main(int(sys.argv[2]), json.loads(sys.argv[3]))"
)
_BUILD = (
    "import json, sys; sys.path.append(sys.argv[1]); from inside.newroot import enter; enter(json.loads(sys.argv[2]))"
)


@dataclass(frozen=True, slots=True)
class Wall:
    """One way to isolate. ``warm``: each execution gets namespaces of its own from the server, which lives on;
    otherwise the server has one execution only, and the wall around it is all there is."""

    level: Level
    warm: bool


WALLS = (Wall(Level.BUBBLEWRAP, True), Wall(Level.NAMESPACES, True), Wall(Level.BUBBLEWRAP, False))


@dataclass(frozen=True, slots=True)
class _Root:
    """What a program can see of the file system: everything else does not exist for it."""

    read_only: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    at: dict[str, str] = field(default_factory=dict)


def python() -> str:
    """The interpreter behind the virtual environment, if one is active."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _root(packages: Sequence[str]) -> _Root:
    """The interpreter, its standard library and the shared libraries it needs."""
    root = _Root()
    prefix = Path(os.path.realpath(sys.base_prefix))
    standard = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    multiarch = f"{platform.machine()}-linux-gnu"
    shown = [Path("/etc/ld.so.cache"), Path("/usr/share/zoneinfo"), Path(python())]
    for folder in map(Path, ("/usr/lib", "/usr/lib64", "/lib", "/lib64")):
        if folder.is_symlink():
            root.links[str(folder)] = os.readlink(folder)
        else:  # where Debian's layout is used, the folder beside holds all manner of programs
            shown.append(folder / multiarch if (folder / multiarch).is_dir() else folder)
    if prefix in (Path("/usr"), Path("/usr/local")):
        shown += [standard, *sorted((prefix / "lib").glob("libpython*.so*"))]
    else:
        shown.append(prefix / "lib")
    for path in shown:
        if path.exists() and not any(path.is_relative_to(p) for p in root.read_only):
            root.read_only.append(str(path))
    # Installed packages may hold the answers to a benchmark; a program sees the standard library unless told otherwise.
    for name in ("site-packages", "dist-packages"):
        for folder in (standard / name, standard / "test", *sorted(prefix.glob(f"lib/python*/{name}"))):
            if folder.is_dir() and any(folder.is_relative_to(p) for p in root.read_only):
                root.hidden.append(str(folder))
    root.hidden[:] = sorted(set(root.hidden))
    root.at[str(Path(__file__).parent / "inside")] = _CODE
    for name in packages:
        for source in _package_paths(name):
            root.at[str(source)] = f"{PACKAGES}/{source.name}"
    return root


def _unprivileged() -> int:
    """The user that programs run as when agentkit runs as root: one of their own for each server where there is room,
    so that limits counted by user are counted for it alone."""
    mapped = Path("/proc/self/uid_map").read_text().split()
    room = int(mapped[2]) if mapped[0] == "0" else 0
    if room > 0x7FFF0000:
        return 0x70000000 + secrets.randbelow(0x0FFF0000)
    return min(65_533, max(room - 1, 1))


def _package_paths(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise InvalidValue(f"no installed package {name!r} to show to programs. Install it, or leave it out.")
    origin = Path(spec.origin)
    path = origin.parent if spec.submodule_search_locations else origin
    libraries = path.with_name(f"{name}.libs")
    return [path, libraries] if libraries.is_dir() else [path]


def options(wall: Wall | None, packages: Sequence[str], limits: Limits) -> dict[str, object]:
    """The server's options (see `inside.server.main`) behind ``wall``, or behind none."""
    return {
        "isolate": wall is not None and wall.warm,
        "filter": wall is not None,
        "warm": wall is None or wall.warm,
        "user": _unprivileged() if wall is not None and os.geteuid() == 0 else None,
        "scratch": SCRATCH if wall is not None else None,
        "paths": [PACKAGES]
        if wall is not None
        else sorted({str(p.parent) for n in packages for p in _package_paths(n)}),
        "limits": asdict(limits),
    }


def command(wall: Wall | None, fd: int, packages: Sequence[str], limits: Limits, folder: str) -> list[str]:
    """The command that starts a server on control socket ``fd``. ``folder`` is an empty folder to build on."""
    _compile()
    settings = options(wall, packages, limits)
    flags = ["-s", "-S", "-P", "-B"]
    if wall is None:
        here = str(Path(__file__).parent)
        return [python(), *flags, "-c", _BOOT, here, str(fd), json.dumps(settings)]
    root = _root(packages)
    start = [python(), *flags, "-c", _BOOT, os.path.dirname(_CODE), str(fd), json.dumps(settings)]
    if wall.level is Level.BUBBLEWRAP:
        return _bubblewrap(root, start, limits, wall.warm)
    spec: Mapping[str, object] = {
        "root": folder,
        "read_only": root.read_only,
        "links": root.links,
        "hidden": root.hidden,
        "at": root.at,
        "devices": _DEVICES,
        "scratch": SCRATCH,
        "command": start,
    }
    return [python(), "-I", "-S", "-B", "-c", _BUILD, str(Path(__file__).parent), json.dumps(spec)]


@functools.cache
def _compile() -> None:
    """Put the bytecode of the server beside its source, where that can be written: it starts sooner, and what compiling
    leaves in its memory goes into no program's process."""
    compileall.compile_dir(Path(__file__).parent / "inside", quiet=2, optimize=0)


def _bubblewrap(root: _Root, start: list[str], limits: Limits, warm: bool) -> list[str]:
    args = [shutil.which("bwrap") or "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    args += ["--as-pid-1"]  # bubblewrap's own process 1 would live as long as any process that a program left behind
    if os.geteuid() == 0:
        # No user namespace here: root would stay root in it. The server gives up root itself instead.
        args += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        args += ["--unshare-user"]
    args += ["--new-session", "--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--chdir", "/"]
    # bubblewrap makes missing parents for their owner alone, who is root here while the program is not.
    targets = [Path(p) for p in (*root.read_only, *root.at.values(), *_DEVICES)]
    for parent in sorted({p for target in targets for p in target.parents if p != Path("/")}):
        if not any(parent.is_relative_to(shown) for shown in root.read_only):
            args += ["--perms", "0755", "--dir", str(parent)]
    for path in root.read_only:
        args += ["--ro-bind", path, path]
    for path in root.hidden:
        args += ["--tmpfs", path, "--remount-ro", path]
    for path, points_at in root.links.items():
        args += ["--symlink", points_at, path]
    for source, target in root.at.items():
        args += ["--ro-bind", source, target]
    for path in _DEVICES:
        args += ["--dev-bind", path, path]
    if warm:  # the server needs it, and covers it before a program runs
        args += ["--proc", "/proc"]
    args += ["--perms", "1777", "--size", str(limits.scratch_mb * 2**20), "--tmpfs", SCRATCH]
    return [*args, "--remount-ro", "/", *start]


def missing(wall: Wall) -> str:
    """Why ``wall`` cannot even be tried here, or an empty string."""
    if not kernel.supported():
        return "needs Linux on x86_64 or aarch64"
    if wall.level is Level.BUBBLEWRAP and shutil.which("bwrap") is None:
        return "bwrap is not installed (Debian and Ubuntu: apt install bubblewrap)"
    return ""
