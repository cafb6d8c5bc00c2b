"""The remote backends, through the real clients, against a real server on loopback that misbehaves on purpose."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from agentkit.agent import Agent
from agentkit.errors import BudgetExceeded, InvalidValue, UnknownName
from agentkit.llm import LLM, Call, Ledger, get_llm, instrument, metered
from agentkit.llm.errors import (
    AuthenticationFailed,
    ContextTooLong,
    EmptyCompletion,
    ModelError,
    NetworkForbidden,
    RateLimited,
    RequestRefused,
    ServerFailed,
    ServerUnreachable,
    UnknownModel,
)
from agentkit.llm.remote import allow_network, prompt_bytes, retry_after
from agentkit.llm.transport import Lines
from agentkit.runner import run
from agentkit.testing.models import check_llm
from agentkit.types import Action, Message, Options, Request, StopReason, Task, View
from tests.agentkit.llm.chat_server import Body, Reply, Server, completion, error

KEY = "sk-a-secret-of-the-test"
BACKENDS = ["openai/tiny", "litellm/openai/tiny"]


def connect(name: str, url: str, **options: Any) -> LLM:
    options = {"backoff_s": 0.01, "timeout_s": 20.0, "api_key": KEY, **options}
    return get_llm(name, base_url=url, **options)


def request(text: str = "hello there", **options: Any) -> Request:
    return Request((Message("user", text),), **options)


def script(*replies: Reply) -> Callable[[Body], Reply]:
    """One reply after the other, the last again and again."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("name", BACKENDS)
def test_it_keeps_the_contract_and_sends_what_was_asked(name: str) -> None:
    with Server(lambda body: Reply("fine " + body["messages"][-1]["content"])) as server:
        llm = connect(name, server.url)
        check_llm(llm, deterministic=True)
        asked = request("hi", n=2, temperature=0.5, top_p=0.9, max_tokens=7, stop=("\n",), seed=3)
        (completions,) = llm.generate([asked])
    assert [c.text for c in completions] == ["fine hi", "fine hi"]
    assert completions[0].usage.prompt_tokens == 1
    assert completions[0].usage.completion_tokens == 4
    assert completions[1].usage.tokens == 0
    sent = server.bodies[-1]
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    expected = {"n": 2, "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": ["\n"], "seed": 3, "model": "tiny"}
    assert {key: sent[key] for key in expected} == expected


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    "bad",
    [
        error(429, "slow down"),
        error(429, "slow down", retry_after="0.01"),
        error(500, "oops"),
        error(503, "overloaded", retry_after="0"),
        Reply(cut=True),
        Reply(raw=b'{"choices": [{"mess', headers={"content-type": "application/json"}),
        Reply(status=502, raw=b"<html>Bad Gateway</html>", headers={"content-type": "text/html"}),
    ],
    ids=["429", "429-after", "500", "503-after", "cut", "half-json", "502-html"],
)
def test_passing_faults_are_sent_again(name: str, bad: Reply) -> None:
    with Server(script(bad, bad, Reply("at last"))) as server:
        ((completion,),) = connect(name, server.url).generate([request()])
    assert completion.text == "at last"
    assert len(server.bodies) == 3


@pytest.mark.parametrize("name", BACKENDS)
def test_lasting_faults_end_after_the_allowed_retries(name: str) -> None:
    cases: list[tuple[Reply, type[ModelError]]] = [
        (error(429, "slow down"), RateLimited),
        (error(500, "oops"), ServerFailed),
        (Reply(cut=True), ServerUnreachable),
    ]
    for bad, expected in cases:
        with Server(script(bad)) as server, pytest.raises(ModelError, match="sent 3 times") as caught:
            connect(name, server.url, retries=2).generate([request()])
        assert len(server.bodies) == 3
        # litellm hides which of the two a broken connection was
        assert isinstance(caught.value, expected) or (name.startswith("litellm") and expected is ServerUnreachable)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), AuthenticationFailed),
        (error(403, "not for you"), AuthenticationFailed),
        (error(404, "The model `tiny` does not exist"), UnknownModel),
        (error(400, "max_tokens must be positive"), RequestRefused),
        (error(400, "maximum context length is 10 tokens, you have 99", "context_length_exceeded"), ContextTooLong),
        (error(400, "This model's maximum context length is 10 tokens"), ContextTooLong),
    ],
    ids=["401", "403", "404", "400", "too-long", "too-long-by-words"],
)
def test_faults_that_last_are_not_sent_again(name: str, bad: Reply, expected: type[ModelError]) -> None:
    with Server(script(bad)) as server, pytest.raises(expected) as caught:
        connect(name, server.url).generate([request()])
    assert len(server.bodies) == 1
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.__cause__)


