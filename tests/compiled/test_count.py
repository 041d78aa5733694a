"""Counts of assignments, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.compiled.count import count, count_by_source


def assignments(n_tokens: int, top_k: int, n_ranks: int, n_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """Random experts, a fifth of them -1, and random sources."""
    rng = np.random.default_rng(n_tokens)
    expert = rng.integers(0, n_experts, (n_tokens, top_k)).astype(np.int32)
    expert[rng.random(expert.shape) < 0.2] = -1
    return expert, rng.integers(0, n_ranks, n_tokens).astype(np.int32)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 1, 1, 1), (3, 8, 2, 16), (257, 3, 5, 7), (1000, 8, 64, 256)])
def test_counts_are_those_of_bincount(shape: tuple[int, int, int, int]) -> None:
    """Also where the tokens do not divide into equal runs, or are too few for them."""
    _, _, n_ranks, n_experts = shape
    expert, source = assignments(*shape)
    some = expert >= 0
    pair = (source[:, None].astype(np.int64) * n_experts + expert)[some]
    expected = np.bincount(pair, minlength=n_ranks * n_experts).reshape(n_ranks, n_experts)
    found = count_by_source(expert, source, n_ranks, n_experts)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(count(expert, n_experts), expected.sum(axis=0))


def test_a_mask_says_what_is_counted() -> None:
    """Two tokens; the second choice of the first and a choice that was none are left out."""
    expert = np.array([[0, 2], [2, -1]], dtype=np.int32)
    assert count(expert, 3).tolist() == [1, 0, 2]
    assert count(expert, 3, np.array([[True, False], [True, True]])).tolist() == [1, 0, 1]
    assert count_by_source(expert, np.array([1, 0], dtype=np.int32), 2, 3).tolist() == [[0, 0, 1], [1, 0, 1]]
