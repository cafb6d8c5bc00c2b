"""Attempts to break out of the sandbox. Each is a program that tries, and reports by exit status or output."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentkit.envs.sandbox import WALLS, Ended, Limits, Sandbox, SandboxUnavailable, Wall

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module", params=WALLS, ids=lambda w: f"{w.level}-{'warm' if w.warm else 'cold'}")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    wall: Wall = request.param
    with Sandbox(wall=wall, limits=Limits(memory_mb=256, processes=8, output_bytes=100_000)) as box:
        try:
            assert box.level == wall.level
        except SandboxUnavailable as error:
            pytest.skip(f"no such wall on this machine: {error}")
        yield box


def printed(sandbox: Sandbox, code: str, timeout_s: float = 5.0) -> str:
    result = sandbox.run(textwrap.dedent(code), timeout_s=timeout_s)
    assert result.ok, result
    return result.stdout.strip()


# --- files and environment ------------------------------------------------------------------------------------------


def test_the_users_files_do_not_exist(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    result = sandbox.run(f"print(open({str(secret)!r}).read())")
    assert result.ended is Ended.ERROR
    assert "FileNotFoundError" in result.stderr
    assert SECRET not in result.stdout + result.stderr
    for path in (Path.home() / ".bashrc", Path("/etc/passwd"), Path("/etc/shadow"), Path(__file__), Path("/var/log")):
        assert "FileNotFoundError" in sandbox.run(f"import os; os.stat({str(path)!r})").stderr


def test_only_the_interpreter_is_in_sight(sandbox: Sandbox) -> None:
    listing = printed(
        sandbox,
        """
        import os
        for folder, _, names in os.walk("/"):
            for name in names:
                path = os.path.join(folder, name)
                if "-packages" in path or path.endswith(("jsonl", "jsonl.gz", ".env", ".pem", "_history")):
                    print(path)
        """,
        timeout_s=20,
    )
    assert listing == ""


def test_the_environment_is_empty_but_for_what_the_sandbox_sets(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    with Sandbox(wall=sandbox._found) as fresh:
        assert printed(fresh, "import os; print(sorted(os.environ))") == "['HOME', 'LANG', 'PATH', 'TMPDIR']"
        result = fresh.run("print(open('/proc/self/environ').read())")
        assert SECRET not in result.stdout + result.stderr
        found = """
            import ctypes, os
            environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
            i = 0
            while environ[i]:
                print(environ[i]); i += 1
        """
        assert SECRET not in printed(fresh, found)


def test_nothing_but_the_scratch_folder_can_be_written(sandbox: Sandbox) -> None:
    wrote = printed(
        sandbox,
        """
        import os
        for folder, folders, _ in os.walk("/"):
            path = os.path.join(folder, "probe")
            try:
                open(path, "w").close()
            except OSError:
                continue
            print(folder)
        """,
        timeout_s=20,
    )
    assert wrote == "/scratch"


def test_nothing_written_is_left_for_the_next_program(sandbox: Sandbox) -> None:
    assert sandbox.run("open('left', 'w').write('x')").ok
    assert printed(sandbox, "import os; print(os.listdir('.'))") == "[]"


@pytest.mark.parametrize(
    "change",
    [
        "os.mkdir('a'); os.mkdir('a/b'); open('a/b/left', 'w').write('x')",
        "open('left', 'w').close(); os.remove('left')",
        "os.symlink('/', 'left')",
        "os.chmod('.', 0)",
        "os.setxattr('.', 'user.mark', b'x')",
        "os.utime('.', (1, 1))",
        "os.link('/proc/self/fd/%d' % os.open('.', os.O_TMPFILE | os.O_RDWR), 'left', follow_symlinks=True)",
        "open('random.py', 'w').write('raise SystemExit(9)'); open('ast.py', 'w').write('raise SystemExit(9)')",
    ],
)
def test_a_touched_scratch_folder_is_not_the_next_ones(sandbox: Sandbox, change: str) -> None:
    sandbox.run(f"import os\n{change}")
    look = "import ast, os, random; s = os.stat('.'); print(os.listdir('.'), os.listxattr('.'), oct(s.st_mode), s.st_mtime > 9)"
    mode = "0o41777" if sandbox._found and not sandbox._found.warm else "0o40700"
    for _ in range(2):
        assert printed(sandbox, look) == f"[] [] {mode} True"


def test_the_scratch_folder_is_bounded(sandbox: Sandbox) -> None:
    result = sandbox.run(
        """
