"""Syntax trees from many threads."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentkit.syntax import parse_expression, parse_module


@pytest.fixture
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching_often")
def test_threads_do_not_disturb_each_other() -> None:
    text = "\n".join(f"def f{i}(a, b=[{{1: (2, 3)}}]):\n    return [x for x in a if x > {i}]" for i in range(60))

    def often(_: int) -> int:
        return sum(len(parse_module(text).body) for _ in range(40))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(often, range(8))) == [2400] * 8


def test_an_expression_is_its_own_tree() -> None:
    assert isinstance(parse_expression("f(1)"), ast.Call)
    with pytest.raises(SyntaxError):
        parse_expression("x = 1")
