"""The embedder's contract and the hashing embedder's promises."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.errors import InvalidValue
from agentkit.memory.embed import Embedder, HashingEmbedder

TEXTS = ["open the drawer", "", "print(f'{x!r}')", "naïve café", "数字を数える", "!!!", "a" * 10_000]


def digest(vectors: np.ndarray) -> str:
    return hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(), max_size=8), st.sampled_from([8, 100, 384]))
def test_any_text_has_a_unit_vector_that_does_not_depend_on_its_batch(texts: list[str], dim: int) -> None:
    embedder = HashingEmbedder(dim)
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(embedder.embed([text])[0], vector)


def test_it_is_an_embedder_whose_name_tells_its_parameters() -> None:
    assert isinstance(HashingEmbedder(), Embedder)
    assert HashingEmbedder().name != HashingEmbedder(256).name
    assert HashingEmbedder(256).dim == 256
    with pytest.raises(InvalidValue, match="at least 8"):
        HashingEmbedder(2)


def test_another_process_with_another_hash_seed_gives_the_same_bits() -> None:
    code = (
        "import sys, hashlib; from agentkit.memory.embed import HashingEmbedder;"
        f"print(hashlib.sha256(HashingEmbedder().embed({TEXTS!r}).astype('<f4').tobytes()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {digest(HashingEmbedder().embed(TEXTS))}


def test_large_batches_are_embedded_like_single_texts() -> None:
    texts = [f"room {i} holds a key and {i % 7} coins" for i in range(2500)]
    vectors = HashingEmbedder().embed(texts)
    for i in (0, 1023, 1024, 2499):
        np.testing.assert_array_equal(vectors[i], HashingEmbedder().embed([texts[i]])[0])


def test_related_texts_are_nearer_than_unrelated_ones() -> None:
    query, inflected, misspelled, other = HashingEmbedder().embed(
        [
            "boil the water in the kettle",
            "boiling water with kettles",
            "boil teh watter in ketle",
            "the thermometer is in the workshop drawer",
        ]
    )
    assert query @ inflected > 0.35 > query @ other
    assert query @ misspelled > 0.35
    assert abs(query @ other) < 0.2


def test_order_and_tokens_matter() -> None:
    a, b, c = HashingEmbedder().embed(["dog bites man", "man bites dog", "dog bites man"])
    assert a @ b < 0.99
    np.testing.assert_array_equal(a, c)


def test_unrelated_texts_are_nearly_orthogonal_on_average() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    texts = [" ".join("".join(rng.choice(letters, 6)) for _ in range(8)) for _ in range(300)]
    similarities = (vectors := HashingEmbedder().embed(texts)) @ vectors.T
    off = similarities[~np.eye(300, dtype=bool)]
    assert abs(off.mean()) < 0.01
    assert off.std() < 0.08  # 1/sqrt(384) = 0.051 for random directions


def test_the_vectors_change_only_together_with_the_name() -> None:
    assert HashingEmbedder().name == "hashing-v1-384"
    assert digest(HashingEmbedder().embed(TEXTS)) == "e0ee03250e91658f82d16391708281314e769d0a10b1a3cd57d1791c03770df8"
