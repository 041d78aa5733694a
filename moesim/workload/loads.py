"""Stated loads: the share of a layer's assignments that each expert gets, drawn from a few numbers.

`solve` finds the popularity with which a router gives such a load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.power_law import draw_power_law
from moesim.compiled.random import POPULARITY, key, normals, permutation, uniform

_ORDER, _EXPERTS, _GROUPS, _GAMMAS = 0, 1, 2, 3
"""What a layer's draws of the stream POPULARITY are for."""


def lognormal_loads(
    seed: int,
    n_layers: int,
    n_experts: int,
    *,
    sigma: Sequence[float],
    groups: int = 1,
    group_exponent: Sequence[float] = (0.0,),
    group_sigma: Sequence[float] = (0.0,),
) -> NDArray[np.float64]:
    """Shares [L, E] of log-normal loads, whose groups of consecutive experts may differ too.

    ln load = sigma * N(0, 1) of the expert + group_sigma * N(0, 1) of its group - group_exponent * ln(group, from 1).
    So the experts of a GPU are hot together: contiguous GPUs are less even than independent experts would be.

    Args:
        seed: of the run.
        n_layers: L, MoE layers.
        n_experts: E, experts of a layer.
        sigma: in the first layer, ..., in the last, at equal distances; linear between. So are the next two.
        groups: runs of consecutive experts, of equal length where they divide E.
        group_exponent: of Zipf's law over the groups in their order; negative: the last group is the hottest.
        group_sigma: standard deviation of a group's own ln load.
    """
    group = np.arange(n_experts) * groups // n_experts
    of_expert, of_group = np.empty((n_layers, n_experts)), np.empty((n_layers, groups))
    _normals_of_layers(seed, _EXPERTS, of_expert)
    _normals_of_layers(seed, _GROUPS, of_group)
    trend = _by_depth(group_sigma, n_layers) * of_group - _by_depth(group_exponent, n_layers) * np.log1p(range(groups))
    return _shares(np.exp(_by_depth(sigma, n_layers) * of_expert + trend[:, group]))


def hot_loads(seed: int, n_layers: int, n_experts: int, *, share: float, experts: int) -> NDArray[np.float64]:
    """Shares [L, E] where so many experts of a layer, drawn at random, have a share of its load; the others are alike.

    Raises:
        ValueError: not 1 to E - 1 experts.
    """
    if not 1 <= experts < n_experts:
        raise ValueError(f"experts: found {experts}, wanted 1 to {n_experts - 1}")
    by_order = np.full(n_experts, (1 - share) / (n_experts - experts))
    by_order[:experts] = share / experts
    return by_order[orders_of_layers(seed, n_layers, n_experts)]


def orders_of_layers(seed: int, n_layers: int, n_experts: int) -> NDArray[np.int64]:
    """The place of each expert [L, E] in a random order of its layer."""
    order = np.empty((n_layers, n_experts), dtype=np.int64)
    _orders_of_layers(seed, order)
    return order


def power_law_loads(
    seed: int, n_layers: int, n_experts: int, *, alpha: float, tokens: int, top_k: int, ranks: int = 1
) -> NDArray[np.float64]:
    """Shares [L, E] of loads with the density x^-alpha, as the collector of the measured tables draws them.

    What that draws depends on the `tokens` of a step and rests, where it rounds, on
    the `ranks`, runs of equally many experts; see `compiled.power_law`.
    """
    load = np.empty((n_layers, ranks, n_experts // ranks), dtype=np.int64)
    _power_laws_of_layers(seed, alpha, tokens, top_k, load)
    return _shares(load.reshape(n_layers, n_experts).astype(np.float64))


def dirichlet_loads(
    seed: int, n_layers: int, n_experts: int, *, concentration: float, top_k: int
) -> NDArray[np.float64]:
    """Shares [L, E] of a symmetric Dirichlet law, none above 1 / top_k: choices of a token are distinct.

    What an expert would have beyond that goes to the others in proportion. The
    coefficient of variation is sqrt((E - 1) / (E concentration + 1)) before.
    """
    gammas = np.empty((n_layers, n_experts))
    _gammas_of_layers(seed, concentration, gammas)
    return _limited(_shares(np.maximum(gammas, 1e-300)), 1 / top_k)


def _limited(shares: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Shares [L, E] of which none is above a limit of 1 / E or more."""
    at_limit = np.zeros(shares.shape, dtype=np.bool_)
    for _ in range(shares.shape[1]):
        at_limit |= shares >= limit
        rest = np.where(at_limit, 0, shares)
        room = 1 - limit * at_limit.sum(axis=1, keepdims=True)
        shares = np.where(at_limit, limit, rest * room / np.maximum(rest.sum(axis=1, keepdims=True), 1e-300))
        if not (shares > limit * (1 + 1e-12)).any():
            break
    return shares


@njit
def _power_laws_of_layers(seed: int, alpha: float, tokens: int, top_k: int, out: NDArray[np.int64]) -> None:
    for layer in range(out.shape[0]):
        draw_power_law(key(seed, POPULARITY, 0, layer, _EXPERTS), alpha, tokens, top_k, out[layer])


@njit
def _gammas_of_layers(seed: int, shape: float, out: NDArray[np.float64]) -> None:
    """Fill out [L, E] with gamma numbers (Marsaglia and Tsang, ACM TOMS 26, 2000; below 1 by a power of a uniform)."""
    d = (shape if shape >= 1.0 else shape + 1.0) - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    pair = np.empty(1)
    for layer in range(out.shape[0]):
        for e in range(out.shape[1]):
            tries = 0
            while True:
                word = key(seed, POPULARITY, tries, layer, _GAMMAS + e)
                normals(word, pair)
                v = (1.0 + c * pair[0]) ** 3
                if v > 0.0 and math.log(uniform(word, 2)) < 0.5 * pair[0] ** 2 + d - d * v + d * math.log(v):
                    break
                tries += 1
            out[layer, e] = d * v
            if shape < 1.0:
                out[layer, e] *= uniform(word, 3) ** (1.0 / shape)


@njit
def _normals_of_layers(seed: int, purpose: int, out: NDArray[np.float64]) -> None:
    for layer in range(out.shape[0]):
        normals(key(seed, POPULARITY, 0, layer, purpose), out[layer])


@njit
def _orders_of_layers(seed: int, out: NDArray[np.int64]) -> None:
    for layer in range(out.shape[0]):
        permutation(key(seed, POPULARITY, 0, layer, _ORDER), out[layer])


def by_layer(values: Sequence[float], n_layers: int) -> NDArray[np.float64]:
    """Numbers of the layers [L]: as many as there are layers are one for each, others are by depth (`_by_depth`)."""
    return np.array(values, dtype=np.float64) if len(values) == n_layers else _by_depth(values, n_layers)[:, 0]


def stated_loads(n_layers: int, shares: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Shares [L, E] that are stated for each layer, or once for all of them, scaled to a sum of 1."""
    return np.repeat(_shares(np.array(shares, dtype=np.float64)), n_layers if len(shares) == 1 else 1, axis=0)


def _by_depth(values: Sequence[float], n_layers: int) -> NDArray[np.float64]:
    """[L, 1]: each layer at its middle, so that the mean over few layers is that over many."""
    depth = (np.arange(n_layers) + 0.5) / n_layers
    return np.asarray(np.interp(depth, np.linspace(0, 1, len(values)), values))[:, None]


def _shares(load: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(load / load.sum(axis=1, keepdims=True))
