"""Loads of layers that a fit has no row for: as uneven as those of the nearest fitted layers, other experts hot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.workload.loads import orders_of_layers


def fitted_loads(
    seed: int, shares: NDArray[np.float64], rows: NDArray[np.int64], part: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shares [M, E] of M layers from fitted ones [L, E].

    A layer between two rows has the shares of both in descending order, mixed
    by its place between them, and dealt to its experts in a random order of its
    own: which expert is hot in one layer says nothing of the next.

    Args:
        seed: of the orders.
        shares: of the fitted layers.
        rows: the rows below and above each layer, [M, 2]; equal where the layer has one of its own.
        part: of the second row, [M].
    """
    found = shares[rows[:, 0]]
    between = rows[:, 0] != rows[:, 1]
    if between.any():
        descending = -np.sort(-shares, axis=1)
        weight = part[between, None]
        mixed = descending[rows[between, 0]] * (1 - weight) + descending[rows[between, 1]] * weight
        orders = orders_of_layers(seed, *found.shape)[between]
        found[between] = np.take_along_axis(mixed, orders, axis=1)
    return np.asarray(found)
