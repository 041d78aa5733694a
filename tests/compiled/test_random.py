"""Counter-based random numbers: known answers, and the laws they follow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from moesim.compiled import random as kernels
from moesim.compiled.random import mix64, normals, permutation, uniform


def key(*parts: int) -> np.uint64:
    """A key as an unsigned word, which Python would take for a signed one."""
    return np.uint64(kernels.key(*parts))


def splitmix64(x: int) -> int:
    """The published finaliser in plain Python."""
    mask = (1 << 64) - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


@pytest.mark.parametrize("x", [0, 1, 0x9E3779B97F4A7C15, 2**63 + 1, 2**64 - 1])
def test_mix64_equals_the_published_function(x: int) -> None:
    """In compiled code too, where mixing signed and unsigned words would go wrong."""
    assert int(mix64(np.uint64(x))) == splitmix64(x)


def test_a_draw_depends_on_everything_it_is_for() -> None:
    """Changing any one of seed, stream, step, layer, token or draw gives another number."""
    base = (1, 2, 3, 4, 5)
    seen = {uniform(key(*base), 0), uniform(key(*base), 1)}
    for i in range(5):
        other = list(base)
        other[i] += 1
        seen.add(uniform(key(*other), 0))
    assert len(seen) == 7


def test_draws_are_uniform_and_independent() -> None:
    """Kolmogorov-Smirnov over tokens and over draws, and no correlation of neighbours."""
    by_token = np.array([uniform(key(7, 1, 0, 0, t), 0) for t in range(20_000)])
    by_draw = np.array([uniform(key(7, 1, 0, 0, 0), i) for i in range(20_000)])
    for sample in (by_token, by_draw):
        assert stats.kstest(sample, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(sample[1:], sample[:-1])[0, 1]) < 4 / np.sqrt(len(sample))
        assert 0 < sample.min() < sample.max() < 1


def test_normals_are_normal() -> None:
    """Mean 0, variance 1, and the shape."""
    sample = np.empty(20_000)
    normals(key(7, 1, 0, 0, 1), sample)
    assert stats.kstest(sample, "norm").pvalue > 1e-3


def test_permutations_are_permutations_and_all_alike() -> None:
    """Each of the 24 orders of 4 comes equally often."""
    order = np.empty(4, dtype=np.int64)
    counts: dict[tuple[int, ...], int] = {}
    for t in range(12_000):
        permutation(key(3, 2, 0, 0, t), order)
        counts[tuple(order.tolist())] = counts.get(tuple(order.tolist()), 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
