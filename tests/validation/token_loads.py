"""Token loads drawn as the collector of the measured tables draws them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Loads = NDArray[np.int64]


def balanced(tokens: int, n_experts: int, top_k: int, ep: int) -> Loads:
    """Tokens of the experts of rank 0, round robin: expert = (t + k ceil(E / K)) % E, few tokens spread apart."""
    stride = -(-n_experts // top_k)
    token = np.arange(tokens)
    first = token if tokens >= stride else token * stride // tokens
    expert = (first[:, None] + stride * np.arange(top_k)) % n_experts
    return _most_loaded(np.bincount(expert.ravel(), minlength=n_experts), ep)


def uniform(tokens: int, n_experts: int, top_k: int, ep: int) -> Loads:
    """Tokens of the experts of the most loaded rank when counts are equal, the remainder going to the first ones."""
    local = n_experts // ep
    per_rank = -(-tokens * top_k // ep)
    return np.array([per_rank // local + (e < per_rank % local) for e in range(local)], dtype=np.int64)


def power_law(rng: np.random.Generator, tokens: int, n_experts: int, top_k: int, ep: int, exponent: float) -> Loads:
    """Tokens of the experts of the most loaded rank, one draw.

    E independent loads by inverse CDF of x^-exponent on [1, 0.8 T] (on [0.01,
    2] where there are fewer assignments than experts), scaled to T K, rounded,
    limited to T an expert; what is over or missing is spread one token at a
    time over the ranks, to the least or from the most loaded expert of each.
    """
    low, high = (1.0, 0.8 * tokens) if tokens * top_k > n_experts else (0.01, 2.0)
    u, power = rng.random(n_experts), 1.0 - exponent
    drawn = ((high**power - low**power) * u + low**power) ** (1.0 / power)
    total = tokens * top_k
    load = np.minimum(np.rint(drawn / drawn.sum() * total).astype(np.int64), tokens).reshape(ep, -1)
    missing, rank = total - int(load.sum()), 0
    while missing:
        row = load[rank % ep]
        if missing > 0:
            expert = int(row.argmin())
            if row[expert] < tokens:
                row[expert] += 1
                missing -= 1
        else:
            expert = int(row.argmax())
            if row[expert] > 0:
                row[expert] -= 1
                missing += 1
        rank += 1
    return _most_loaded(load.ravel(), ep)


def _most_loaded(load: Loads, ep: int) -> Loads:
    by_rank = load.reshape(ep, -1)
    chosen: Loads = by_rank[by_rank.sum(axis=1).argmax()]
    return chosen
