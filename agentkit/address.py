"""Where a server is, apart from the secrets that its URL may hold.

A URL can carry a user and password (``https://user:password@host/v1``) or a key (``https://host/v1?api-key=…``). They
are sent to the server, and written nowhere: neither in names, recordings and logs nor in errors.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from agentkit.errors import InvalidValue

_OPEN = ("api-version",)  # the parameters of a query that are shown whole: any other may be a key


@dataclass(frozen=True, slots=True)
class Address:
    """``url`` is the address without user, password and query; ``login`` is the user and the password."""

    url: str
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    login: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        """The parts of ``url``. Raises `InvalidValue` where it is no address of an HTTP server."""
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            told = "" if set(url) & set("@?") else f" {url!r}"  # it may hold a key
            raise InvalidValue(
                f"the base_url{told} is no address of a server. It looks like 'https://host/v1' or "
                "'http://localhost:8000/v1'."
            )
        _, at, host = parts.netloc.rpartition("@")
        login = (unquote(parts.username or ""), unquote(parts.password or "")) if at else None
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        bare = url if login is None and not query else f"{parts.scheme}://{host}{parts.path}"
        return cls(bare, query, login)

    @property
    def shown(self) -> str:
        """The address as it may be written: values of the query are left out, and with them keys."""
        told = [f"{name}={value if name in _OPEN else '…'}" if value else "…" for name, value in self.query]
        return self.url.rstrip("/") + (f"?{'&'.join(told)}" if told else "")

    @property
    def authorization(self) -> str:
        """The header for the user and password (RFC 7617); empty without them."""
        return "" if self.login is None else f"Basic {base64.b64encode(':'.join(self.login).encode()).decode()}"

    @property
    def secrets(self) -> list[str]:
        """All that must not be written, as it is and as URLs and headers spell it."""
        user, password = self.login or ("", "")
        said = [password or user, *(value or name for name, value in self.query if name not in _OPEN)]
        spelled = {spelling for text in said for spelling in (text, quote(text, safe=""), quote_plus(text))}
        return [text for text in (*spelled, self.authorization.removeprefix("Basic ")) if text]


def database(url: str) -> str:
    """The URL of a database without its password; a path is what it was."""
    if "://" not in url:
        return url
    return re.sub(r"([?&]password=)[^&]*", r"\1***", re.sub(r"(://[^/@:]*):.*@", r"\1:***@", url))


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """``text`` without ``secrets``."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