for i in range(100):
    with open(f"part{i}", "wb") as file:
        file.write(bytes(15 * 2**20))
""",
        timeout_s=20,
    )
    assert result.ended in (Ended.ERROR, Ended.MEMORY)
    assert "No space left" in result.stderr or result.ended is Ended.MEMORY
    assert "File too large" in sandbox.run("open('big', 'wb').write(bytes(17 * 2**20))").stderr


def test_devices_and_the_kernel_are_out_of_reach(sandbox: Sandbox) -> None:
    for code in (
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.mount(b'x', b'/scratch', b'tmpfs', 0, None) == 0",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.unshare(0x10000000) == 0",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.syscall(56, 0x10000011, 0, 0, 0, 0) >= 0",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.ptrace(0, 0, 0, 0) == 0",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.chroot(b'/scratch') == 0",
        "import os; os.memfd_create('x')",
        "import os; os.mknod('disk', 0o60600, os.makedev(8, 0))",
        "import os; os.setuid(0)",
        "open('/dev/mem')",
        "open('/proc/sys/kernel/hostname', 'w')",
    ):
        result = sandbox.run(code)
        assert result.ended is Ended.ERROR, (code, result)


# --- network --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])
def test_no_socket_can_be_opened(sandbox: Sandbox, family: str) -> None:
    result = sandbox.run(f"import socket; socket.socket(socket.{family})")
    assert "PermissionError" in result.stderr


@pytest.mark.parametrize("call", ["bind", "connect"])
def test_a_socket_of_a_pair_gets_no_name(sandbox: Sandbox, call: str) -> None:
    pair = "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]"
    assert "PermissionError" in sandbox.run(f"import socket; {pair}.{call}('\\0name')").stderr


def test_where_folders_are_mounted_from_is_not_told(sandbox: Sandbox) -> None:
    code = """
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        for number in (457, 458):
            assert libc.syscall(number, 0, 0, 0, 0) == -1
            print(errno.errorcode[ctypes.get_errno()])
    """
    assert printed(sandbox, code) == "EPERM\nEPERM"


def test_no_inherited_descriptor_leads_out(sandbox: Sandbox) -> None:
    code = """
        import os
        found = []
        for fd in range(3, 200):
            try:
                os.fstat(fd); found.append(fd)
            except OSError:
                pass
        print(found)
    """
    assert printed(sandbox, code) == "[]"


# --- processes, time, memory, output --------------------------------------------------------------------------------


def test_a_fork_bomb_ends_with_the_program(sandbox: Sandbox) -> None:
    result = sandbox.run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", timeout_s=1.0)
    assert result.ended in (Ended.TIMEOUT, Ended.MEMORY)
    assert printed(sandbox, "print('alive')") == "alive"


def test_processes_are_counted(sandbox: Sandbox) -> None:
    code = """
        import os, time
        made = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(60)
                made += 1
        except BlockingIOError:
            print(made)
    """
    made = int(printed(sandbox, code))
    assert 4 <= made <= 12


def test_each_program_may_have_as_many_processes_as_the_last(sandbox: Sandbox) -> None:
    code = """
        import os, time
        made = 0
        try:
            while made < 50:
                if os.fork() == 0:
                    time.sleep(60)
                made += 1
        except BlockingIOError:
            pass
        print(made)
    """
    made = [int(printed(sandbox, code)) for _ in range(6)]
    # One that the program before left behind may still be ending, and counts until then.
    assert max(made) - min(made) <= 2, made


def test_a_memory_bomb_ends(sandbox: Sandbox) -> None:
    result = sandbox.run("x = bytearray(10**10)")
    assert (result.ended, "MemoryError" in result.stderr) == (Ended.MEMORY, True)


def test_memory_is_counted_over_all_processes(sandbox: Sandbox) -> None:
    if not (sandbox._found and sandbox._found.warm):
        pytest.skip("the cold wall bounds each process alone")
    code = """
        import os, time
        for i in range(6):
            if os.fork() == 0:
                block = bytearray(b"x") * (100 * 2**20)
                time.sleep(60)
        time.sleep(60)
    """
    result = sandbox.run(textwrap.dedent(code), timeout_s=20)
    assert result.ended is Ended.MEMORY


def test_a_flood_of_output_is_cut(sandbox: Sandbox) -> None:
    result = sandbox.run("import os\nblock = b'x' * 2**20\nfor _ in range(1000): os.write(1, block)", timeout_s=20)
    assert result.ended is Ended.OUTPUT_LIMIT
    assert len(result.stdout) == 100_000


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(1000)",
        "while True: pass",
        "import signal, time\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: time.sleep(1)",
        "x = 9 ** 9 ** 9",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
        "import atexit, time\natexit.register(time.sleep, 1000)",
        "try:\n    while True: pass\nfinally:\n    while True: pass",
    ],
    ids=["sleep", "spin", "ignore", "power", "thread", "atexit", "finally"],
)
def test_the_deadline_holds(sandbox: Sandbox, code: str) -> None:
    result = sandbox.run(code, timeout_s=0.5)
    assert result.ended is Ended.TIMEOUT
    assert result.exit_code == -9


def test_a_daemon_dies_with_the_program(sandbox: Sandbox) -> None:
    marker = f"marker{time.time_ns()}"
    code = f"""
        import os, sys, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                import ctypes
                ctypes.CDLL(None).prctl(15, b"{marker[:15]}", 0, 0, 0)
                time.sleep(1000)
            os._exit(0)
        os.wait()
        print("gone")
    """
    assert printed(sandbox, code) == "gone"
    last = time.monotonic() + 10
    while alive := list(_named(marker[:15])):
        assert time.monotonic() < last, f"still there: {alive}"
        time.sleep(0.02)


def _named(name: str) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # a process that ended meanwhile
            if path.read_text().strip() == name:
                yield path.parent.name


def test_a_stopped_server_does_not_keep_its_programs_alive() -> None:
    try:
        box = Sandbox(wall=WALLS[2])
        assert box.level
    except SandboxUnavailable as error:
        pytest.skip(f"no such wall on this machine: {error}")
    code = """
        import os, signal, time
        if os.fork() == 0:
            import ctypes
            ctypes.CDLL(None).prctl(15, b"left-behind-xyz", 0, 0, 0)
            for pid in range(2, os.getpid()):
                try: os.kill(pid, signal.SIGSTOP)
                except OSError: pass
            time.sleep(1000)
        time.sleep(1000)
    """
    box.run(textwrap.dedent(code), timeout_s=0.5)
    box.close()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            assert path.read_text().strip() != "left-behind-xyz"


def test_no_other_process_can_be_seen_or_signalled(sandbox: Sandbox) -> None:
    assert printed(sandbox, "import os; print(os.listdir('/proc') if os.path.exists('/proc') else [])") == "[]"
    sandbox.run("import os\nfor pid in range(1, 400):\n    try: os.kill(pid, 9)\n    except OSError: pass")
    sandbox.run("import os; os.kill(-1, 9)")
    assert printed(sandbox, "print('alive')") == "alive"
    assert os.getppid() > 0
    assert subprocess.run([sys.executable, "-c", ""], check=True).returncode == 0


def test_nothing_of_an_earlier_program_is_in_memory(sandbox: Sandbox) -> None:
    # Built here, so that the search below does not find itself.
    word = "".join(["corr", "ecthorse", str(time.time_ns())])
    assert sandbox.run(f"x = {word!r} * 1000; print(len(x))").ok
    halves = word[: len(word) // 2], word[len(word) // 2 :]
    code = f"""
        import ctypes, gc, sys
        word = ({halves[0]!r} + {halves[1]!r}).encode()
        heap = [a for a in gc.get_objects()]
        low, high = min(map(id, heap)), max(map(id, heap))
        hits = 0
        libc = ctypes.CDLL(None)
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        page = 4096
        vector = ctypes.create_string_buffer(1)
        for address in range(low - low % page, high, page):
            if libc.mincore(address, page, vector) == 0 and word in ctypes.string_at(address, page):
                hits += 1
        print(hits)
    """
    # The word itself, in this program's own constants and variable, is on at most a few pages; a thousand copies of an
    # earlier program's would be on many more.
    assert int(printed(sandbox, code, timeout_s=20)) <= 4
