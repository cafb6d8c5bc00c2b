"""The warm parent: forks a fresh, further isolated process for each execution.

The parent never reads a program: a request arrives as an open file that only the child reads, so one execution's
program cannot be found in the memory that the next one inherits.

    server      warm; enforces the deadline and the memory total, kills, reports
      program   process 1 of a PID namespace of its own, with no capability and filtered system calls

When the program ends, the kernel kills all it left behind, because its PID namespace dies with it; a scratch folder
that it touched is then put away whole, for a new one. The server lives in a user namespace of its own, inside the wall:
there it may make PID namespaces and mount scratch folders, and nothing else. Processes are made ready ahead, up to the
point where they need their program.

Speed is page faults here: each page that parent or child is the first to write after a fork is copied. Hence the plain
fork, several at a time; the marshalled requests; the objects made before; and few modules: `_socket` and a slotted
class do, where socket and dataclasses would load a thousand pages more.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import gc
import json
import marshal
import math
import os
import random
import resource
import select
import signal
import struct
import sys
import time
from typing import Any, NoReturn

from . import kernel, process  # noqa: TID251 - the package has another name inside
from .wire import attached_files  # noqa: TID251

# Loaded once, before any program runs, so that the programs that use them need not. More would slow each fork.
PRELOAD = "bisect collections copy functools heapq itertools math operator random re string typing"
AHEAD = 4
"""How many processes are made ready at a time."""
_MEBI = 2**20

# Unlike os.fork, runs none of Python's after-fork hooks: they would reseed `random` (a thousandth of a second) and tidy
# up after threads that this process never has.
_fork = ctypes.PyDLL(None).fork


def main(control_fd: int, options: dict[str, Any]) -> NoReturn:
    """Serve the host on ``control_fd`` until it hangs up. ``options``: ``isolate`` (new namespaces for each program),
    ``filter`` (privileges dropped, system calls filtered), ``user`` (ids to become first, or None), ``scratch`` (the
    writable folder, or None where each request brings one), ``paths`` (for imports), ``limits`` (the fields of
    `Limits`), ``warm`` (more than one execution)."""
    control = _socket.socket(fileno=control_fd)
    if options["user"] is not None:
        os.setgroups([])
        os.setresgid(*[options["user"]] * 3)
        os.setresuid(*[options["user"]] * 3)
    if options["isolate"]:
        _enter_namespaces()
    if options["warm"]:
        for name in PRELOAD.split():
            __import__(name)
    server = _Server(control, options)
    os.environ.clear()
    os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8")
    sys.path.extend(options["paths"])
    process.prepare(options["scratch"])
    if options["filter"]:
        kernel.set_dumpable(False)
        kernel.forbid_new_privileges()
        kernel.Filter(kernel.NEVER).install()
    _limit(options["limits"])
    random.seed(0)
    gc.collect()
    kernel.give_back_memory()
    gc.freeze()
    os.dup2(1, 2)  # which is /dev/null, as it is for a program whose output nobody reads
    control.send(b"ready")
    server.refill()
    while True:
        message, fds = _receive(control)
        if not message:
            os._exit(0)
        if message == b"kill":  # it crossed with the report of an execution that had ended
            continue
        control.send(json.dumps(server.execute(message, fds)).encode())


def _receive(sock: _socket.socket) -> tuple[bytes, list[int]]:
    """One message and the open files that came with it."""
    message, attached, _, _ = sock.recvmsg(256, 256)
    return message, attached_files(attached)


def _enter_namespaces() -> None:
    """Go on as process 1 of a PID namespace that belongs to a user namespace of our own: only there can a process give
    each of its children a PID namespace and return to its own (see setns(2))."""
    uid, gid = os.getuid(), os.getgid()
    kernel.set_dumpable(True)  # after a change of user, /proc/self belongs to root until this
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
    kernel.map_ids(uid, gid)
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


class _Ready:
    """A process that waits for its program."""

    __slots__ = ("handoff", "pid")

    def __init__(self, pid: int, handoff: _socket.socket) -> None:
        self.pid, self.handoff = pid, handoff


class _Server:
    def __init__(self, control: _socket.socket, options: dict[str, Any]) -> None:
        self._control = control
        self._options = options
        self._ready: list[_Ready] = []
        self._own_namespace = self._proc = -1
        self._others: set[str] = set()
        self._depth = 0
        limits = options["limits"]
        size = f"size={limits['scratch_mb']}m,nr_inodes={limits['scratch_files']},mode=0700"
        self._scratch = ("tmpfs", options["scratch"], "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, size)
        if options["isolate"]:
            self._own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
            self._proc = os.open("/proc", os.O_RDONLY)
            self._others = set(os.listdir(self._proc))
            self._depth = len(self._numbers("self"))
            nothing = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
            kernel.mount("tmpfs", "/proc", "tmpfs", nothing, "size=4k")  # programs see none; the open folder stays
            kernel.mount(*self._scratch)
            self._changes = kernel.Changes()
            self._changes.watch(options["scratch"])
        self._filter = kernel.Filter(kernel.NOT_IN_A_PROGRAM) if options["filter"] else None

    def refill(self) -> None:
        """Make processes ready."""
        while len(self._ready) < (AHEAD if self._options["warm"] else 1):
            self._ready.append(self._make_ready())

    def execute(self, message: bytes, fds: list[int]) -> dict[str, Any]:
        """Give a request (its open files) to a ready process, under the limits of its header; what came of it."""
        header = marshal.loads(message)  # noqa: S302 - from the host
        running = self._ready.pop()
        failed = self._start(running, header["timeout_s"], fds)
        if not self._ready and self._options["warm"]:
            self.refill()  # while the program runs
        report = self._watch(running, 0.0 if failed else header["timeout_s"], header["trusted"])
        report["failed"] = self._said(running) or failed
        if self._options["isolate"] and self._changes.seen():
            kernel.unmount(self._options["scratch"])
            kernel.mount(*self._scratch)
            self._changes.watch(self._options["scratch"])
        return report

    def _make_ready(self) -> _Ready:
        """Fork a process and let it give up everything that a program may not have."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        if self._options["isolate"]:
            kernel.unshare(kernel.CLONE_NEWPID)  # for the next child
        pid = _fork()
        if pid == 0:
            self._wait_for_program(theirs)
        if pid < 0:
            os._exit(1)
        if self._options["isolate"]:
            kernel.enter_namespace(self._own_namespace, kernel.CLONE_NEWPID)
        theirs.close()
        return _Ready(pid, ours)

    def _start(self, ready: _Ready, timeout_s: float, fds: list[int]) -> str:
        """Hand a request over and set the limits that are its own. Why that failed, or an empty string."""
        limits = self._options["limits"]
        try:
            resource.prlimit(ready.pid, resource.RLIMIT_NOFILE, (limits["open_files"],) * 2)
            if timeout_s != math.inf:
                resource.prlimit(ready.pid, resource.RLIMIT_CPU, (int(timeout_s) + 2,) * 2)
            if self._filter is not None:
                # The server, its parent and the processes that are ready count too; an empty store is filled next.
                # Without a namespace of our own to count in, the limit would be on all processes of the user, so there
                # it is left alone.
                count = limits["processes"] + 2 + (len(self._ready) or AHEAD)
                resource.prlimit(ready.pid, resource.RLIMIT_NPROC, (count, count))
            files = struct.pack(f"@{len(fds)}i", *fds)
            ready.handoff.sendmsg([b"go"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
        except OSError as error:  # it has ended
            return str(error)
        finally:
            for fd in fds:
                os.close(fd)
        return ""

    def _said(self, ready: _Ready) -> str:
        """Why a process that has ended could not take its program, or an empty string."""
        try:
            return ready.handoff.recv(1024).decode()
        except OSError as error:
            return str(error)
        finally:
            ready.handoff.close()

    def _watch(self, running: _Ready, timeout_s: float, trusted: bool) -> dict[str, Any]:
        """Wait for ``running``; kill it at the deadline, when the host says so or hangs up, or when all processes of
        the program together hold more than its memory, which is looked at unless it is ``trusted``."""
        start = time.monotonic()
        deadline = start + timeout_s
        limit = self._options["limits"]["memory_mb"] * _MEBI
        pid = running.pid
        exited = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        sources = [self._control.fileno()] + ([exited] if exited >= 0 else [])
        counted = self._proc >= 0 and not trusted
        pause = 0.005 if exited < 0 else 0.05 if counted else 3600.0
        ended, killed, looked = 0, "", start
        while not killed:
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                break
            now = time.monotonic()
            if now >= deadline:
                killed = "timeout"
            elif counted and now - looked >= 0.05:
                looked = now
                if self._resident() > limit:
                    killed = "memory"
            if not killed and sources[0] in select.select(sources, [], [], min(deadline - now, pause))[0]:
                killed = "host"  # its message stays for `main`, which knows a hang-up from a "kill"
        if exited >= 0:
            os.close(exited)
        if not ended:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
        return {
            "killed": killed,
            "status": os.waitstatus_to_exitcode(status),
            "wall_s": time.monotonic() - start,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "memory_mb": usage.ru_maxrss / 1024,
        }

    def _resident(self) -> int:
        """Bytes of resident memory of the program's processes: all in sight that are not the server's own."""
        ready = {process.pid for process in self._ready}
        total = 0
        for name in os.listdir(self._proc):
            if name.isdigit() and name not in self._others:
                with contextlib.suppress(OSError):  # it may have ended
                    if self._numbers(name)[self._depth - 1] not in ready:
                        total += int(self._read(f"{name}/statm").split()[1])
        return total * os.sysconf("SC_PAGE_SIZE")

    def _numbers(self, name: str) -> list[int]:
        """The process numbers of process ``name`` of /proc in each PID namespace, from that of /proc inwards."""
        status = self._read(f"{name}/status")
        return [int(number) for number in status.split(b"NSpid:")[1].split(b"\n")[0].split()]

    def _read(self, path: str) -> bytes:
        file = os.open(path, os.O_RDONLY, dir_fd=self._proc)
        try:
            return os.read(file, 65536)
        finally:
            os.close(file)

    def _wait_for_program(self, handoff: _socket.socket) -> NoReturn:
        """Give up everything that a program may not have, wait for one, run it."""
        try:
            os.setsid()
            os.closerange(3, handoff.fileno())
            os.closerange(handoff.fileno() + 1, 4096)
            if self._filter is not None:
                kernel.drop_capabilities()
                self._filter.install()
            _, (file, *fds) = _receive(handoff)
            if self._options["scratch"]:
                os.chdir(self._options["scratch"])
            request = marshal.loads(os.pread(file, os.fstat(file).st_size, 0))  # noqa: S302 - from the host
            os.close(file)
            if request["output"]:
                for number in (1, 2):
                    os.dup2(fds[0], number)
                    os.close(fds.pop(0))
        except BaseException as error:
            with contextlib.suppress(OSError):
                handoff.send(f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        handoff.close()
        process.main(request, fds)


def _limit(limits: dict[str, Any]) -> None:
    """Set the hard limits that a program may have in common with the server: no child rises above them."""
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_mb"] * _MEBI),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * _MEBI),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (value, value))
    if hasattr(resource, "RLIMIT_MSGQUEUE"):
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
