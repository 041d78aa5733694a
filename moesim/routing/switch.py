"""Switch Transformer: every token goes to its most probable expert.

Fedus, Zoph and Shazeer 2021, section 2.1; `_switch_gating` of Mesh TensorFlow
and HF `SwitchTransformersTop1Router`. The weight is the softmax probability
over all experts and is never renormalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.routing.softmax_top_k import softmax_top_k
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class SwitchParameters:
    """Switch routing has none at inference."""


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Top-1 of logits [T, E]; weight = softmax probability of the chosen expert."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    softmax_top_k(logits, False, expert, weight)
    return Assignment.of(expert, weight)


def check(n_experts: int, top_k: int, parameters: Any) -> None:
    """Switch is top-1."""
    if top_k != 1:
        raise InputError("routing.top_k 1, as switch sends a token to one expert")


STRATEGY = Strategy(name="switch", route=route, parameters=SwitchParameters, order_only=True, check=check)
