"""The load of each expert without the sampling noise of a recording.

The share of an expert in a recording of n tokens is its true share and noise,
so the shares differ more than the true ones do. `shrunk_shares` moves them
towards even ones until they differ as much as the true ones are estimated to:

    share' = 1/E + sqrt(1 - noise / spread) * (share - 1/E)

where spread is the sum over experts of (share - 1/E)^2 and noise its part that
sampling causes. The root, where the mean of a posterior has 1 - noise / spread
itself, keeps the spread of the true shares (constrained empirical Bayes: Louis
1984, JASA 79; Ghosh 1992, JASA 87), which the statistics of a load are about.
The noise is estimated from the differences between groups of tokens (see
`sampling.groups_of`), so tokens that resemble their neighbours count for less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise_of_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum over experts of the variances of the shares of counts [U, L, E] over groups, [L].

    The share is a ratio of sums; its variance is that of the ratio estimator (Cochran 1977, section 6.3).
    A single group says nothing of them: the noise is then that of independent assignments.
    """
    total = counts.sum(axis=(0, 2)).astype(np.float64)
    share = counts.sum(axis=0) / np.maximum(total, 1)[:, None]
    n_groups = len(counts)
    if n_groups < 2:
        return np.asarray((share * (1 - share)).sum(axis=1) / np.maximum(total, 1))
    of_group = counts.sum(axis=2, keepdims=True)
    residual = counts - share * of_group
    square = (residual.astype(np.float64) ** 2).sum(axis=(0, 2))
    return np.asarray(square / np.maximum(total, 1) ** 2 * n_groups / (n_groups - 1))


def shrunk_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares [L, E] of counts [U, L, E] of groups, with the noise taken out; even where nothing was counted."""
    n_experts = counts.shape[2]
    load = counts.sum(axis=0).astype(np.float64)
    total = load.sum(axis=1, keepdims=True)
    share = np.divide(load, total, out=np.full(load.shape, 1 / n_experts), where=total > 0)
    apart = share - 1 / n_experts
    spread = (apart**2).sum(axis=1)
    noise = noise_of_shares(counts)
    kept = np.sqrt(np.clip(1 - np.divide(noise, spread, out=np.ones_like(noise), where=spread > 0), 0, 1))
    return np.asarray(1 / n_experts + kept[:, None] * apart)
