"""The Linux calls that isolate a process and that Python 3.11 has no function for.

The numbers are those of the kernel's user-space headers. See namespaces(7), user_namespaces(7), seccomp(2).
"""

from __future__ import annotations

import ctypes
import os
import select
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_ALL_NAMESPACES = 0x7E020000  # the seven above: what a program may never ask clone for

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
_IN_ANY_CHANGE = 0x3C6  # modified, attributes, moved from and to, created, deleted

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_EPERM, _ENOSYS = 1, 38

# Refused to every program, and to the server itself. Sockets would reach a sibling through an abstract name, and so
# would one of a pair once it is bound; the memory calls make memory that no limit counts; statmount and listmount tell
# of folders outside; the rest only widen the kernel's surface.
_NEVER = {
    "x86_64": {
        "socket": 41, "connect": 42, "bind": 49, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
        "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
        "memfd_create": 319, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "fanotify_init": 300, "quotactl": 179, "acct": 163, "kexec_load": 246,
        "kexec_file_load": 320, "swapon": 167, "swapoff": 168, "reboot": 169, "init_module": 175, "finit_module": 313,
        "delete_module": 176, "iopl": 172, "ioperm": 173,
    },
    "aarch64": {
        "socket": 198, "bind": 200, "connect": 203, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
        "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219,
        "memfd_create": 279, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "name_to_handle_at": 264,
        "open_by_handle_at": 265, "fanotify_init": 262, "quotactl": 60, "acct": 89, "kexec_load": 104,
        "kexec_file_load": 294, "swapon": 224, "swapoff": 225, "reboot": 142, "init_module": 105, "finit_module": 273,
        "delete_module": 106,
    },
}  # fmt: skip
# Refused to programs: with these one could leave a namespace, or enter a new one and there mount memory without limit.
_NAMESPACES = {
    "x86_64": {"unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161},
    "aarch64": {"unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51},
}
_NEVER_ANYWHERE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447, "statmount": 457, "listmount": 458,
    "open_tree_attr": 467, "listns": 470,
}  # fmt: skip
_MACHINE = os.uname().machine
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CLONE3 = 435
_CAPABILITIES_V3, _NO_CAPABILITY = struct.pack("=Ii", 0x20080522, 0), bytes(24)

NEVER = tuple(sorted({**_NEVER.get(_MACHINE, {}), **_NEVER_ANYWHERE}.values()))
NOT_IN_A_PROGRAM = tuple(sorted(_NAMESPACES.get(_MACHINE, {}).values()))

_libc = ctypes.CDLL(None, use_errno=True)
# What is called for each program: looked up here, once for all of them.
_prctl, _capset, _unshare, _setns = _libc.prctl, _libc.capset, _libc.unshare, _libc.setns


def supported() -> bool:
    """Whether this machine is one whose system calls the filter knows."""
    return os.uname().sysname == "Linux" and _MACHINE in _AUDIT_ARCH and ctypes.sizeof(ctypes.c_void_p) == 8


def _checked(name: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Move this process (its children, for the PID namespace) into new namespaces."""
    _checked("unshare", _unshare(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _checked(
        f"mount {kind or source} on {target}",
        _libc.mount(
            source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
        ),
    )


def unmount(target: str) -> None:
    """Let go of what is mounted on ``target``: it is gone with the last that uses it."""
    _checked(f"umount {target}", _libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)))


class Changes:
    """Whether anything in a folder, or of the folder itself, changed; what lies deeper shows in what lies above it
    (inotify(7)). Where the kernel has no watch to give, all counts as changed."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_CLOEXEC)
        self._watched = False

    def watch(self, folder: str) -> None:
        """Watch ``folder`` from now on, and nothing else."""
        self.seen()
        self._watched = self._fd >= 0 and _libc.inotify_add_watch(self._fd, folder.encode(), _IN_ANY_CHANGE) >= 0

    def seen(self) -> bool:
        """Whether there was a change since the last look."""
        if not self._watched:
            return True
        changed = bool(select.select([self._fd], [], [], 0.0)[0])
        if changed:
            os.read(self._fd, 65536)
        return changed


def enter_root(folder: str) -> None:
    """Make ``folder`` (a mount point) this process's root and let go of the old one."""
    os.chdir(folder)
    _checked("pivot_root", _libc.syscall(ctypes.c_long(_PIVOT_ROOT[_MACHINE]), b".", b"."))
    unmount(".")
    os.chdir("/")


def map_ids(uid: int, gid: int) -> None:
    """Give this process, in its new user namespace, the ids it had before."""
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def enter_namespace(fd: int, kind: int) -> None:
    """Enter the namespace of ``kind`` behind the open file ``fd`` (its children, for the PID namespace)."""
    _checked("setns", _setns(fd, kind))


def set_dumpable(yes: bool) -> None:
    """Whether other processes of the same user may trace this one and read its memory."""
    _checked("prctl", _prctl(_PR_SET_DUMPABLE, int(yes), 0, 0, 0))


def drop_capabilities() -> None:
    """Give up every capability. `forbid_new_privileges` sees to it that no exec brings one back."""
    _checked("capset", _capset(_CAPABILITIES_V3, _NO_CAPABILITY))


def give_back_memory() -> None:
    """Give the system what the C library keeps of freed memory, so that no fork carries it along."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))


def forbid_new_privileges() -> None:
    """Let no exec raise privileges, from now on, in this process and its children. What a `Filter` needs first."""
    _checked("prctl", _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


class Filter:
    """Refuses system calls from `install` on, in this process and its children (seccomp). That of `NOT_IN_A_PROGRAM`
    also refuses new namespaces asked for with clone."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        strict = numbers == NOT_IN_A_PROGRAM
        refuse = _op(0x06, 0x00050000 | _EPERM)
        absent = _op(0x06, 0x00050000 | _ENOSYS)
        code = [
            _op(0x20, 4),  # load the architecture
            _op(0x15, _AUDIT_ARCH[_MACHINE], 1, 0),
            _op(0x06, 0x80000000),  # a foreign one: end the process
            _op(0x20, 0),  # load the call's number
            _op(0x35, 0x40000000, 0, 1) + absent,  # the x32 numbers are another table: none of them
            *(_op(0x15, number, 0, 1) + refuse for number in numbers),
        ]
        if strict:
            # clone3's flags lie in memory that no filter sees; the C library falls back to clone, whose flags it sees.
            code += [_op(0x15, _CLONE3, 0, 1) + absent, _op(0x15, _CLONE[_MACHINE], 0, 3), _op(0x20, 16)]
            code += [_op(0x45, _ALL_NAMESPACES, 0, 1) + refuse]
        program = b"".join([*code, _op(0x06, 0x7FFF0000)])  # and allow the rest
        self._program = ctypes.create_string_buffer(program, len(program))
        self._header = struct.pack("@HP", len(program) // 8, ctypes.addressof(self._program))

    def install(self) -> None:
        _checked("seccomp", _prctl(_PR_SET_SECCOMP, 2, self._header, 0, 0))


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
