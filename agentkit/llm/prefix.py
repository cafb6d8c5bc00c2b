"""Keys and values of prompt prefixes, kept for the next prompt that begins the same way.

A prefix is a chain of blocks of `BLOCK` tokens; a block's key is a hash of its tokens and of all before it, so that
looking up a prompt is looking up its blocks one after the other. A block's content does not depend on who computed it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

BLOCK = 16


def block_keys(namespace: str, ids: Sequence[int]) -> list[bytes]:
    """The keys of all whole blocks of ``ids`` but those that would leave no token after them."""
    key = hashlib.blake2b(namespace.encode(), digest_size=16).digest()
    keys = []
    for start in range(0, (len(ids) - 1) // BLOCK * BLOCK, BLOCK):
        key = hashlib.blake2b(key + array("q", ids[start : start + BLOCK]).tobytes(), digest_size=16).digest()
        keys.append(key)
    return keys


class PrefixCache:
    """Blocks of keys and values, the least recently used leaving when they exceed ``max_bytes``. Not locked."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._blocks: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, key: bytes) -> Tensor | None:
        """The block (layers, 2, kv heads, BLOCK, d), or None."""
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def put(self, key: bytes, block: Tensor) -> None:
        """Keep a block, and drop old ones for it."""
        if key in self._blocks or block.nbytes > self.max_bytes:
            return
        self._blocks[key] = block
        self.n_bytes += block.nbytes
        while self.n_bytes > self.max_bytes:
            self.n_bytes -= self._blocks.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all blocks."""
        self._blocks.clear()
        self.n_bytes = 0
