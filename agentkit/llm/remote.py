"""What the backends for remote models share: from requests to chat completions and back, retries, and clear errors.

The wire format is that of OpenAI's chat completions, which `openai` and `litellm` both speak; so are the exceptions.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from agentkit.address import scrubbed
from agentkit.errors import BudgetExceeded, InvalidValue
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
    paid,
)
from agentkit.llm.hashing import request_hash
from agentkit.llm.ledger import reservation
from agentkit.llm.prices import prices_of
from agentkit.types import Completion, Message, Request, TokenLogprob, Usage, storable

_TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size)|(prompt|input) is too long|too many tokens|exceed.{0,30}context", re.I
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_allowed = True


def allow_network(allowed: bool) -> bool:
    """Whether remote backends may call servers other than loopback ones; returns what was so before. For tests."""
    global _allowed  # one process-wide switch is the point of it
    before, _allowed = _allowed, allowed
    return before


class RemoteLLM:
    """A chat model behind HTTP. A backend says how one request is sent (`send`), all else is here.

    ``retries`` is how often a request is sent again after a rate limit (429), a failure of the server (5xx), a timeout
    or a broken connection. Before the k-th time it waits a random part of ``backoff_s * 2**k`` seconds, or as long as
    the server's Retry-After says; a server that asks for more than ``longest_wait_s`` is not waited for. ``timeout_s``
    bounds each sending. ``concurrency`` bounds how many requests of one call are under way at once; each thread that
    calls has its own. ``price`` is (dollars per prompt token, dollars per answer token) where litellm's table does not
    know the model. ``overflow`` says what becomes of a prompt that the server finds too long: an ``"error"``
    (`ContextTooLong`), or ``"truncate"``, which drops the oldest messages after the system prompt, one by one.

    An empty text is an answer; a completion without one is an `EmptyCompletion`, and so is, asked for again in vain, a
    response without completions. A refusal is a completion whose ``finish_reason`` is ``"refused"``. A server that
    answers with fewer samples than asked for is asked again.

    A sending whose answer never came, or cannot be read, may have been computed and billed: its usage is counted as the
    most that it can have been. One that the server answered with an error status is not counted.
    """

    # A budget must reserve the prompt once a sample, as servers that know no `n` are asked once a sample.
    reads_prompt_per_sample = True

    def __init__(
        self,
        name: str,
        *,
        identity: str = "",
        retries: int = 6,
        backoff_s: float = 0.5,
        longest_wait_s: float = 60.0,
        timeout_s: float = 120.0,
        concurrency: int = 256,
        price: tuple[float, float] | None = None,
        overflow: Literal["error", "truncate"] = "error",
        limit_field: str = "max_tokens",
        secrets: Sequence[str] = (),
    ) -> None:
        if overflow not in ("error", "truncate"):
            raise InvalidValue(f"overflow is {overflow!r}; it can be 'error' or 'truncate'")
        if retries < 0 or concurrency < 1:
            raise InvalidValue(f"retries is at least 0 and concurrency at least 1: {retries}, {concurrency}")
        self.name, self.identity = name, identity or name
        self.retries, self.backoff_s, self.longest_wait_s = retries, backoff_s, longest_wait_s
        self.timeout_s, self.concurrency, self.overflow = timeout_s, concurrency, overflow
        self._price, self._limit_field, self._secrets = price, limit_field, tuple(secrets)

    def send(self, body: dict[str, Any]) -> Any:
        """Send one chat completion request; returns the response as the official client models it."""
        raise NotImplementedError

    def prices(self) -> tuple[float, float]:
        """Dollars per prompt token and per answer token. Raises `InvalidValue` where nobody knows."""
        if self._price is None:
            self._price = prices_of(self.name)
        if self._price is None:
            raise InvalidValue(
                f"no price is known for {self.name}, so a budget in dollars cannot be kept. Build the model with "
                "price=(dollars per prompt token, dollars per answer token)."
            )
        return self._price

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """``request.n`` completions for each request; the requests of one call go out together."""
        if len(requests) < 2:
            return [self._answer(request) for request in requests]
        with ThreadPoolExecutor(min(len(requests), self.concurrency), "agentkit-remote") as pool:
            # In copies of this context, where the meter has left the call's reservation.
            futures = [pool.submit(copy_context().run, self._answer, request) for request in requests]
        failures = [error for future in futures if (error := future.exception()) is not None]
        if failures:
            answered = [future.result() for future in futures if future.exception() is None]
            wasted = [usage for error in failures[1:] if (usage := getattr(error, "usage", None)) is not None]
            raise paid(failures[0], [c.usage for completions in answered for c in completions] + wasted)
        return [future.result() for future in futures]

    def _answer(self, request: Request) -> list[Completion]:
        if request.adapter:
            raise InvalidValue(f"{self.name} is remote: it cannot use the adapter {request.adapter!r}")
        key = request_hash(self.identity, request)
        completions: list[Completion] = []
        while len(completions) < request.n:
            missing = replace(request, n=request.n - len(completions), seed=_seed(request, len(completions)))
            try:
                completions += self._completions(missing, key)
            except (ModelError, BudgetExceeded) as error:
                error.args = (scrubbed(str(error), self._secrets),)  # a server may say what it was sent
                raise paid(error, [c.usage for c in completions]) from None
        return completions[: request.n]

    def _completions(self, request: Request, key: str) -> list[Completion]:
        messages = list(request.messages)
        started = time.perf_counter()
        lost = Usage()
        while True:
            try:
                response, more = self._retrying(request, messages)
                break
            except ContextTooLong as error:
                first = 1 if messages and messages[0].role == "system" else 0
                if self.overflow == "error" or len(messages) <= first + 1:
                    raise paid(error, [lost]) from None
                lost += getattr(error, "usage", Usage())
                del messages[first]
            except (ModelError, BudgetExceeded) as error:
                raise paid(error, [lost]) from None
        usage = lost + more
        try:
            usage += self._usage(response, request, time.perf_counter() - started)
            answers = [self._completion(choice, request, key) for choice in response.choices]
        except ModelError as error:
            raise paid(error, [usage]) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            failure = ServerFailed(f"{self.name} answered in a form that is not a chat completion's: {error}")
            raise paid(failure, [usage]) from error
        return [replace(a, usage=Usage() if i else usage) for i, a in enumerate(answers)]

    def body(self, request: Request, messages: Sequence[Message]) -> dict[str, Any]:
        """What is sent for ``request``, with ``messages`` in place of its own (history may have been dropped)."""
        body: dict[str, Any] = {
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "temperature": request.temperature,
            "top_p": request.top_p,
            self._limit_field: answer_tokens(request),
        }
        if request.n > 1:
            body["n"] = request.n
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None:
            body["seed"] = request.seed % 2**63
        if request.logprobs:
            body["logprobs"] = True
        schema = _schema(request)
        if schema is not None:
            shape = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _completion(self, choice: Any, request: Request, key: str) -> Completion:
        message = choice.message
        reason = {"length": "length", "content_filter": "refused"}.get(str(choice.finish_reason), "stop")
        refusal = getattr(message, "refusal", None)
        if refusal:
            return Completion(str(refusal), "refused", request_hash=key)
        text = message.content
        if text is None and reason == "stop":
            raise EmptyCompletion(f"{self.name} answered without a text")
        if not isinstance(text, str | None):
            raise ServerFailed(f"{self.name} answered with a {type(text).__name__} in place of a text")
        text = storable(text or "")
        if _schema(request) is not None and reason == "stop":
            text = self._restricted(text, request)
        logprobs = None
        if request.logprobs and getattr(choice, "logprobs", None) is not None:
            logprobs = tuple(TokenLogprob(t.token, t.logprob) for t in choice.logprobs.content or ())
        return Completion(text, reason, Usage(), logprobs, key)

    def _restricted(self, text: str, request: Request) -> str:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ServerFailed(f"{self.name} was asked for JSON by a schema and answered {text[:200]!r}") from error
        if request.choices is None:
            return text
        answer = value.get("answer") if isinstance(value, dict) else None
        if answer not in request.choices:
            raise ServerFailed(f"{self.name} was asked to choose and answered {text[:200]!r}")
        return str(answer)

    def _usage(self, response: Any, request: Request, latency: float) -> Usage:
        told: Any = getattr(response, "usage", None)
        try:
            details = getattr(told, "prompt_tokens_details", None)
            cached = max(0, int(getattr(details, "cached_tokens", None) or 0))
            prompt, answer = max(0, int(told.prompt_tokens or 0)), max(0, int(told.completion_tokens or 0))
        except (AttributeError, TypeError, ValueError, OverflowError):
            # A server that does not count: the most that it can have been, so that no budget is overrun.
            choices = response.choices if isinstance(response.choices, list) else []
            texts = [getattr(getattr(choice, "message", None), "content", None) for choice in choices]
            told_bytes = sum(len(t.encode("utf-8", "surrogatepass")) for t in texts if isinstance(t, str))
            prompt, cached, answer = prompt_bytes(request), 0, min(told_bytes, request.n * answer_tokens(request))
        return self._priced(prompt, cached, answer, latency)

    def _priced(self, prompt: int, cached: int, answer: int, latency: float) -> Usage:
        cost = 0.0
        with contextlib.suppress(InvalidValue):
            per_prompt, per_answer = self.prices()
            cost = per_prompt * prompt + per_answer * answer
        return Usage(prompt, cached, answer, cost, latency, 1)

    def _retrying(self, request: Request, messages: Sequence[Message]) -> tuple[Any, Usage]:
        """The response, and what the sendings before it may have cost whose answers never came."""
        body = self.body(request, messages)
        lost = Usage()
        for attempt in range(self.retries + 1):
            try:
                response = self.send(body)
                if isinstance(response, str) or getattr(response, "choices", None) is None:
                    raise ServerFailed(f"{self.name} answered with something else than JSON: {str(response)[:200]!r}")
                if not response.choices:
                    empty = EmptyCompletion(f"{self.name} answered without any completion")
                    raise paid(empty, [self._usage(response, request, 0.0)])
                return response, lost
            except Exception as error:
                failure, again = self._failure(error)
                if failure is None:
                    raise
                cost = getattr(error, "usage", Usage())
                if _sent(error):
                    cost = self._priced(prompt_bytes(request), 0, request.n * answer_tokens(request), 0.0)
                lost += cost
                asked = retry_after(getattr(getattr(error, "response", None), "headers", None) or {})
                text = str(failure)
                if asked is not None and asked > self.longest_wait_s:
                    again = False
                    failure, text = RateLimited(), f"{failure} (the server asks to wait {asked:.0f} seconds)"
                if not again or attempt == self.retries:
                    text += f" (sent {attempt + 1} times)" if attempt else ""
                    # The cause may hold the request's headers, and the key among them.
                    raise paid(type(failure)(text), [lost]) from None
            # What was lost is spent, so sending it again needs a reservation of its own.
            held = reservation.get()
            if held is not None and cost.tokens:
                try:
                    held.extend(cost)
                except BudgetExceeded as spent:
                    raise paid(spent, [lost]) from None
            # A random part of a doubling time spreads the callers; so does a tenth on top of what the server asks.
            wait = random.uniform(0, self.backoff_s * 2**attempt) if asked is None else asked * random.uniform(1, 1.1)
            time.sleep(min(wait, self.longest_wait_s))
        raise AssertionError("unreachable")

    def _failure(self, error: Exception) -> tuple[ModelError | None, bool]:
        """What an exception of the client means, and whether sending again may help."""
        import openai

        text = f"{self.name}: {_message(error)}"
        status = getattr(error, "status_code", None)
        if isinstance(error, ModelError):
            return error, isinstance(error, ServerFailed | EmptyCompletion)
        if isinstance(error, openai.APITimeoutError):
            return ServerUnreachable(f"{self.name}: no answer within {self.timeout_s} seconds"), True
        if isinstance(error, openai.APIConnectionError):
            return ServerUnreachable(f"{text} {error.__cause__ or ''}".strip()), True
        # litellm keeps the status where it changes the exception's type
        if isinstance(status, int) and status >= 400:
            return self._failure_of_status(status, text, str(getattr(error, "code", "")))
        if isinstance(error, openai.APIError | json.JSONDecodeError | UnicodeDecodeError | RecursionError):
            return ServerFailed(text), True
        return None, False

    @staticmethod
    def _failure_of_status(status: int, text: str, code: str) -> tuple[ModelError, bool]:
        if status == 429:
            return RateLimited(text), code != "insufficient_quota"
        if status in (401, 403):
            return AuthenticationFailed(f"{text} Check the key."), False
        if status == 404:
            return UnknownModel(text), False
        if status >= 500 or status in (408, 409, 425):
            return ServerFailed(text), True
        if code == "context_length_exceeded" or _TOO_LONG.search(text):
            return ContextTooLong(text), False
        return RequestRefused(text), False


def check_network(url: str | None) -> None:
    """Raises `NetworkForbidden` where `allow_network` says so and ``url`` is not on this machine."""
    if not _allowed and (url is None or urlsplit(url).hostname not in _LOOPBACK):
        raise NetworkForbidden(f"calls of remote models are switched off, and {url or 'the default server'} is remote")


def answer_tokens(request: Request) -> int:
    """The most tokens of one answer that a remote model is allowed."""
    if request.choices:
        return max(len(json.dumps(choice)) for choice in request.choices) + 32
    return request.max_tokens


def prompt_bytes(request: Request) -> int:
    """An upper bound of a prompt's tokens: no tokenizer makes more tokens than bytes; chat templates add a little."""
    texts = [*(m.content for m in request.messages), *(request.choices or ())]
    schema = len(json.dumps(dict(request.schema))) if request.schema is not None else 0
    return 64 + schema + sum(16 + len(text.encode("utf-8", "surrogatepass")) for text in texts)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a response's headers ask to wait, or None. Both forms of the header (RFC 9110, 10.2.3)."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after")
        return None if value is None else max(0.0, float(value))
    except ValueError:
        pass
    moment = email.utils.parsedate_tz(headers.get("retry-after", ""))
    with contextlib.suppress(ValueError, OverflowError):  # no such day
        return None if moment is None else max(0.0, email.utils.mktime_tz(moment) - time.time())
    return None


def _sent(error: Exception) -> bool:
    """Whether a request that failed so was sent and got no readable answer: the server may have computed one."""
    import httpx

    if isinstance(error, ModelError):
        return isinstance(error, ServerFailed)
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    if any(isinstance(e, httpx.ConnectError | httpx.ConnectTimeout | httpx.LocalProtocolError) for e in chain):
        return False
    return any(isinstance(e, httpx.TransportError | httpx.DecodingError | ValueError | RecursionError) for e in chain)


def _schema(request: Request) -> dict[str, Any] | None:
    if request.choices is not None and request.schema is not None:
        raise InvalidValue("a request can have choices or a schema, not both")
    if request.choices is not None:
        answer = {"type": "string", "enum": list(request.choices)}
        return {
            "type": "object",
            "properties": {"answer": answer},
            "required": ["answer"],
            "additionalProperties": False,
        }
    return None if request.schema is None else dict(request.schema)


def _seed(request: Request, done: int) -> int | None:
    """Another seed for samples that are asked for later, lest they repeat the first."""
    return request.seed if request.seed is None or not done else request.seed + done


def _message(error: Exception) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return " ".join(str(error).split())[:500] or type(error).__name__
