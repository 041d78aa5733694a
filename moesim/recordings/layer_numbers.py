"""Which layers of a model the layers of a recording are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rows_of_layers(layer_ids: Sequence[int], moe_layers: Sequence[int]) -> NDArray[np.int64] | None:
    """The row of a recording for each MoE layer of a model, [L], -1 where it was not recorded.

    Recorders number the layers of the model, or its MoE layers alone. Numbers
    that are all of MoE layers are the former, numbers below the count of MoE
    layers else the latter; None if neither holds.
    """
    rows = np.full(len(moe_layers), -1, dtype=np.int64)
    place = {layer: i for i, layer in enumerate(moe_layers)}
    if set(layer_ids) <= set(place):
        rows[[place[layer] for layer in layer_ids]] = np.arange(len(layer_ids))
        return rows
    if all(0 <= layer < len(moe_layers) for layer in layer_ids):
        rows[list(layer_ids)] = np.arange(len(layer_ids))
        return rows
    return None
