"""Servers that fail in ways of their own, through the real clients: what becomes of the episode, and of the budget."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import httpx
import pytest

from agentkit.agent import Agent
from agentkit.errors import BudgetExceeded
from agentkit.llm import Call, Ledger, instrument, metered
from agentkit.llm.errors import ModelError, ServerUnreachable
from agentkit.llm.remote import allow_network, prompt_bytes
from agentkit.llm.transport import Lines
from agentkit.runner import run
from agentkit.types import Action, StopReason, Task, View
from tests.agentkit.llm.chat_server import (
    BACKENDS,
    KEY,
    Body,
    Reply,
    Server,
    completion,
    connect,
    error,
    request,
    script,
    spend,
)

GOOD = completion(Reply("hello"), {"messages": [], "model": "tiny"})
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
OWN_WAYS = {
    "cut JSON": Reply(raw=GOOD[:-20]),
    "a page": Reply(raw=b"<html>Welcome</html>", headers={"content-type": "text/html"}),
    "nothing": Reply(raw=b""),
    "no choices": Reply(n=0),
    "null choices": Reply(raw=GOOD.replace(b'"choices": [', b'"choices": null, "x": [')),
    "chunks of garbage": Reply(wire=HEAD + b"transfer-encoding: chunked\r\n\r\nzzz\r\ngarbage\r\n"),
    "a chunk that is too short": Reply(wire=HEAD + b"transfer-encoding: chunked\r\n\r\nff\r\n{}"),
    "a body that is too short": Reply(wire=HEAD + b"content-length: 999\r\n\r\n" + GOOD),
    "not HTTP": Reply(wire=b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a hang-up": Reply(wire=b""),
    "a reset in the body": Reply(reset=True),
    "a slow head": Reply(wire=HEAD + b"content-length: 2\r\n\r\n{}", drip_s=0.05),
    "a slow body": Reply(drip_s=0.05),
    "not gzip": Reply(headers={"content-encoding": "gzip"}),
    "not UTF-8": Reply(raw=GOOD.replace(b"hello", b"\xff\xfe")),
    "deep JSON": Reply(raw=b"[" * 200_000),
    "a number for a text": Reply(raw=GOOD.replace(b'"hello"', b"7")),
    "a text for a choice": Reply(raw=b'{"choices": ["hello"]}'),
    "a redirect in a circle": Reply(status=307, raw=b"", headers={"location": "/v1/chat/completions"}),
}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("fault", list(OWN_WAYS))
def test_a_server_that_fails_in_ways_of_its_own_ends_that_episode_alone(name: str, fault: str) -> None:
    def reply(body: Body) -> Reply:
        return OWN_WAYS[fault] if "room 1" in body["messages"][-1]["content"] else Reply("done")

    class Asks(Agent):
        def act(self, view: View) -> Action:
            assert self.llm is not None
            ((answer,),) = self.llm.generate([request(view.observation)])
            return Action(answer.text)

    class Room(gymnasium.Env[str, str]):
        observation_space = action_space = gymnasium.spaces.Text(100)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            return f"You are in room {seed}.", {"goal": "Say done."}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            return "Right.", 1.0, True, False, {"success": action == "done"}

    gymnasium.register("tests/Room-v0", entry_point=lambda **_: Room(), disable_env_checker=True, order_enforce=False)
    try:
        with Server(reply) as server:
            llm = connect(name, server.url, retries=1, timeout_s=0.7)
            agent = Asks(llm)
            played = run(agent, [Task("tests/Room-v0", seed=i) for i in range(4)], workers=4)
    finally:
        gymnasium.registry.pop("tests/Room-v0")
    reasons = [episode.stop_reason for episode in played.episodes]
    assert reasons == [StopReason.SUCCESS, StopReason.MODEL_ERROR, StopReason.SUCCESS, StopReason.SUCCESS]
    assert name in played.episodes[1].error
    assert KEY not in played.episodes[1].error


def test_what_the_server_says_of_itself_is_not_believed_blindly() -> None:
    odd = GOOD.replace(b'"prompt_tokens": 0', b'"prompt_tokens": -50').replace(b"hello", b"a \\ud800 b")
    with Server(script(Reply(raw=odd))) as server:
        ((answer,),) = connect("openai/tiny", server.url).generate([request("hello")])
        assert answer.usage.prompt_tokens == 0
        assert answer.text == "a \ufffd b"
    with Server(script(Reply(raw=GOOD.replace(b'"prompt_tokens": 0', b'"prompt_tokens": "many"')))) as server:
        ((answer,),) = connect("openai/tiny", server.url).generate([request("hello")])
        assert answer.usage.prompt_tokens >= len("hello")


def test_a_count_that_is_no_number_is_no_count() -> None:
    with Server(script(Reply(raw=GOOD.replace(b'"prompt_tokens": ', b'"prompt_tokens": 1e999, "x": ')))) as server:
        ((completion,),) = connect("openai/tiny", server.url).generate([request()])
    assert completion.text == "hello"
    assert completion.usage.prompt_tokens > 0


def test_hints_before_a_response_are_not_the_response() -> None:
    with Server(lambda body: Reply("to " + body["messages"][-1]["content"], early=True)) as server:
        llm = connect("openai/tiny", server.url, retries=0)
        assert [llm.generate([request(text)])[0][0].text for text in "abc"] == ["to a", "to b", "to c"]
        many = llm.generate([request(str(i)) for i in range(8)])
        assert [completions[0].text for completions in many] == [f"to {i}" for i in range(8)]


def test_a_server_that_refuses_before_it_has_read_everything_is_heard() -> None:
    body = b'{"error": {"message": "too large"}}'
    refusal = b"HTTP/1.1 413 X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(refusal)
                connection.shutdown(socket.SHUT_WR)
                time.sleep(0.5)  # so that the refusal is there before the connection breaks

        thread = threading.Thread(target=refuse)
        thread.start()
        with httpx.Client(transport=Lines(10.0)) as client:
            answer = client.post(f"http://127.0.0.1:{listening.getsockname()[1]}/", content=b"x" * (32 << 20))
        thread.join()
    assert (answer.status_code, answer.content) == (413, body)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_answer_that_was_lost_is_charged_as_the_most_it_can_have_been(name: str) -> None:
    asked = request("hello there", max_tokens=20)
    most = prompt_bytes(asked) + 20
    for lost in (Reply(delay_s=30), Reply(raw=b'{"choices": [{"mess')):
        ledger, calls = Ledger(tokens=10_000), list[Call]()
        with Server(script(lost, Reply("one two three"))) as server, metered(ledger=ledger, sink=calls):
            instrument(connect(name, server.url, timeout_s=0.7)).generate([asked])
        assert ledger.spent.tokens == most + 2 + 3 == calls[0].usage.tokens
    for told in (error(500, "oops"), error(429, "slow down")):
        ledger = Ledger(tokens=10_000)
        with Server(script(told, Reply("one two three"))) as server, metered(ledger=ledger):
            instrument(connect(name, server.url)).generate([asked])
        assert ledger.spent.tokens == 2 + 3
    ledger = Ledger(tokens=most + 10)
    with Server(script(Reply(delay_s=30))) as server, metered(ledger=ledger):
        llm = instrument(connect(name, server.url, timeout_s=0.7))
        with pytest.raises(BudgetExceeded, match="lost"):
            llm.generate([asked])
        assert len(server.bodies) == 1
    assert ledger.spent.tokens == most


def test_nothing_is_charged_where_nobody_listens() -> None:
    ledger = Ledger(tokens=1000)
    with metered(ledger=ledger), pytest.raises(ServerUnreachable):
        instrument(connect("openai/tiny", "http://127.0.0.1:9/v1", retries=2)).generate([request()])
    assert ledger.spent.tokens == 0


def test_a_budget_holds_with_64_threads_on_a_server_that_loses_answers() -> None:
    """What the server computed, the lost answers included, is never more than the budget."""
    ledger, computed, numbers = Ledger(tokens=10_000), [0], itertools.count()

    def reply(_: Body) -> Reply:
        computed[0] += 3 + 40
        return Reply("w " * 40, delay_s=0.01, cut=next(numbers) % 5 == 0)

    with Server(reply) as server:
        spend(ledger, instrument(connect("openai/tiny", server.url)), [request("a b c", max_tokens=40)] * 2)
    assert computed[0] <= ledger.spent.tokens <= 10_000
    assert ledger.spent.tokens > 9_000


def test_connections_are_kept_and_closed_ones_are_noticed() -> None:
    seen: list[bytes] = []
    closing = threading.Event()

    def serve(listening: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                for _ in range(2):
                    seen.append(connection.recv(1 << 16))
                    connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD)
            closing.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        llm = connect("openai/tiny", f"http://127.0.0.1:{listening.getsockname()[1]}/v1", retries=0)
        for _ in range(2):  # two on the first connection
            llm.generate([request()])
        assert closing.wait(20)
        for _ in range(2):
            llm.generate([request()])
        server.join(20)
    assert len(seen) == 4


def test_a_proxy_that_the_environment_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_network(True)  # put back after each test
    with Server(script(Reply("by proxy"))) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
        ((answer,),) = connect("openai/tiny", "http://models.example/v1").generate([request()])
        assert answer.text == "by proxy"
        assert server.headers[0].startswith("POST http://models.example/v1/chat/completions")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        connect("openai/tiny", server.url).generate([request()])
        assert server.headers[1].startswith("POST /v1/chat/completions")


def test_https_is_checked_against_the_certificates_of_this_machine(tmp_path: Path) -> None:
    import ssl

    import httpx

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, "-days", "2", *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    body = b'{"a": "' + b"x" * 100_000 + b'"}'

    def serve(listening: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                for _ in range(2):
                    assert secure.recv(1 << 16).startswith(b"GET /x HTTP/1.1")
                    secure.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        url = f"https://localhost:{listening.getsockname()[1]}/x"
        with httpx.Client(transport=Lines(20)) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
            client.get(url)
        trusting = Lines(20)
        trusting._tls.load_verify_locations(certificate)
        with httpx.Client(transport=trusting) as client:
            assert client.get(url).content == body
            assert client.get(url).content == body
        server.join(20)


def test_a_key_with_a_line_break_at_its_end_is_a_key() -> None:
    with Server(script(Reply("ok"))) as server:
        connect("openai/tiny", server.url, api_key=KEY + "\n").generate([request()])
        with pytest.raises(ModelError, match="line break") as caught:
            connect("openai/tiny", server.url, api_key="sk-1\nx: y", retries=0).generate([request()])
    assert "sk-1" not in str(caught.value)
    assert [head.count(KEY) for head in server.headers] == [1]
