"""Users, passwords and keys in the URL of a server are sent to it, and stand in nothing that a run leaves behind."""

from __future__ import annotations

import base64
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentkit.address import Address, database
from agentkit.agents.reflexion import reflexion
from agentkit.errors import InvalidValue
from agentkit.llm import Recorded, get_llm
from agentkit.llm.errors import ModelError, NetworkForbidden, ReplayMiss, RequestRefused
from agentkit.memory import Memory
from agentkit.memory.embed_models import LiteLLMEmbedder
from agentkit.policy.generate import Direct
from agentkit.runner import run
from agentkit.types import Task
from tests.agentkit.llm.chat_server import BACKENDS, KEY, Body, Reply, Server, connect, error, request, script

PASSWORD, QUERY_KEY = "p@ss/word", "q key+7"
LOGIN = base64.b64encode(f"somebody:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, "p%40ss%2Fword", QUERY_KEY, "q%20key%2B7", "q+key%2B7", LOGIN, KEY)


def private(url: str) -> str:
    """The server's URL with a user and password, a key and a version in it."""
    return url.replace("://", "://somebody:p%40ss%2Fword@") + "?api-key=q%20key%2B7&api-version=2"


def found_in(data: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in data]


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """What all libraries log of the requests that they send."""
    handler, root = logging.FileHandler(path), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)  # for debugging, litellm logs bodies whole
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize("name", BACKENDS)
def test_no_file_of_a_run_holds_the_secrets_of_the_url(name: str, tmp_path: Path) -> None:
    telling = [f"refused: {secret} of {private('http://127.0.0.1/v1')}" for secret in SECRETS]

    def reply(body: Body) -> Reply:
        number = len(server.bodies)
        if number % 3 == 0:  # an error, or a body that is no answer, that says what was sent
            return error(400, telling[number % len(telling)])
        return Reply(raw=str(telling).encode()) if number % 3 == 1 else Reply("wait")

    with Server(reply) as server, logged_to(tmp_path / "log.txt"):
        url = private(server.url)
        with Memory(tmp_path / "memory.db") as memory:
            llm = Recorded(connect(name, url, retries=0), tmp_path / "recording.db", mode="record")
            agent = reflexion(llm, memory, policy=Direct())
            tasks = [Task("agentkit/FrozenLake-v0", seed=seed) for seed in range(4)]
            played = run(agent, tasks, trials=2, max_steps=3, log=tmp_path / "run.db")
            llm.close()
    assert {e.stop_reason for e in played.episodes} >= {"model_error"}
    assert any("***" in episode.error for episode in played.episodes)
    assert [found_in(pickle.dumps(episode)) for episode in played.episodes] == [[]] * len(played.episodes)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"log.txt", "memory.db", "recording.db", "run.db"}
    assert {path.name: found for path in files if (found := found_in(path.read_bytes()))} == {}
    for head in server.headers:
        assert head.splitlines()[0] == "POST /v1/chat/completions?api-key=q+key%2B7&api-version=2 HTTP/1.1"
        assert [line for line in head.splitlines() if line.lower().startswith("authorization:")] == [
            f"Authorization: Basic {LOGIN}"
        ]


@pytest.mark.parametrize("name", BACKENDS)
def test_the_name_of_a_model_in_recordings_does_not_change_with_the_password(name: str) -> None:
    def identity(url: str) -> str:
        llm: Any = connect(name, url)
        return str(llm.identity)

    assert identity("http://a.example/v1/") == f"{name}@http://a.example/v1"
    assert identity("http://me:1@a.example/v1") == identity("http://me:2@a.example/v1") == f"{name}@http://a.example/v1"
    assert identity("http://a.example/v1?key=1&api-version=3") == f"{name}@http://a.example/v1?key=…&api-version=3"
    assert identity("http://a.example/v1?hidden-7") == f"{name}@http://a.example/v1?…"


