"""Plain Python data as JSON, and messages on a stream socket.

Only data crosses: reading a message can build nothing but the built-in types below, so what an untrusted program sends
has no behaviour of its own (no ``__eq__``, no code). A list, string, number, boolean or None is its own JSON;
everything else is an object with one key that names its type.
"""

from __future__ import annotations

import _socket
import json
import marshal
import struct
import sys
from _json import encode_basestring_ascii, make_encoder
from collections import Counter, deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

MAX_BYTES = 16 * 2**20
"""The longest message that is sent or read."""
_MAX_DEPTH = 200
_LENGTH = struct.Struct(">I")
REPORT = struct.Struct("=iddd8s")
"""What the server says of a process that ended: its exit status, seconds by the clock and of the processor, MiB, and
why it was killed, if it was."""
_BLOCK = 8192
# What json.dumps calls, which makes one for each message: in a fresh process that costs more than the message.
_encode = make_encoder(None, json.JSONEncoder().default, encode_basestring_ascii, None, ": ", ", ", False, False, True)

# Values that are their own JSON, whatever they are; and types of modules that few programs load.
_AS_THEY_ARE = frozenset((type(None), bool, float, str))
_LOADED_LATE = (("decimal", "Decimal"), ("fractions", "Fraction"))

# A value on the wire is any JSON value: this module's Any is that, and nothing else.
Json = Any
# What the host asks of a process inside.
Request = dict[str, Any]


class WireError(Exception):
    """A value that cannot cross, or a message that is none."""