def test_a_timeout_holds_for_the_whole_answer() -> None:
    drip = Reply(drip_s=0.05)
    for bad in (Reply(delay_s=30), drip):
        with Server(script(bad)) as server:
            started = time.monotonic()
            with pytest.raises(ServerUnreachable, match="no answer within"):
                connect("openai/tiny", server.url, timeout_s=0.3, retries=1).generate([request()])
            assert len(server.bodies) == 2
            assert time.monotonic() - started < 15


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for() -> None:
    bad = error(429, "come back tomorrow", retry_after="86400")
    with Server(script(bad)) as server, pytest.raises(RateLimited, match="86400 seconds"):
        connect("openai/tiny", server.url).generate([request()])
    assert len(server.bodies) == 1


def test_a_spent_quota_is_not_a_rate_limit_to_wait_for() -> None:
    bad = error(429, "You exceeded your current quota", "insufficient_quota")
    with Server(script(bad)) as server, pytest.raises(RateLimited, match="quota"):
        connect("openai/tiny", server.url).generate([request()])
    assert len(server.bodies) == 1


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "3"}) == 3
    assert retry_after({"retry-after-ms": "1500"}) == 1.5
    assert retry_after({"retry-after": "-3"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None
    wait = retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert wait == pytest.approx(100, abs=5)


@pytest.mark.parametrize("name", BACKENDS)
def test_empty_answers_and_refusals(name: str) -> None:
    with Server(script(Reply(""))) as server:
        ((completion,),) = connect(name, server.url).generate([request()])
        assert (completion.text, completion.finish_reason) == ("", "stop")
    with Server(script(Reply(n=0))) as server, pytest.raises(EmptyCompletion):
        connect(name, server.url, retries=1).generate([request()])
    with Server(script(Reply("", extra={"choice": {"finish_reason": "content_filter"}}))) as server:
        ((completion,),) = connect(name, server.url).generate([request()])
        assert completion.finish_reason == "refused"


def test_a_refusal_is_told_in_its_own_words() -> None:
    with Server(script(Reply(None, extra={"message": {"refusal": "I will not."}}))) as server:
        ((completion,),) = connect("openai/tiny", server.url).generate([request()])
    assert (completion.text, completion.finish_reason) == ("I will not.", "refused")


def test_answers_of_another_form_are_a_fault_of_the_server() -> None:
    for raw in (b'"hello"', b"[]", b'{"choices": 3}', b'{"choices": [{"message": null}]}', b'{"choices": [7]}'):
        with Server(script(Reply(raw=raw))) as server, pytest.raises(ModelError):
            connect("openai/tiny", server.url, retries=1).generate([request()])


def test_what_was_paid_for_is_charged_even_when_it_is_of_no_use() -> None:
    ledger, calls = Ledger(tokens=1000), list[Call]()
    with Server(script(Reply("not json at all"))) as server, metered(ledger=ledger, sink=calls):
        llm = instrument(connect("openai/tiny", server.url))
        with pytest.raises(ServerFailed, match="JSON"):
            llm.generate([request(max_tokens=20, schema=Options({"type": "object"}))])
    assert ledger.spent.tokens == 2 + 4
    assert calls[0].usage.tokens == 6
    assert "ServerFailed" in calls[0].error


def test_a_server_that_knows_no_n_is_asked_again() -> None:
    with Server(lambda body: Reply(f"seed {body['seed']}", n=1)) as server:
        (completions,) = connect("openai/tiny", server.url).generate([request(n=3, seed=5)])
    assert [c.text for c in completions] == ["seed 5", "seed 6", "seed 7"]
    assert sum(c.usage.calls for c in completions) == 3


def test_a_choice_and_a_schema_use_the_servers_own_feature() -> None:
    def reply(body: Body) -> Reply:
        schema = body["response_format"]["json_schema"]["schema"]
        if "answer" in schema["properties"]:
            return Reply(json.dumps({"answer": schema["properties"]["answer"]["enum"][1]}))
        return Reply('{"x": 1}')

    with Server(reply) as server:
        llm = connect("openai/tiny", server.url)
        ((choice,),) = llm.generate([request(choices=("left", "right"))])
        ((shaped,),) = llm.generate([request(schema=Options({"type": "object", "properties": {"x": {}}}))])
    assert choice.text == "right"
    assert json.loads(shaped.text) == {"x": 1}
    with Server(script(Reply('{"answer": "up"}'))) as server, pytest.raises(ServerFailed, match="choose"):
        connect("openai/tiny", server.url).generate([request(choices=("left", "right"))])


def test_the_oldest_history_is_dropped_where_asked() -> None:
    def reply(body: Body) -> Reply:
        return Reply("ok") if len(body["messages"]) <= 3 else error(400, "too long", "context_length_exceeded")

    chat = (Message("system", "s"), *(Message("user", str(i)) for i in range(6)))
    with Server(reply) as server:
        with pytest.raises(ContextTooLong):
            connect("openai/tiny", server.url).generate([Request(chat)])
        connect("openai/tiny", server.url, overflow="truncate").generate([Request(chat)])
    assert [m["content"] for m in server.bodies[-1]["messages"]] == ["s", "4", "5"]


def test_nobody_listens() -> None:
    with pytest.raises(ServerUnreachable):
        connect("openai/tiny", "http://127.0.0.1:9/v1", retries=1).generate([request()])


def test_no_key_unknown_names_and_a_forbidden_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(AuthenticationFailed, match="OPENAI_API_KEY"):
        get_llm("openai/gpt-4o-mini")
    with pytest.raises(UnknownModel, match="<provider>/<model>"):
        get_llm("litellm/no-such-provider/x")
    with pytest.raises(UnknownName, match="openai"):
        get_llm("openia/gpt-4o-mini")
    before = allow_network(False)
    try:
        with pytest.raises(NetworkForbidden):
            get_llm("openai/gpt-4o-mini", api_key=KEY).generate([request()])
        with Server(script(Reply("ok"))) as server:
            connect("openai/tiny", server.url).generate([request()])
    finally:
        allow_network(before)


def test_prices_come_from_the_table_or_from_the_user() -> None:
    llm: Any = get_llm("openai/gpt-4o-mini", api_key=KEY)
    assert llm.prices() == (1.5e-07, 6e-07)
    with Server(script(Reply("one two three"))) as server:
        priced = connect("openai/tiny", server.url, price=(0.5, 0.25))
        ((completion,),) = priced.generate([request()])
        assert completion.usage.cost_usd == 2 * 0.5 + 3 * 0.25
        ledger = Ledger(usd=10)
        with metered(ledger=ledger), pytest.raises(BudgetExceeded):
            instrument(priced).generate([request(max_tokens=1000)])
        unknown = instrument(get_llm("litellm/openai/no-such-model", api_key=KEY, base_url=server.url))
        with metered(ledger=ledger), pytest.raises(InvalidValue, match="price"):
            unknown.generate([request()])


def test_a_budget_holds_against_a_slow_server_with_64_threads() -> None:
    ledger = Ledger(tokens=10_000)
    with Server(lambda _: Reply("w " * 40, delay_s=0.02)) as server:
        llm = instrument(connect("openai/tiny", server.url))

        def work() -> None:
            with metered(ledger=ledger):
                while True:
                    try:
                        llm.generate([request("a b c", max_tokens=40)])
                    except BudgetExceeded:
                        return

        threads = [threading.Thread(target=work) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(server.bodies) * 43 == ledger.spent.tokens <= 10_000
    assert ledger.spent.tokens > 9_500


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
        llm = instrument(connect("openai/tiny", server.url))

        def work() -> None:
            with metered(ledger=ledger):
                while True:
                    try:
                        llm.generate([request("a b c", max_tokens=40)] * 2)
                    except BudgetExceeded:
                        return

        threads = [threading.Thread(target=work) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
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


def test_usage_is_bounded_where_the_server_tells_none() -> None:
    with Server(script(Reply("four words are these", usage=False))) as server:
        ((completion,),) = connect("openai/tiny", server.url).generate([request("hello")])
    assert completion.usage.prompt_tokens >= len("hello")
    assert completion.usage.completion_tokens == len("four words are these")


def test_many_requests_at_once_wait_together() -> None:
    together = threading.Barrier(96)
    with Server(lambda _: Reply("ok", delay_s=0.05)) as server:
        llm = connect("openai/tiny", server.url)

        def work() -> None:
            together.wait(60)
            llm.generate([request()])

        threads = [threading.Thread(target=work) for _ in range(96)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        answers = llm.generate([request(str(i)) for i in range(100)])
    assert len(answers) == 100
    assert len(server.bodies) == 196
