"""ReLU routing: every expert with a positive logit, which is also its weight.

Wang et al. 2024, ReMoE, section 3. A token gets between none and all of the
experts; training holds the mean at the k of a top-k router. Here `top_k` is
the most that a token may get, its largest logits first; E = no bound, as published.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.routing.gate import GateParameters
from moesim.routing.gate import route as route_gate
from moesim.routing.strategy import NoParameters, Strategy
from moesim.types import Assignment, Draw

_BY_LOGIT = GateParameters(score="softmax-of-chosen")


def route(
    logits: NDArray[np.float32], top_k: int, parameters: NoParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """The positive ones of the top_k largest logits [T, E]; unused choices are -1."""
    expert = route_gate(logits, top_k, _BY_LOGIT, None, draw).expert
    weight = np.take_along_axis(logits, expert, axis=1)
    chosen = weight > 0
    return Assignment.of(np.where(chosen, expert, np.int32(-1)), np.where(chosen, weight, np.float32(0)))


STRATEGY = Strategy(name="relu", route=route, parameters=NoParameters)