def test_another_provider_of_litellm_is_sent_the_password_too() -> None:
    with Server(script(Reply("ok"), error(400, f"{LOGIN} {PASSWORD}"))) as server:
        url = server.url.replace("://", "://somebody:p%40ss%2Fword@")
        llm: Any = connect("litellm/hosted_vllm/tiny", url, retries=0)
        assert llm.generate([request()])[0][0].text == "ok"
        assert llm.identity == f"litellm/hosted_vllm/tiny@{server.url}"
        with pytest.raises(RequestRefused) as caught:
            llm.generate([request()])
    assert f"Authorization: Basic {LOGIN}" in server.headers[0]
    assert found_in(str(caught.value).encode()) == []


def test_secrets_are_not_sent_to_the_server_that_another_one_names() -> None:
    with Server(script(Reply("ok"))) as other:
        there = Reply(status=307, headers={"location": f"{other.url}/chat/completions"}, raw=b"")
        with Server(script(there)) as server:
            connect("openai/tiny", private(server.url)).generate([request()])
    assert LOGIN in server.headers[0]
    assert found_in(other.headers[0].encode()) == []
    assert other.headers[0].startswith("POST /v1/chat/completions HTTP/1.1")


def test_secrets_go_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentkit.llm.remote import allow_network

    allow_network(True)  # put back after each test
    with Server(script(Reply("by proxy"))) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1").removeprefix("http://"))
        connect("openai/tiny", private("http://models.example/v1")).generate([request()])
    first = server.headers[0].splitlines()[0]
    assert first == "POST http://models.example/v1/chat/completions?api-key=q+key%2B7&api-version=2 HTTP/1.1"
    assert LOGIN in server.headers[0]


def test_a_server_that_may_not_be_called_is_named_without_its_secrets() -> None:
    from agentkit.llm.remote import allow_network

    before = allow_network(False)
    try:
        with pytest.raises(NetworkForbidden, match=r"http://a\.example/v1 is remote") as caught:
            connect("openai/tiny", private("http://a.example/v1")).generate([request()])
    finally:
        allow_network(before)
    assert found_in(str(caught.value).encode()) == []


@pytest.mark.parametrize("url", ["localhost:8000/v1", "me:hunter2@localhost/v1", "http://", "http://[::1/v1?k=hunter2"])
@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_no_address_is_refused_at_once(name: str, url: str) -> None:
    with pytest.raises(InvalidValue, match="no address of a server") as caught:
        get_llm(name, base_url=url, api_key=KEY)
    assert "hunter2" not in str(caught.value)


def test_an_embedding_service_s_errors_hold_no_secrets() -> None:
    with Server(script(error(400, f"{KEY} {LOGIN} {PASSWORD}"))) as server:
        url = server.url.replace("://", "://somebody:p%40ss%2Fword@")
        embedder = LiteLLMEmbedder("openai/tiny", api_base=url, api_key=KEY, retries=0)
        with pytest.raises(ModelError, match=r"\*\*\*") as caught:
            embedder.embed(["hello"])
    assert LOGIN in server.headers[0]
    assert found_in(str(caught.value).encode()) == []
    assert caught.value.__cause__ is None


def test_a_recording_in_a_database_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="is not a recording") as caught:
        Recorded("x", "postgresql+psycopg://me:hunter2@127.0.0.1:1/none?password=hunter2", mode="replay")
    assert "hunter2" not in str(caught.value)
    assert database("postgresql://me:sec:r/e@t@host:5432/db?schema=a") == "postgresql://me:***@host:5432/db?schema=a"
    assert database("postgresql+psycopg://host/db") == "postgresql+psycopg://host/db"
    assert database("a:b@c/m.db") == "a:b@c/m.db"
    assert database("postgresql://host/db?schema=a&password=x") == "postgresql://host/db?schema=a&password=***"
    with pytest.raises(ReplayMiss, match="no recording at"):
        Recorded("x", tmp_path / "none", mode="replay")


def test_an_address_does_not_show_its_secrets() -> None:
    address = Address.of(private("http://a.example:8000/v1"))
    assert found_in(repr(address).encode()) == []
    assert (address.url, address.login) == ("http://a.example:8000/v1", ("somebody", PASSWORD))
    assert set(address.secrets) >= set(SECRETS) - {KEY}
    assert Address.of("http://token-7@a.example/v1").secrets.count("token-7") == 1
