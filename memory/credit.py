"""What a record is worth: its utility, estimated from the outcomes of the episodes that had it in their prompts.

Let the credited episodes be grouped by task (a hard task must not make the records used on it look bad). For record i
and group g, let n1 episodes with mean outcome m1 have held i, and n0 with mean m0 not have held it although they could:
those that named it as eligible, or, where an episode named nothing, those credited after i was added. The control mean
is pulled towards the mean outcome m of all other credited episodes by one pseudo-episode, so that a first use already
says something:

    m0' = (n0 m0 + m) / (n0 + 1)        w_g = n1 (n0 + 1) / (n1 + n0 + 1)        d_g = m1 - m0'
    utility_i = sum_g w_g d_g / (sum_g w_g + prior)            deviation_i = sigma / sqrt(sum_g w_g + prior)

w_g is the precision of a difference of two means in units of one outcome's variance (the weights of Cochran 1954 and of
Mantel and Haenszel 1959 for stratified differences). ``prior`` is the weight of the belief that a record does nothing,
so that few uses say little: the utility is the posterior mean under a normal prior of variance sigma^2 / prior, the
deviation that posterior's. sigma is the standard deviation of one outcome within its group, pooled over groups, with
two pseudo-outcomes at the largest value, 1/2. A record is harmful when utility + z deviation is below zero.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

from agentkit.memory.backend import Mark
from agentkit.memory.events import lineage, seen

PRIOR = 2.0
Z = 1.64  # one-sided 95%


@dataclass(frozen=True, slots=True)
class Credit:
    """What is known of a record's worth. ``uses`` is the number of credited episodes that held it, ``controls`` of
    those that could have and did not, in the same groups."""

    id: int
    utility: float
    deviation: float
    uses: int
    controls: int

    def harmful(self, z: float = Z) -> bool:
        """Whether the record makes outcomes worse, with the confidence that ``z`` deviations give."""
        return self.utility + z * self.deviation < 0


class _Sums:
    """Running sums of outcomes in log order, so that those of any interval cost two look-ups."""

    __slots__ = ("seqs", "squares", "totals")

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.totals = [0.0]  # one longer than seqs
        self.squares = [0.0]

    def add(self, seq: int, outcome: float) -> None:
        self.totals.append(self.totals[-1] + outcome)
        self.squares.append(self.squares[-1] + outcome * outcome)
        self.seqs.append(seq)  # last: a reader in another thread finds the sums of every number it finds

    def between(self, after: int, upto: int) -> tuple[int, float, float]:
        """(count, sum, sum of squares) of the outcomes in that interval."""
        low, high = bisect_right(self.seqs, after), bisect_right(self.seqs, upto)
        return high - low, self.totals[high] - self.totals[low], self.squares[high] - self.squares[low]


@dataclass(frozen=True, slots=True)
class Entry:
    """One credit of the log. ``eligible`` is None where the episode did not name what it could have used."""

    seq: int
    episode: str
    task: str
    outcome: float
    ids: frozenset[int]
    eligible: frozenset[int] | None


class Ledger:
    """The credits of one lineage of the log, in order. Reads give the sequence number up to which they look."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._held: defaultdict[int, list[Entry]] = defaultdict(list)
        self._passed: defaultdict[int, list[Entry]] = defaultdict(list)  # named as eligible, not held
        self._open: defaultdict[str, _Sums] = defaultdict(_Sums)  # by task, episodes that named no eligible records
        self._tasks: defaultdict[str, _Sums] = defaultdict(_Sums)
        self._all = _Sums()
        self._sigma: tuple[int, float] = (0, 0.5)
        self._harmful: tuple[int, float, frozenset[int]] = (0, 0.0, frozenset())

    def add(self, entry: Entry) -> None:
        """Take in the next credit."""
        self._all.add(entry.seq, entry.outcome)
        self._tasks[entry.task].add(entry.seq, entry.outcome)
        if entry.eligible is None:
            self._open[entry.task].add(entry.seq, entry.outcome)
        else:
            for id_ in entry.eligible - entry.ids:
                self._passed[id_].append(entry)
        for id_ in entry.ids:
            self._held[id_].append(entry)
        self.entries.append(entry)

    def sigma(self, upto: int) -> float:
        """The standard deviation of one outcome within its group, pooled over groups."""
        known, value = self._sigma
        if known == upto:
            return value
        within, degrees = 2 * 0.25, 2
        for sums in list(self._tasks.values()):
            n, total, square = sums.between(0, upto)
            if n:
                within += max(0.0, square - total * total / n)
                degrees += n - 1
        value = sqrt(within / degrees)
        self._sigma = (upto, value)
        return value

    def of(self, id_: int, upto: int, *, prior: float = PRIOR) -> Credit:
        """What the credits up to ``upto`` say of a record."""
        held: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self._held.get(id_, ()):
            if entry.seq <= upto:
                held[entry.task].append(entry)
        if not held:
            return Credit(id_, 0.0, self.sigma(upto) / sqrt(prior), 0, 0)
        uses = sum(len(entries) for entries in held.values())
        everything, total, _ = self._all.between(0, upto)
        own = sum(e.outcome for entries in held.values() for e in entries)
        base = (total - own) / (everything - uses) if everything > uses else 0.5
        passed: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self._passed.get(id_, ()):
            if entry.seq <= upto:
                passed[entry.task].append(entry)
        weights = effect = 0.0
        controls = 0
        for task, entries in held.items():
            n1, s1 = len(entries), sum(e.outcome for e in entries)
            n0, s0 = 0, 0.0
            if task in self._open:
                n0, s0, _ = self._open[task].between(id_, upto)
                of_record = [e.outcome for e in entries if e.eligible is None and e.seq > id_]
                n0, s0 = n0 - len(of_record), s0 - sum(of_record)
            n0, s0 = n0 + len(passed[task]), s0 + sum(e.outcome for e in passed[task])
            weight = n1 * (n0 + 1) / (n1 + n0 + 1)
            effect += weight * (s1 / n1 - (s0 + base) / (n0 + 1))
            weights += weight
            controls += n0
        return Credit(id_, effect / (weights + prior), self.sigma(upto) / sqrt(weights + prior), uses, controls)

    def harmful(self, upto: int, z: float) -> frozenset[int]:
        """The ids of the records that are harmful by the credits up to ``upto``."""
        count, _, _ = self._all.between(0, upto)
        known = self._harmful
        if (count, z) != known[:2]:
            ids = frozenset(i for i in self.used(upto) if self.of(i, upto).harmful(z))
            self._harmful = known = (count, z, ids)
        return known[2]

    def used(self, upto: int) -> list[int]:
        """The ids that any credited episode held, ascending."""
        return sorted(i for i, entries in list(self._held.items()) if entries[0].seq <= upto)

    def upto(self, seq: int) -> list[Entry]:
        """The credits up to ``seq``."""
        return [e for e in self.entries if e.seq <= seq]


