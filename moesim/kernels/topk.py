"""Selection of the k largest, one tie rule for all: the lowest index first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit


@njit
def top_k_of(score: NDArray[np.float32], index: NDArray[np.int32], value: NDArray[np.float32]) -> None:
    """Write the indices of the K largest of score [E] to index [K], descending, and their scores to value [K].

    Equal scores rank by index. K <= E; scores are not NaN.
    """
    k = index.shape[0]
    for e in range(k):
        _insert(score[e], e, index, value, e)
    least = value[k - 1]
    for e in range(k, score.shape[0]):
        if score[e] > least:
            _insert(score[e], e, index, value, k - 1)
            least = value[k - 1]


@njit
def _insert(
    score: float,
    e: int,
    index: NDArray[np.int32],
    value: NDArray[np.float32],
    last: int,
) -> None:
    """Put a score in its place among value[:last], which are descending; what stood at `last` falls out."""
    i = last
    while i > 0 and score > value[i - 1]:
        value[i] = value[i - 1]
        index[i] = index[i - 1]
        i -= 1
    value[i] = score
    index[i] = e
