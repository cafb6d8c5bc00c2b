"""A small chat completions server on loopback that misbehaves as its script says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from agentkit.errors import BudgetExceeded
from agentkit.llm import LLM, Ledger, get_llm, metered
from agentkit.types import Message, Request

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    ``raw`` replaces the body; ``cut`` breaks the connection within it, ``reset`` does so without a goodbye; ``wire``
    replaces all that is sent, and the connection is closed after it; ``drip_s`` is the pause after each byte;
    ``early`` sends hints (status 103) before the response.
    """

    text: str | None = "hello"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay_s: float = 0.0
    cut: bool = False
    reset: bool = False
    wire: bytes | None = None
    drip_s: float = 0.0
    early: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    n: int | None = None
    usage: bool = True


def error(status: int, message: str, code: str = "", **headers: str) -> Reply:
    """An error as OpenAI writes it."""
    raw = json.dumps({"error": {"message": message, "code": code, "type": "x"}}).encode()
    return Reply(status=status, raw=raw, headers={k.replace("_", "-"): v for k, v in headers.items()})


class Server:
    """Answers with ``reply(body)``, called on the server's own thread. ``bodies`` are the requests seen."""

    def __init__(self, reply: Callable[[Body], Reply]) -> None:
        self.reply = reply
        self.bodies: list[Body] = []
        self.headers: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(int(x.split(":")[1]) for x in head.splitlines() if x.lower().startswith("content-length"))
                body = json.loads(await reader.readexactly(length))
                self.bodies.append(body)
                self.headers.append(head)
                if not await self._answer(self.reply(body), body, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _answer(self, reply: Reply, body: Body, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(reply.delay_s)
        if reply.wire is not None:
            await self._drip(reply.wire, reply.drip_s, writer)
            return False
        raw = completion(reply, body) if reply.raw is None else reply.raw
        headers = {"content-type": "application/json", "content-length": str(len(raw)), **reply.headers}
        if reply.early:
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(f"HTTP/1.1 {reply.status} X\r\n".encode())
        writer.write("".join(f"{k}: {v}\r\n" for k, v in headers.items()).encode() + b"\r\n")
        if reply.cut or reply.reset:
            writer.write(raw[: len(raw) // 2])
            await writer.drain()
            if reply.reset:
                lingers_not = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers_not)
            return False
        await self._drip(raw, reply.drip_s, writer)
        return True

    @staticmethod
    async def _drip(raw: bytes, pause_s: float, writer: asyncio.StreamWriter) -> None:
        for piece in [bytes([byte]) for byte in raw] if pause_s else [raw]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)


def completion(reply: Reply, body: Body) -> bytes:
    """A chat completion whose tokens are words."""
    n = body.get("n", 1) if reply.n is None else reply.n
    prompt = sum(len(m["content"].split()) for m in body["messages"])
    message = {"role": "assistant", "content": reply.text, **reply.extra.get("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **reply.extra.get("choice", {})}
    value: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [dict(choice, index=i) for i in range(n)],
    }
    if reply.usage:
        words = n * len((reply.text or "").split())
        value["usage"] = {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}
    return json.dumps(value).encode()


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


def spend(ledger: Ledger, llm: LLM, requests: list[Request], threads: int = 64) -> None:
    """Sends ``requests`` again and again from ``threads`` threads at once, each until the budget of ``ledger`` is
    spent."""

    def work() -> None:
        with metered(ledger=ledger), contextlib.suppress(BudgetExceeded):
            while True:
                llm.generate(requests)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result(120)
