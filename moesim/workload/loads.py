"""Stated loads: the share of a layer's assignments that each expert gets, drawn from a few numbers.

`solve` finds the popularity with which a router gives such a load.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import POPULARITY, key, normals, permutation

_ORDER, _EXPERTS, _GROUPS = 0, 1, 2
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
    order = np.empty((n_layers, n_experts), dtype=np.int64)
    _orders_of_layers(seed, order)
    return by_order[order]


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