_PASTS = 4  # ledgers of other lineages that are kept


class CreditLog:
    """All credits of a log, and the `Ledger` of any of its sequence numbers. Safe to use from many threads."""

    def __init__(self) -> None:
        self._upto = 0
        self._entries: list[Entry] = []
        self._rollbacks: list[tuple[int, int]] = []
        self._current = Ledger()
        self._pasts: dict[int, Ledger] = {}
        self._lock = threading.Lock()

    def ledger(self, seq: int, marks: Callable[[int, int], Iterable[Mark]]) -> Ledger:
        """The ledger that answers reads as of ``seq``; ``marks(after, upto)`` gives what the log holds between."""
        with self._lock:
            if self._upto < seq:
                rollbacks = len(self._rollbacks)
                for mark in marks(self._upto, seq):
                    if mark.op == "rollback":
                        self._rollbacks.append((mark.seq, mark.id))
                    elif mark.op == "credit":
                        self._entries.append(_entry(mark))
                        self._current.add(self._entries[-1])
                self._upto = seq
                if len(self._rollbacks) > rollbacks:
                    self._current = self._build(seq)
            if not any(number > seq for number, _ in self._rollbacks):
                return self._current
            if seq not in self._pasts:
                while len(self._pasts) >= _PASTS:
                    del self._pasts[next(iter(self._pasts))]
                self._pasts[seq] = self._build(seq)
            return self._pasts[seq]

    def _build(self, seq: int) -> Ledger:
        parts = lineage(seq, self._rollbacks)
        ledger = Ledger()
        for entry in self._entries:
            if seen(entry.seq, parts):
                ledger.add(entry)
        return ledger


def _entry(mark: Mark) -> Entry:
    data: Mapping[str, list[int]] = json.loads(mark.data)
    eligible = data.get("eligible")
    return Entry(
        mark.seq,
        mark.episode,
        mark.task,
        float(mark.outcome or 0.0),
        frozenset(data.get("ids", ())),
        None if eligible is None else frozenset(eligible),
    )
