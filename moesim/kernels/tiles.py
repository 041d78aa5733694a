"""What the loads of experts come to for a grouped product: active experts, rows, and the rows that whole tiles hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit


@njit
def summarize(
    load: NDArray[np.int64],
    row_tile: NDArray[np.float64],
    weight_tile: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Fill out [5, N] with active experts, rows, padded rows, further tiles and the largest load of each of N ranks.

    load [N, E] holds the rows of each expert. An active expert computes at
    least `row_tile` rows [N]; it reads its weights again for every
    `weight_tile` rows [N] beyond the first.
    """
    for i in range(load.shape[0]):
        small, per_tile = row_tile[i], 1.0 / weight_tile[i]
        active, rows, max_load = 0, 0, 0
        padded, further = 0.0, 0.0
        for e in range(load.shape[1]):
            n = load[i, e]
            if n > 0:
                active += 1
                rows += n
                padded += max(float(n), small)
                further += max(n * per_tile - 1.0, 0.0)
                max_load = max(max_load, n)
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = active, rows, padded, further, max_load
