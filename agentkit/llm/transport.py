"""An HTTP transport for many threads that wait on one server.

httpx's own connection pool looks at all of its connections for each request, which with hundreds of them costs more
than the requests; and its read timeout begins again with every byte that arrives. Here a request takes the connection
that was used last, or opens one, and the timeout is for the whole response.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import httpx


class _Response(httpx.SyncByteStream):
    """A response's body: given up when late, and its connection put back when it is closed."""

    def __init__(
        self, stream: httpx.SyncByteStream, at: float, request: httpx.Request, line: httpx.HTTPTransport, owner: Lines
    ) -> None:
        self._stream, self._at, self._request, self._line, self._owner = stream, at, request, line, owner

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if time.monotonic() > self._at:
                raise httpx.ReadTimeout("the response goes on for too long", request=self._request)
            yield chunk

    def close(self) -> None:
        self._stream.close()
        self._owner.put_back(self._line)


class Lines(httpx.BaseTransport):
    """As many connections as there are callers, each kept for the next; a response takes at most ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free: deque[httpx.HTTPTransport] = deque()
        self._tls = httpx.create_ssl_context()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` on a free connection."""
        at = time.monotonic() + self._seconds
        try:
            line = self._free.pop()
        except IndexError:
            line = httpx.HTTPTransport(verify=self._tls, limits=httpx.Limits(max_connections=1))
        try:
            response = line.handle_request(request)
        except BaseException:
            line.close()
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Response(response.stream, at, request, line, self)
        return response

    def put_back(self, line: httpx.HTTPTransport) -> None:
        """Keep a connection for the next request."""
        if self._closed:
            line.close()
        else:
            self._free.append(line)

    def close(self) -> None:
        """Close the connections that nobody uses; the others are closed after their response."""
        self._closed = True
        while self._free:
            self._free.pop().close()
