"""What the loads of experts come to for a grouped product: active experts, rows, and the rows that whole tiles hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit


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
        active, rows, max_load = 0, 0, 0
        below, rows_above = 0, 0  # experts below a row tile, rows of the others; sums of integers know no order
        wide, wide_rows = 0, 0  # experts beyond a weight tile, and their rows
        for e in range(load.shape[1]):
            n = load[i, e]
            if n > 0:
                active += 1
                rows += n
                max_load = max(max_load, n)
                if n < row_tile[i]:
                    below += 1
                else:
                    rows_above += n
                if n > weight_tile[i]:
                    wide += 1
                    wide_rows += n
        out[0, i], out[1, i], out[4, i] = active, rows, max_load
        out[2, i] = rows_above + below * row_tile[i]
        out[3, i] = wide_rows / weight_tile[i] - wide