class Reference:
    """Stands for an object that stayed on the other side. Equal to itself alone."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text

    def __repr__(self) -> str:
        return self.text


def to_json(value: object, keep: Callable[[object], int] | None = None, depth: int = 0) -> Json:
    """``value`` as JSON. An instance of a subclass of a built-in type crosses as that type. What has no JSON form is
    kept on this side under the number that ``keep`` gives it, or raises `WireError` without ``keep``."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if depth > _MAX_DEPTH:
        raise WireError(f"nested deeper than {_MAX_DEPTH}")

    def items(values: Any) -> list[Json]:
        return [v if type(v) in _AS_THEY_ARE else to_json(v, keep, depth + 1) for v in values]

    if kind is list:
        return items(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() < 64 else {"int": format(int(value), "x")}
    if isinstance(value, list):
        return items(value)
    if isinstance(value, tuple):
        return {"tuple": items(value)}
    if isinstance(value, dict):
        return {"dict": [items(pair) for pair in value.items()]}
    if isinstance(value, frozenset):
        return {"frozenset": items(value)}
    if isinstance(value, set):
        return {"set": items(value)}
    if isinstance(value, bytes | bytearray):
        return {kind.__name__ if kind in (bytes, bytearray) else "bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, deque):
        return {"deque": items(value)}
    if isinstance(value, Reference):
        return {"kept": value.number}
    for module, name in _LOADED_LATE:
        if module in sys.modules and isinstance(value, getattr(sys.modules[module], name, ())):
            return {name: str(value)}
    if keep is None:
        raise WireError(f"a value of type {kind.__name__} cannot leave the program; return plain data instead")
    return {"reference": [keep(value), f"<{kind.__name__} object>"]}


def from_json(value: Json, kept: Callable[[int], object] | None = None) -> object:
    """The data that `to_json` wrote; ``kept`` gives back an object of this side by its number. Raises `WireError`."""
    kind = type(value)  # what JSON is read as is of these types exactly
    if kind in _AS_THEY_ARE or kind is int:
        return value
    if kind is list:
        return [v if type(v) in _AS_THEY_ARE else from_json(v, kept) for v in value]
    if kind is not dict or len(value) != 1:
        raise WireError("not a value")
    [(name, body)] = value.items()
    try:
        match name:
            case "int":
                return int(body, 16)
            case "tuple":
                return tuple(from_json(v, kept) for v in body)
            case "dict":
                return dict(_hashed([(from_json(k, kept), from_json(v, kept)) for k, v in body], itemgetter(0)))
            case "set":
                return set(_hashed([from_json(v, kept) for v in body]))
            case "frozenset":
                return frozenset(_hashed([from_json(v, kept) for v in body]))
            case "bytes":
                return bytes.fromhex(body)
            case "bytearray":
                return bytearray.fromhex(body)
            case "complex":
                return complex(float(body[0]), float(body[1]))
            case "range":
                return range(*map(int, body))
            case "deque":
                return deque(from_json(v, kept) for v in body)
            case "Decimal":
                from decimal import Decimal

                return Decimal(str(body))
            case "Fraction":
                from fractions import Fraction

                return Fraction(*map(int, str(body).split("/")))  # not "1e999999999", which would take hours
            case "reference":
                return Reference(int(body[0]), str(body[1])[:200])
            case "kept" if kept is not None:
                return kept(int(body))
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise WireError(f"not a {name}: {error}") from None
    raise WireError(f"unknown kind of value {name!r:.40}")


def _hashed(items: list[Any], key: Callable[[Any], object] | None = None) -> list[Any]:
    """``items``. Raises `WireError` where so many keys share a hash that they were made to, so as to keep whoever puts
    them in a table busy for hours."""
    if len(items) > 200 and max(Counter(map(hash, map(key, items) if key else items)).values()) > 200:
        raise WireError("too many keys of the same hash")
    return items


class Channel:
    """Messages over a stream socket, each after its length in four bytes. What goes to a program is marshalled, and may
    bring open files; what a program may have written is JSON."""

    __slots__ = ("_unread", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self._unread = b""

    def send(self, message: Json) -> None:
        """Send one message. Raises `WireError` when it is too long, OSError when the other side is gone."""
        body = "".join(_encode(message, 0)).encode()
        if len(body) > MAX_BYTES:
            raise WireError(f"a message of {len(body)} bytes; the limit is {MAX_BYTES}")
        self.sock.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Json:
        """The next message. Raises EOFError at the end, `WireError` for what is no message."""
        return parse(self._next(MAX_BYTES))

    def send_request(self, request: Request, files: Sequence[int] = ()) -> None:
        """Send a request and open files. Raises OSError when the other side is gone."""
        body = marshal.dumps(request)
        data = _LENGTH.pack(len(body)) + body
        attached = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"@{len(files)}i", *files))
        sent = self.sock.sendmsg([data], [attached] if files else [])
        if sent < len(data):
            self.sock.sendall(data[sent:])

    def receive_request(self) -> tuple[Request, list[int]]:
        """The next request and the files that came with it, which a request can have if the one before was answered.
        Raises EOFError at the end."""
        attached: list[tuple[int, int, bytes]] = []
        if not self._unread:
            self._unread, attached, _, _ = self.sock.recvmsg(_BLOCK, 64)
        request = marshal.loads(self._next(2**32))  # noqa: S302 - from the host
        return request, [fd for _, _, data in attached for (fd,) in struct.iter_unpack("@i", data)]

    def _next(self, limit: int) -> bytes:
        data = self._unread
        while len(data) < 4:
            data += self._more()
        (length,) = _LENGTH.unpack_from(data)
        if length > limit:
            raise WireError(f"a message of {length} bytes; the limit is {limit}")
        end = 4 + length
        if len(data) < end:
            parts, missing = [data], end - len(data)
            while missing > 0:
                parts.append(self._more())
                missing -= len(parts[-1])
            data = b"".join(parts)
        self._unread = data[end:]
        return data[4:end]

    def _more(self) -> bytes:
        part = self.sock.recv(_BLOCK)
        if not part:
            raise EOFError
        return part


def parse(body: bytes) -> Json:
    """The JSON in ``body``. Raises `WireError`."""
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        raise WireError("not JSON") from None
