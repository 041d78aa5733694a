"""How even a load is. Loads are counts [..., N] of experts or ranks; each metric is [...].

An all-zero load is as even as can be: its violation, cv and gini are 0, its
balancedness and entropy 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.types.policies import SkewTarget

Loads = NDArray[np.int64]
Metric = NDArray[np.float64]


def max_violation(load: Loads) -> Metric:
    """MaxVio = max / mean - 1 (Wang et al. 2024, Auxiliary-Loss-Free Load Balancing, section 4.1)."""
    return _ratio(load.max(axis=-1) * load.shape[-1], load.sum(axis=-1), 1.0) - 1.0


def balancedness(load: Loads | NDArray[np.float64]) -> Metric:
    """Mean / max, in (0, 1]; 1 = even."""
    return _ratio(load.sum(axis=-1), load.max(axis=-1) * load.shape[-1], 1.0)


def cv(load: Loads) -> Metric:
    """Coefficient of variation: population standard deviation / mean."""
    return _ratio(load.std(axis=-1), load.mean(axis=-1), 0.0)


def gini(load: Loads) -> Metric:
    """Gini coefficient, from 0 (even) to (N - 1) / N (all on one)."""
    n = load.shape[-1]
    weighted = (np.sort(load, axis=-1) * (2 * np.arange(1, n + 1) - n - 1)).sum(axis=-1)
    return _ratio(weighted, load.sum(axis=-1) * n, 0.0)


def normalised_entropy(load: Loads) -> Metric:
    """Shannon entropy of the shares over ln N, from 0 (all on one) to 1 (even); 1 for N = 1."""
    n = load.shape[-1]
    total = load.sum(axis=-1, keepdims=True)
    share = _ratio(load, np.broadcast_to(total, load.shape), 1.0 / n)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    if n == 1:
        return np.ones(load.shape[:-1])
    return np.asarray(-(share * logs).sum(axis=-1) / np.log(n) + 0.0)


def dead_experts(load: Loads) -> NDArray[np.int64]:
    """How many got nothing."""
    return np.asarray((load == 0).sum(axis=-1), dtype=np.int64)


def _ratio(above: NDArray[np.number], below: NDArray[np.number], otherwise: float) -> Metric:
    """Above / below, `otherwise` where below is 0."""
    above, below = (
        np.asarray(above, dtype=np.float64),
        np.asarray(below, dtype=np.float64),
    )
    ratio: Metric = np.divide(above, below, out=np.full(above.shape, otherwise), where=below != 0)
    return ratio


def top_share(load: Loads, n: int) -> Metric:
    """Part of the load that the n most loaded have; n / N of an even one."""
    ordered = np.sort(load, axis=-1)
    return _ratio(ordered[..., -n:].sum(axis=-1), load.sum(axis=-1), n / load.shape[-1])


def metric_of_target(load: Loads, target: SkewTarget) -> Metric:
    """The metric of a target, of loads of experts [..., E]."""
    if target.metric == "balancedness":
        return balancedness(load.reshape(*load.shape[:-1], target.ranks, -1).sum(axis=-1))
    if target.metric == "top_share":
        return top_share(load, target.experts)
    return {"max_violation": max_violation, "entropy": normalised_entropy}[target.metric](load)
