"""What the engine works on: a prompt to read, then candidates to score or tokens to generate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from agentkit.llm.packed import Adapter, Attend, Plan
from agentkit.llm.prefix import BLOCK, block_keys
from agentkit.llm.sampling import Pick, generator, pick

# Rows of candidates that one pass takes; more candidates are scored in several parts.
_PART = 96


class Job:
    """A prompt being read in blocks. Each step adds rows to a `Plan`; `finish` turns the last rows' logits into work.

    The prompt's whole blocks come from the cache or are computed; its tail (1 to `BLOCK` tokens) is always computed.
    Both always as the same pieces of attention, so that results do not depend on what was cached.
    """

    def __init__(self, prompt: Sequence[int], places: int, adapter: Adapter | None) -> None:
        self.prompt = list(prompt)
        self.adapter = adapter
        self.keys = block_keys(adapter.digest if adapter else "", self.prompt)
        self.tail = self.prompt[len(self.keys) * BLOCK :]
        self.places = len(self.prompt) + places
        self.kv: Tensor | None = None
        self.blocks_done = 0
        self.cached_tokens = 0
        self.future: Future[object] = Future()

    def add_block(self, plan: Plan, index: int) -> int:
        """Add block number ``index``; returns the rows added."""
        assert self.kv is not None
        at = index * BLOCK
        row = plan.add(self.prompt[at : at + BLOCK], range(at, at + BLOCK), self.kv, at)
        plan.attends.append(Attend(row, BLOCK, self.kv, at + BLOCK))
        return BLOCK

    def add_tail(self, plan: Plan) -> None:
        """Add the tail and what is to be computed with it."""
        raise NotImplementedError

    def tail_rows(self) -> int:
        """How many rows `add_tail` would add."""
        raise NotImplementedError

    def take(self, logits: Tensor) -> bool:
        """Use the logits of the rows that `add_tail` wanted. True when there is no other tail to compute."""
        raise NotImplementedError


@dataclass(slots=True)
class _Node:
    """A prefix that candidates share. ``row`` is its index among the wanted rows of its part."""

    parent: int
    token: int
    depth: int
    children: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Part:
    """Some of the candidates as a tree. ``paths[c]`` are the (node, next token) pairs of candidate c; node 0 is the
    prompt's end. Only nodes that something follows are computed."""

    nodes: list[_Node]
    paths: dict[int, list[tuple[int, int]]]


class ScoreJob(Job):
    """The log-probabilities of candidates after one prompt, the prompt and what candidates share computed once."""

    def __init__(
        self, prompt: Sequence[int], candidates: Sequence[Sequence[int]], adapter: Adapter | None = None
    ) -> None:
        self.parts = list(_parts(candidates))
        widest = max(len(part.nodes) for part in self.parts)
        super().__init__(prompt, widest, adapter)
        self.candidates = candidates
        self.logprobs = [0.0] * len(candidates)
        self.part = 0

    def tail_rows(self) -> int:
        return len(self.tail) + len(self.parts[self.part].nodes) - 1

    def add_tail(self, plan: Plan) -> None:
        assert self.kv is not None
        nodes = self.parts[self.part].nodes
        n, start, tail = len(self.prompt), len(self.prompt) - len(self.tail), len(self.tail)
        ids = self.tail + [node.token for node in nodes[1:]]
        positions = [*range(start, n), *(n - 1 + node.depth for node in nodes[1:])]
        row = plan.add(ids, positions, self.kv, start)
        visible = torch.zeros(len(ids), start + len(ids), dtype=torch.bool)
        visible[:, :start] = True
        visible[:tail, start:n] = torch.ones(tail, tail, dtype=torch.bool).tril()
        visible[tail:, start:n] = True
        for index, node in enumerate(nodes[1:], start=tail):
            if node.parent:
                visible[index, n:] = visible[node.parent + tail - 1, n:]
            visible[index, start + index] = True
        plan.attends.append(Attend(row, len(ids), self.kv, start + len(ids), visible))
        plan.wanted += range(row + tail - 1, row + len(ids))

    def take(self, logits: Tensor) -> bool:
        with torch.inference_mode():
            logprobs = torch.log_softmax(logits, 1)
            paths = self.parts[self.part].paths
            pairs = [pair for path in paths.values() for pair in path]
            rows, tokens = (torch.tensor(side, device=logits.device) for side in zip(*pairs, strict=True))
            values = iter(logprobs[rows, tokens].tolist())
        for candidate, path in paths.items():
            self.logprobs[candidate] = sum(next(values) for _ in path)
        self.part += 1
        return self.part == len(self.parts)


