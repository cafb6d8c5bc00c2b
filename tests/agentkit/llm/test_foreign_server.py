"""The openai backend against a server that is not ours: `transformers serve`, with the embedded model."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentkit.llm import get_llm
from agentkit.llm.errors import ModelError
from agentkit.types import Message, Request

pytestmark = [pytest.mark.model, pytest.mark.slow]


@contextlib.contextmanager
def transformers_serve(folder: Path, log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, "--device", "cpu"], stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            deadline = time.monotonic() + 240
            while True:
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("transformers serve did not start: " + log.read_text()[-2000:])
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def test_transformers_serve(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "fastapi", "uvicorn"):
        pytest.importorskip(package)
    from agentkit.llm.download import embedded_model

    folder = embedded_model()
    question = Request((Message("user", "What is the capital of France?"),), temperature=0, max_tokens=20)
    with transformers_serve(folder, tmp_path / "log") as url:
        llm = get_llm(f"openai/{folder}", base_url=url, timeout_s=200)
        ((completion,),) = llm.generate([question])
        assert completion.text == "The capital of France is Paris."
        assert completion.usage.completion_tokens > 0
        assert completion.usage.prompt_tokens > 30
        both = llm.generate([question, Request(question.messages, n=2, max_tokens=5, temperature=0)])
        assert [len(answers) for answers in both] == [1, 2]
        with pytest.raises(ModelError):
            get_llm("openai/no/such-model", base_url=url, timeout_s=60, retries=0).generate([question])
