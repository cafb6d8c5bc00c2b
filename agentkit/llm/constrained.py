"""JSON by schema: which tokens may come next, decided by llguidance."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agentkit.errors import InvalidValue, MissingExtra
from agentkit.llm.jobs import Constraint
from agentkit.types import Options


class SchemaConstraints:
    """Makes a `Constraint` for each sample. ``vocabulary`` is the number of logits, at least the tokenizer's."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._inner: Any = None
        self._lock = threading.Lock()

    def check(self, schema: Options) -> str:
        """The grammar of ``schema``. Raises `InvalidValue` for one that cannot be followed."""
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise MissingExtra.of("llguidance", "local") from error
        try:
            # Compact JSON: a small model left free to write white space may write nothing else.
            grammar: str = LLMatcher.grammar_from_json_schema(
                json.dumps(dict(schema)), overrides={"whitespace_flexible": False}
            )
        except ValueError as error:
            raise InvalidValue(f"this JSON schema cannot be followed: {error}") from error
        complaint = LLMatcher.validate_grammar(grammar, self._llguidance())
        if complaint:
            raise InvalidValue(f"this JSON schema cannot be followed: {complaint}")
        return grammar

    def make(self, grammar: str) -> Constraint:
        """A fresh constraint that follows ``grammar``."""
        from llguidance import LLMatcher

        return _Grammar(LLMatcher(self._llguidance(), grammar), self._vocabulary)

    def _llguidance(self) -> Any:
        with self._lock:
            if self._inner is None:
                from llguidance.hf import from_tokenizer

                self._inner = from_tokenizer(self._tokenizer, n_vocab=self._vocabulary)
            return self._inner


class _Grammar(Constraint):
    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool)
        return torch.from_numpy(mask)

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