def _parts(candidates: Sequence[Sequence[int]]) -> list[_Part]:
    parts = [_Part([_Node(0, -1, 0)], {})]
    for index, tokens in enumerate(candidates):
        if len(parts[-1].nodes) + len(tokens) - 1 > _PART and parts[-1].paths:
            parts.append(_Part([_Node(0, -1, 0)], {}))
        nodes, at, path = parts[-1].nodes, 0, []
        for k, token in enumerate(tokens):
            path.append((at, token))
            if k == len(tokens) - 1:
                break
            if token not in nodes[at].children:
                nodes[at].children[token] = len(nodes)
                nodes.append(_Node(at, token, nodes[at].depth + 1))
            at = nodes[at].children[token]
        parts[-1].paths[index] = path
    return parts


class Constraint:
    """What restricts the next token. A fresh one serves each sample."""

    def allowed(self) -> Tensor:
        """A bool (vocabulary,) mask."""
        raise NotImplementedError

    def accept(self, token: int) -> None:
        """The token that was chosen."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the tokens of a `GenerateJob` are chosen, and when they end.

    ``stopped(ids)`` says whether a stop string has appeared in the tokens so far.
    """

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None
    ends: frozenset[int]
    stopped: Callable[[Sequence[int]], bool] | None = None
    constraint: Callable[[], Constraint] | None = None


class Sample:
    """One sequence being generated."""

    def __init__(self, decoding: Decoding, index: int, kv: Tensor, length: int) -> None:
        self.decoding, self.kv, self.length = decoding, kv, length
        self.rng: np.random.Generator = generator(decoding.seed, index)
        self.constraint = decoding.constraint() if decoding.constraint else None
        self.picks: list[Pick] = []
        self.finish_reason = ""

    def take(self, logits: Tensor) -> bool:
        """Choose the next token from ``logits`` (vocabulary,). True when the sample is complete."""
        how = self.decoding
        allowed = self.constraint.allowed() if self.constraint else None
        chosen = pick(logits, how.temperature, how.top_p, self.rng, allowed)
        self.picks.append(chosen)
        if chosen.token in how.ends or (how.stopped and how.stopped([p.token for p in self.picks])):
            self.finish_reason = "stop"
        elif len(self.picks) >= how.max_tokens:
            self.finish_reason = "length"
        elif self.constraint:
            self.constraint.accept(chosen.token)
        return bool(self.finish_reason)

    def add(self, plan: Plan) -> None:
        """Add the row of the last chosen token."""
        row = plan.add([self.picks[-1].token], [self.length], self.kv, self.length)
        plan.attends.append(Attend(row, 1, self.kv, self.length + 1))
        plan.wanted.append(row)


class GenerateJob(Job):
    """Samples after one prompt, which is read once for all of them."""

    def __init__(self, prompt: Sequence[int], decoding: Decoding, adapter: Adapter | None = None) -> None:
        super().__init__(prompt, decoding.max_tokens, adapter)
        self.decoding = decoding
        self.samples: list[Sample] = []

    def tail_rows(self) -> int:
        return len(self.tail)

    def add_tail(self, plan: Plan) -> None:
        assert self.kv is not None
        start = len(self.prompt) - len(self.tail)
        row = plan.add(self.tail, range(start, len(self.prompt)), self.kv, start)
        plan.attends.append(Attend(row, len(self.tail), self.kv, len(self.prompt)))
        plan.wanted.append(row + len(self.tail) - 1)

    def take(self, logits: Tensor) -> bool:
        assert self.kv is not None
        n = len(self.prompt)
        for index in range(self.decoding.n):
            kv = self.kv
            if index:
                kv = torch.empty_like(kv)
                kv[:, :, :, :n] = self.kv[:, :, :, :n]
            self.samples.append(Sample(self.decoding, index, kv, n))
        for sample in self.samples:
            sample.take(logits[0])
        return True
