"""Python's syntax trees, read from many threads.

CPython 3.11 counts the depth of the trees that it builds for all threads together: where two build at once, either may
end in "SystemError: AST constructor recursion depth mismatch". So one is built at a time.
"""

from __future__ import annotations

import ast
import threading

_one_at_a_time = threading.RLock()


def parse_module(text: str) -> ast.Module:
    """The tree of a program. Raises what `ast.parse` does."""
    with _one_at_a_time:
        return ast.parse(text)


def parse_expression(text: str) -> ast.expr:
    """The tree of one expression. Raises what `ast.parse` does."""
    with _one_at_a_time:
        return ast.parse(text, mode="eval").body
