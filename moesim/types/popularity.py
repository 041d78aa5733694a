"""The popularity of experts as it was fitted to a recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class FittedPopularity:
    """What a recording says of the law of synthetic tokens, for L layers of E experts.

    `shares` float64 [L, E] are each expert's part of its layer's assignments,
    with the sampling noise of the recording taken out. `locality` holds for
    each layer the probability that an expert's noise is that of the token's
    segment; () where the recording has no order of tokens. Sequences of one of
    `topic_count` topics share affinities of the standard deviation
    `topic_strength`, in logits. `layers` are the numbers of the layers as they
    were recorded, `top_k` the choices of a token.
    """

    source: str
    model: str
    n_experts: int
    top_k: int
    layers: tuple[int, ...]
    shares: NDArray[np.float64]
    locality: tuple[float, ...] = ()
    topic_count: int = 0
    topic_strength: float = 0.0
    notes: tuple[str, ...] = ()
