"""Builds an isolated root with the kernel's calls, and starts the server in it: for where there is no bubblewrap."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from . import kernel  # noqa: TID251 - the package has another name inside


def enter(spec: dict[str, Any]) -> NoReturn:
    """Move to new namespaces and a new root, then run ``command`` there.

    ``spec``: ``root`` (an empty folder to build on), ``read_only`` (paths to show), ``hidden`` (folders to show empty),
    ``at`` (source -> target), ``links`` (path -> what it points at), ``devices``, ``scratch`` (where the server mounts
    the writable folder) and ``command``.
    """
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWNET
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        kernel.unshare(flags | kernel.CLONE_NEWUSER)
        kernel.map_ids(uid, gid)
    else:
        kernel.unshare(flags)
    pid = os.fork()  # the new PID namespace begins with the next process
    if pid:
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    root = spec["root"]
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    for source, target in [*((p, p) for p in spec["read_only"]), *spec["at"].items()]:
        _show(source, root + target)
    for path in spec["devices"]:
        _show(path, root + path, device=True)
    for path in spec["hidden"]:
        kernel.mount("tmpfs", root + path, "tmpfs", kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k")
    for path, points_at in spec["links"].items():
        os.symlink(points_at, root + path)
    os.makedirs(root + spec["scratch"])
    os.mkdir(root + "/proc")
    kernel.mount("proc", root + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.enter_root(root)
    kernel.mount("none", "/", "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)
    os.execve(spec["command"][0], spec["command"], {"PYTHONHASHSEED": "0"})  # noqa: S606


def _show(source: str, target: str, device: bool = False) -> None:
    """Bind ``source`` to ``target``, read-only unless it is a device."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
    if not device:
        kept = os.statvfs(target).f_flag & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        kernel.mount(
            "none", target, "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kept
        )
