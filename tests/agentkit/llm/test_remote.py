"""The remote backends, through the real clients, against a real server on loopback that misbehaves on purpose."""

from __future__ import annotations

import json
import pickle
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest

from agentkit.errors import BudgetExceeded, InvalidValue, UnknownName
from agentkit.llm import Call, Ledger, get_llm, instrument, metered
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
from agentkit.llm.remote import allow_network, retry_after
from agentkit.testing.models import check_llm
from agentkit.types import Message, Options, Request
from tests.agentkit.llm.chat_server import BACKENDS, KEY, Body, Reply, Server, connect, error, request, script, spend


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
    assert retry_after({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}) is None
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
        spend(ledger, instrument(connect("openai/tiny", server.url)), [request("a b c", max_tokens=40)])
        assert len(server.bodies) * 43 == ledger.spent.tokens <= 10_000
    assert ledger.spent.tokens > 9_500


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
