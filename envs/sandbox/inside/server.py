"""The warm parent: forks a fresh, further isolated process for each execution.

The parent never reads a program: it hands the host a channel to the next process that it has made ready, and the
request comes through that, so one execution's program cannot be found in the memory that the next one inherits.

    server      warm; enforces the deadline and the memory total, kills, reports
      program   process 1 of a PID namespace of its own, with no capability and filtered system calls

When the program ends, the kernel kills all it left behind, because its PID namespace dies with it; a scratch folder
that it touched is then put away whole, for a new one. The server lives in a user namespace of its own, inside the wall:
there it may make PID namespaces and mount scratch folders, and nothing else. Processes are made ready ahead, up to the
point where they need their program.

Speed is page faults here: each page that parent or child is the first to write after a fork is copied. Hence the plain
fork, several at a time; the limits that the parent sets; the marshalled requests; the objects made before; and few
modules: `_socket` and a slotted class do, where socket and dataclasses would load a thousand pages more.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import gc
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
from .wire import REPORT, Channel  # noqa: TID251

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
    if hasattr(os, "SCHED_BATCH"):  # no program interrupts another, nor its host, because something woke it up
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.environ.clear()
    os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8")
    sys.path.extend(options["paths"])
    process.prepare(options["scratch"])
    if options["filter"]:
        kernel.set_dumpable(False)
        kernel.forbid_new_privileges()
        kernel.Filter(kernel.NEVER).install()
    _limit(options["limits"])
    server.rehearse()
    random.seed(0)
    gc.collect()
    kernel.give_back_memory()
    gc.freeze()
    os.dup2(1, 2)  # which is /dev/null, as it is for a program whose output nobody reads
    server.refill()
    server.say(b"ready")
    while True:
        message = control.recv(256)
        if not message:
            os._exit(0)
        if message == b"kill":  # it crossed with the report of an execution that had ended
            continue
        server.say(server.execute(**marshal.loads(message)))  # noqa: S302 - from the host


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


class _Server:
    def __init__(self, control: _socket.socket, options: dict[str, Any]) -> None:
        self._control = control
        self._options = options
        self._ready: list[tuple[int, _socket.socket]] = []
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

    def rehearse(self) -> None:
        """Make a process ready and let it go. One that cannot be made ready says why, and ends this one."""
        pid, channel = self._make_ready(AHEAD)
        channel.close()
        if os.waitpid(pid, 0)[1] != 0:
            os._exit(1)

    def refill(self) -> None:
        """Make processes ready."""
        # The last to be given a program runs beside all of the next, which are made meanwhile.
        count = AHEAD if self._options["warm"] else 1
        self._ready += [self._make_ready(left or AHEAD) for left in reversed(range(count))]

    def say(self, message: bytes) -> None:
        """Tell the host, and hand it the channel to the next process, if there will be one."""
        if not self._ready:
            self._control.send(message)
            return
        _, channel = self._ready[0]
        file = struct.pack("@i", channel.fileno())
        self._control.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, file)])
        channel.close()

    def execute(self, timeout_s: float, trusted: bool) -> bytes:
        """Watch the next process, which the host gives its program; what came of it, as a `REPORT`."""
        pid, _ = self._ready.pop(0)
        if timeout_s != math.inf:
            resource.prlimit(pid, resource.RLIMIT_CPU, (int(timeout_s) + 2,) * 2)
        if not self._ready and self._options["warm"]:
            self.refill()  # while the program runs
        report = self._watch(pid, timeout_s, trusted)
        if self._options["isolate"] and self._changes.seen():
            kernel.unmount(self._options["scratch"])
            kernel.mount(*self._scratch)
            self._changes.watch(self._options["scratch"])
        return report

    def _make_ready(self, others: int) -> tuple[int, _socket.socket]:
        """Fork a process and let it give up everything that a program may not have; its number, and the channel to
        it. ``others`` are ready while its program runs."""
        ours, theirs = _socket.socketpair()
        channel = Channel(theirs)
        if self._options["isolate"]:
            kernel.unshare(kernel.CLONE_NEWPID)  # for the next child
        pid = _fork()
        if pid == 0:
            self._wait_for_program(channel)
        if pid < 0:
            os._exit(1)
        if self._options["isolate"]:
            kernel.enter_namespace(self._own_namespace, kernel.CLONE_NEWPID)
        theirs.close()
        limits = self._options["limits"]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limits["open_files"],) * 2)
        if self._filter is not None:
            # The server, its parent and the other processes count too. Without a namespace of our own to count in, the
            # limit would be on all processes of the user, so there it is left alone.
            resource.prlimit(pid, resource.RLIMIT_NPROC, (limits["processes"] + 2 + others,) * 2)
        return pid, ours

    def _watch(self, pid: int, timeout_s: float, trusted: bool) -> bytes:
        """Wait for process ``pid``; kill it at the deadline, when the host says so or hangs up, or when all processes
        of the program together hold more than its memory, which is looked at unless it is ``trusted``."""
        start = time.monotonic()
        deadline = start + timeout_s
        limit = self._options["limits"]["memory_mb"] * _MEBI
        exited = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        sources = [self._control.fileno()] + ([exited] if exited >= 0 else [])
        counted = self._proc >= 0 and not trusted
        pause = 0.005 if exited < 0 else 0.05 if counted else 3600.0
        killed, looked = "", start
        while not killed:
            ready = select.select(sources, [], [], max(0.0, min(deadline - time.monotonic(), pause)))[0]
            if exited in ready or (exited < 0 and _ended(pid)):
                break
            now = time.monotonic()
            if ready:
                killed = "host"  # its message stays for `main`, which knows a hang-up from a "kill"
            elif now >= deadline:
                killed = "timeout"
            elif counted and now - looked >= 0.05:
                looked = now
                if self._resident() > limit:
                    killed = "memory"
        if exited >= 0:
            os.close(exited)
        if killed:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        cpu_s = usage.ru_utime + usage.ru_stime
        status = os.waitstatus_to_exitcode(status)
        return REPORT.pack(status, time.monotonic() - start, cpu_s, usage.ru_maxrss / 1024, killed.encode())

    def _resident(self) -> int:
        """Bytes of resident memory of the program's processes: all in sight that are not the server's own."""
        ready = {pid for pid, _ in self._ready}
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

    def _wait_for_program(self, channel: Channel) -> NoReturn:
        """Give up everything that a program may not have, wait for one, run it."""
        try:
            os.setsid()
            number = channel.sock.fileno()
            os.closerange(3, number)
            os.closerange(number + 1, 4096)
            if self._filter is not None:
                kernel.drop_capabilities()
                self._filter.install()
            request, files = channel.receive_request()
        except EOFError:  # there will be none
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        process.main(request, channel, files)


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


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
