"""Token loads drawn as the collector of the measured tables draws them.

A measured row times one rank. `balanced` and `uniform` rows have one load;
`power_law_<exponent>` rows are the mean of a few random draws, of each of which
the most loaded rank was timed, so that their expectation is predicted. Loads
are a pure function of the row: draws are counter-based (kernels/random.py).
The collector is helper.py of NVIDIA aiconfigurator.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.power_law import draw_power_law
from moesim.compiled.random import key
from moesim.errors import InputError

Loads = NDArray[np.int64]

DRAWS = 128
"""Draws whose mean stands for the expectation: its standard error is a fifth of that of the measured five draws."""

_POWER_LAW = "power_law_"


@lru_cache(maxsize=256)
def token_loads(distribution: str, tokens: int, n_experts: int, top_k: int, ep: int, draws: int = DRAWS) -> Loads:
    """Tokens of each expert of the timed rank, [D, n_experts / ep]; one draw where nothing is random. Read only.

    Args:
        distribution: "balanced", "uniform" or "power_law_<exponent>".
        tokens: of all ranks together.
        n_experts: of all ranks together, in equal contiguous blocks.
        top_k: experts of a token.
        ep: ranks.
        draws: of a random distribution.

    Raises:
        InputError: another distribution, or experts that the ranks do not divide.
    """
    if ep < 1 or n_experts % ep:
        raise InputError(f"{n_experts} experts cannot be divided among {ep} ranks")
    if distribution == "balanced":
        loads = balanced(tokens, n_experts, top_k, ep)[None]
    elif distribution == "uniform":
        loads = uniform(tokens, n_experts, top_k, ep)[None]
    else:
        loads = power_law(exponent_of(distribution), tokens, n_experts, top_k, ep, draws)
    loads.setflags(write=False)
    return loads


def exponent_of(distribution: str) -> float:
    """Exponent of the power law that a distribution names.

    Raises:
        InputError: it is none that is known.
    """
    text = distribution.removeprefix(_POWER_LAW)
    try:
        if distribution.startswith(_POWER_LAW):
            return float(text)
    except ValueError:
        pass
    raise InputError(f"distribution: found {distribution!r}, wanted balanced, uniform or power_law_<exponent>")


def balanced(tokens: int, n_experts: int, top_k: int, ep: int) -> Loads:
    """Tokens of the experts of rank 0, round robin: expert = (t + k ceil(E / K)) % E, few tokens spread apart."""
    stride, own = -(-n_experts // top_k), np.arange(n_experts // ep)
    if tokens >= stride:  # choice k of every n_experts tokens is each expert once
        first = (own[:, None] - stride * np.arange(top_k)) % n_experts
        counts: Loads = (tokens // n_experts + (first < tokens % n_experts)).sum(axis=1, dtype=np.int64)
        return counts
    token = np.arange(tokens)
    expert = ((token * stride // tokens)[:, None] + stride * np.arange(top_k)) % n_experts
    return np.bincount(expert.ravel(), minlength=n_experts)[: n_experts // ep].astype(np.int64)


def uniform(tokens: int, n_experts: int, top_k: int, ep: int) -> Loads:
    """Tokens of the experts of the most loaded rank when counts are equal, the remainder going to the first ones."""
    local = n_experts // ep
    per_rank = -(-tokens * top_k // ep)
    return np.array([per_rank // local + (e < per_rank % local) for e in range(local)], dtype=np.int64)


def power_law(exponent: float, tokens: int, n_experts: int, top_k: int, ep: int, draws: int, seed: int = 0) -> Loads:
    """Tokens of the experts of the most loaded rank, [draws, n_experts / ep].

    E independent loads by inverse CDF of x^-exponent on [1, 0.8 T] (on [0.01,
    2] where there are not more assignments than experts), scaled to T K,
    rounded, limited to T an expert; what is over or missing is spread one token
    at a time over the ranks, from the most or to the least loaded expert of each.
    """
    loads = np.empty((draws, n_experts // ep), dtype=np.int64)
    _power_law(seed, exponent, tokens, top_k, ep, n_experts, loads)
    return loads


@njit
def _power_law(
    seed: int, exponent: float, tokens: int, top_k: int, ep: int, n_experts: int, out: NDArray[np.int64]
) -> None:
    """Fill out [D, E / ep]."""
    load = np.empty((ep, n_experts // ep), dtype=np.int64)
    for draw in range(out.shape[0]):
        draw_power_law(key(seed, 0, 0, 0, draw), exponent, tokens, top_k, load)
        out[draw] = load[load.sum(axis=1).argmax()]
