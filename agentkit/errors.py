"""The one error root. Each error also is the standard error it refines, so that code which knows nothing of agentkit
can catch it.

An error message says what was given, what would have been accepted, and what to do. Errors are raised with their whole
message as the only argument, so that they pickle.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 60  # known names in a message


class AgentkitError(Exception):
    """Root of every error that agentkit raises on purpose."""

    def __str__(self) -> str:  # KeyError would print the repr of its message
        return str(self.args[0]) if self.args else ""


class UnknownName(AgentkitError, KeyError):
    """A name that no table holds."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownName:
        """An error that names the nearest known names, and all of them when there are few."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        message = f"unknown {kind} {name!r}."
        if near:
            message += f" Did you mean {' or '.join(repr(n) for n in near)}?"
        if names and (not near or len(names) <= 12):
            more = f", and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
            message += f" Known: {', '.join(names[:_LISTED])}{more}."
        return cls(message + (f" {hint}" if hint else ""))


class MissingExtra(AgentkitError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtra:
        """An error that names the pip command which installs ``package``."""
        return cls(f"{package} is not installed. Run: pip install 'agentkit[{extra}]'")


class InvalidValue(AgentkitError, ValueError):
    """A value outside what is accepted."""


class ContractError(AgentkitError, TypeError):
    """A part (environment, model, memory) breaks the contract of its seam."""


class ModelError(AgentkitError, RuntimeError):
    """A model call failed for good, after the retries that its backend allows."""


class BudgetExceeded(AgentkitError, RuntimeError):
    """The run's budget of tokens, dollars or seconds is spent."""
