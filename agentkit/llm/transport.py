"""HTTP/1.1 for hundreds of threads that wait on one server.

The general transport of httpx costs about as much time as all the rest of a request, looks at all of its connections
for each of them, and begins its read timeout again with every byte that arrives. Here a request takes the connection
that was used last, or opens one; it is sent in one piece, its response is read whole, and the timeout is for all that.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import ssl
import time
import urllib.request
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import httpx

from agentkit.address import Address

# A response of more bytes than this is cut off: no completion is as long.
_MOST = 64 << 20


def http_client(address: Address, seconds: float) -> httpx.Client:
    """A client for the server at ``address`` whose responses take at most ``seconds``.

    Where the environment names a proxy for it (``HTTPS_PROXY`` and the like), httpx's own transport goes through that;
    ``seconds`` is then the longest silence.
    """
    parts = urlsplit(address.url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    transport: httpx.BaseTransport
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        limits = httpx.Limits(max_keepalive_connections=256)
        transport = httpx.HTTPTransport(proxy=proxy if "://" in proxy else f"http://{proxy}", limits=limits)
    else:
        transport = Lines(seconds)
    if address.query or address.login:
        transport = Signed(transport, address)
    return httpx.Client(transport=transport, timeout=seconds, follow_redirects=True)


class Signed(httpx.BaseTransport):
    """Adds the query, user and password of ``address`` to the requests for its server: here, below all that writes the
    URLs of requests to a log."""

    def __init__(self, inner: httpx.BaseTransport, address: Address) -> None:
        self._inner, self._query = inner, address.query
        self._origin = _origin(httpx.URL(address.url))
        self._headers = {"Authorization": address.authorization} if address.login else {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; one that was redirected to another server goes as it is."""
        if _origin(request.url) == self._origin:
            headers = request.headers.copy()
            headers.update(self._headers)
            url = request.url.copy_merge_params(self._query)
            request = httpx.Request(
                request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
            )
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the transport within."""
        self._inner.close()


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


class Lines(httpx.BaseTransport):
    """As many connections as there are callers, each kept for the next; an exchange takes at most ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free: dict[tuple[str, str, int | None], deque[_Line]] = {}
        self._tls = httpx.create_ssl_context()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` on a free connection, and read the whole response."""
        free = self._free.setdefault(_origin(request.url), deque())
        line = self._idle(free) or _Line(request.url, self._tls)
        reusable = False
        try:
            response, reusable = line.exchange(request, time.monotonic() + self._seconds)
        except TimeoutError as error:
            late = httpx.ReadTimeout if line.connected else httpx.ConnectTimeout
            raise late(f"no response within {self._seconds} seconds", request=request) from error
        except OSError as error:
            broken = httpx.ReadError if line.connected else httpx.ConnectError
            raise broken(str(error) or type(error).__name__, request=request) from error
        except http.client.HTTPException as error:
            raise httpx.RemoteProtocolError(repr(error), request=request) from error
        finally:
            if reusable and not self._closed:
                free.append(line)
            else:
                line.close()
        return response

    @staticmethod
    def _idle(free: deque[_Line]) -> _Line | None:
        with contextlib.suppress(IndexError):
            while True:
                line = free.pop()
                if not line.broken():
                    return line
                line.close()
        return None

    def close(self) -> None:
        """Close the connections that nobody uses; the others are closed after their response."""
        self._closed = True
        for free in self._free.values():
            while free:
                free.pop().close()


class _Line:
    """One connection, opened at its first exchange."""

    def __init__(self, url: httpx.URL, tls: ssl.SSLContext) -> None:
        host = url.raw_host.decode("ascii")
        self._connection = (
            http.client.HTTPSConnection(host, url.port or 443, context=tls)
            if url.scheme == "https"
            else http.client.HTTPConnection(host, url.port or 80)
        )
        self._at = 0.0
        self._bytes: io.BufferedReader[Any]
        self.connected = False

    def broken(self) -> bool:
        """Whether the server has closed an idle connection, or said something unasked on it."""
        poll = select.poll()
        poll.register(self._connection.sock, select.POLLIN)
        return bool(poll.poll(0))

    def exchange(self, request: httpx.Request, at: float) -> tuple[httpx.Response, bool]:
        """The response, and whether the connection can be used again. Over by ``at``, a moment of `time.monotonic`."""
        self._at = at
        if not self.connected:
            self._connection.timeout = self._left()
            self._connection.connect()
            self.connected = True
        sock: socket.socket = self._connection.sock
        sock.settimeout(self._left())
        wire, whole = _wire(request), True
        try:
            sock.sendall(wire)
        except (BrokenPipeError, ConnectionResetError):  # it may have refused the request before it read all of it
            whole = False
        self._bytes = io.BufferedReader(_Arriving(self))
        reader = http.client.HTTPResponse(self, method=request.method)  # type: ignore[arg-type] # it asks for `makefile`
        reader.begin()
        while reader.status < 200:  # 103 and the like come before the response
            reader.fp = None  # type: ignore[assignment] # the next one reads on
            reader = http.client.HTTPResponse(self, method=request.method)  # type: ignore[arg-type]
            reader.begin()
        with reader:
            body = reader.read(_MOST)
            if reader.length or len(body) == _MOST:  # `read` with a size does not tell what is missing
                raise http.client.IncompleteRead(body[:100], reader.length)
            headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in reader.headers.items()]
            response = httpx.Response(reader.status, headers=headers, stream=httpx.ByteStream(body), request=request)
            return response, whole and not reader.will_close

    def makefile(self, _: str) -> io.BufferedReader[Any]:
        """The bytes that arrive in time."""
        return self._bytes

    def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes until the time of the exchange is over."""
        sock: socket.socket = self._connection.sock
        sock.settimeout(self._left())
        return sock.recv_into(buffer)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _left(self) -> float:
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Arriving(io.RawIOBase):
    def __init__(self, line: _Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # BufferedReader hands in memory views
        return self._line.receive_into(buffer)


def _wire(request: httpx.Request) -> bytes:
    """The bytes of a request. Raises `httpx.LocalProtocolError` for a header that would end too early."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    if any(b"\n" in line or b"\r" in line for line in lines):
        raise httpx.LocalProtocolError("a header has a line break in it", request=request)
    return b"\r\n".join([*lines, b"", request.read()])
