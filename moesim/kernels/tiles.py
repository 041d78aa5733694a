"""What the loads of experts come to for a grouped product: active ones, rows, and tiles of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit


@njit
def summarize(
    load: NDArray[np.int64],
    row_bits: NDArray[np.int64],
    weight_bits: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Fill out [5, N] with active experts, rows, tiles of 2**row_bits and of 2**weight_bits rows, and the largest.

    load [N, E] holds the rows of each expert, the tiles are of each of the N, [N].
    """
    for i in range(load.shape[0]):
        small, large = row_bits[i], weight_bits[i]
        up_small, up_large = (1 << small) - 1, (1 << large) - 1
        active, rows, row_tiles, weight_tiles, hottest = 0, 0, 0, 0, 0
        for e in range(load.shape[1]):
            n = load[i, e]
            active += n > 0
            rows += n
            row_tiles += (n + up_small) >> small
            weight_tiles += (n + up_large) >> large
            hottest = max(hottest, n)
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = active, rows, row_tiles, weight_tiles, hottest
