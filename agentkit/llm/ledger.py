"""The budget of a run: what may be spent, what is, and what is reserved for calls in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from agentkit.errors import BudgetExceeded, InvalidValue
from agentkit.types import Usage


class Reservation:
    """What a call in flight may still cost. `settle` says what it did cost."""

    def __init__(self, ledger: Ledger, tokens: int, usd: float) -> None:
        self._ledger = ledger
        self.tokens, self.usd = tokens, usd
        self.usage = Usage()

    def settle(self, usage: Usage) -> None:
        """The call's real cost, charged when the reservation ends."""
        self.usage = usage

    def extend(self, usage: Usage) -> None:
        """Hold back as much again as ``usage``, where a part of the call must be repeated.

        Raises `BudgetExceeded` where that does not fit beside the calls in flight: a call that waited for others while
        it holds something back could wait for ever.
        """
        self._ledger._extend(self, usage.tokens, usage.cost_usd)


# The reservation of the call that is under way in this context.
reservation: ContextVar[Reservation | None] = ContextVar("agentkit_reservation", default=None)


class Ledger:
    """One budget for everything that a run asks of models. Safe to share among threads.

    ``tokens`` counts prompts and completions together, ``usd`` is in dollars, ``seconds`` is wall-clock time from the
    ledger's making; None means no limit. ``spent`` is what an earlier part of the run has used (a resumed run).

    A call reserves the most it can cost before it starts. Where that does not fit beside the other calls in flight, it
    waits for them; where it does not fit at all, `BudgetExceeded`. So tokens and dollars are never overrun, whatever
    the number of threads; after ``seconds`` no call starts.
    """

    def __init__(
        self,
        tokens: int | None = None,
        usd: float | None = None,
        seconds: float | None = None,
        spent: Usage | None = None,
    ) -> None:
        for name, value in (("tokens", tokens), ("usd", usd), ("seconds", seconds)):
            if value is not None and value < 0:
                raise InvalidValue(f"a budget cannot be negative: {name}={value}")
        self.tokens, self.usd, self.seconds = tokens, usd, seconds
        self._spent = spent or Usage()
        self._reserved_tokens = 0
        self._reserved_usd = 0.0
        self._in_flight = 0
        self._started = time.monotonic()
        self._changed = threading.Condition()

    @property
    def spent(self) -> Usage:
        """What has been charged so far."""
        with self._changed:
            return self._spent

    @property
    def exhausted(self) -> bool:
        """Whether a limit is reached: no further call can start."""
        with self._changed:
            return (
                (self.tokens is not None and self._spent.tokens >= self.tokens)
                or (self.usd is not None and self._spent.cost_usd >= self.usd > 0)
                or self._late()
            )

    @contextmanager
    def reserve(self, tokens: int, usd: float = 0.0) -> Iterator[Reservation]:
        """Hold back ``tokens`` and ``usd`` while a call runs, and charge what it settles for when it ends."""
        self._take(tokens, usd)
        held = Reservation(self, tokens, usd)
        try:
            yield held
        finally:
            with self._changed:
                self._reserved_tokens -= held.tokens
                self._reserved_usd -= held.usd
                self._in_flight -= 1
                if not self._in_flight:
                    self._reserved_usd = 0.0  # no residue of rounding
                self._spent += held.usage
                self._changed.notify_all()

    def _extend(self, held: Reservation, tokens: int, usd: float) -> None:
        with self._changed:
            if self._late() or not self._fits(tokens, usd):
                raise BudgetExceeded(
                    f"the budget has no room to send a request again whose answer was lost: it may need {tokens} more "
                    f"tokens, and ${usd:.4f}"
                )
            held.tokens += tokens
            held.usd += usd
            self._reserved_tokens += tokens
            self._reserved_usd += usd

    def _fits(self, tokens: int, usd: float) -> bool:
        """Whether that much can be reserved beside what is."""
        spent = self._spent
        fits = self.tokens is None or spent.tokens + self._reserved_tokens + tokens <= self.tokens
        return fits and (self.usd is None or spent.cost_usd + self._reserved_usd + usd <= self.usd)

    def _late(self) -> bool:
        return self.seconds is not None and time.monotonic() - self._started >= self.seconds

    def _take(self, tokens: int, usd: float) -> None:
        with self._changed:
            while True:
                spent = self._spent
                if self._late():
                    raise BudgetExceeded(f"the budget of {self.seconds} seconds is spent")
                if self.tokens is not None and spent.tokens + tokens > self.tokens:
                    raise BudgetExceeded(
                        f"the budget of {self.tokens} tokens is spent: {spent.tokens} used, and the next call may need "
                        f"{tokens}"
                    )
                if self.usd is not None and spent.cost_usd + usd > self.usd:
                    raise BudgetExceeded(
                        f"the budget of ${self.usd:.4f} is spent: ${spent.cost_usd:.4f} used, and the next call may "
                        f"cost ${usd:.4f}"
                    )
                if self._fits(tokens, usd):
                    break
                self._changed.wait()
            self._reserved_tokens += tokens
            self._reserved_usd += usd
            self._in_flight += 1
