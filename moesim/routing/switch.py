"""Switch Transformer: every token goes to its most probable expert.

Fedus, Zoph and Shazeer 2021, section 2.1; `_switch_gating` of Mesh TensorFlow
and HF `SwitchTransformersTop1Router`. The weight is the softmax probability
over all experts and is never renormalised. In training the reference
multiplies the router's input by U(1 - 0.01, 1 + 0.01); inputs are not
simulated, so `jitter` multiplies every logit by U(1 - jitter, 1 + jitter).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import JITTER, key, uniform
from moesim.errors import ParameterError
from moesim.routing.gate import (
    GateParameters,
    check_gate,
    compares_logits,
    kept_groups,
    limited_to_groups,
    scores_by_sigmoid,
)
from moesim.routing.gate import route as route_gate
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class SwitchParameters(GateParameters):
    """Those of the gate, and `jitter`, 0 at inference and 0.01 in the reference's training."""

    jitter: float = 0.0


def route(
    logits: NDArray[np.float32], top_k: int, parameters: SwitchParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """Top-1 of logits [T, E]; weight = softmax probability of the chosen expert."""
    if parameters.jitter > 0:
        logits = logits.copy()
        _jitter(draw.seed, draw.step, draw.layer, draw.first_token, parameters.jitter, logits)
    return route_gate(logits, top_k, parameters, state, draw)


@njit
def _jitter(seed: int, step: int, layer: int, first: int, jitter: float, logits: NDArray[np.float32]) -> None:
    for t in range(logits.shape[0]):
        word = key(seed, JITTER, step, layer, first + t)
        for e in range(logits.shape[1]):
            logits[t, e] *= np.float32(1.0 + jitter * (2.0 * uniform(word, e) - 1.0))


def check(n_experts: int, top_k: int, parameters: SwitchParameters) -> None:
    """Switch is top-1."""
    if top_k != 1:
        raise ParameterError("top_k", top_k, "1, as switch sends a token to one expert")
    if not 0 <= parameters.jitter < 1:
        raise ParameterError("jitter", parameters.jitter, "0 or more and below 1")
    check_gate(n_experts, top_k, parameters)


STRATEGY = Strategy(
    name="switch",
    route=route,
    parameters=SwitchParameters,
    check=check,
    takes_bias=True,
    order_only=lambda parameters: parameters.jitter == 0 and compares_logits(parameters),
    by_sigmoid=scores_by_sigmoid,
    groups=kept_groups,
    with_groups=limited_to_groups,
)
