"""MoE++: top-2 with experts that compute nothing, one of which also outputs nothing.

Jin et al. 2024, section 3; `gating` of SkyworkAI/MoE-plus-plus. The last
`n_zero_experts` of the logits are zero-computation experts: constant and copy
ones, and as the very last the zero expert. Gates are the softmax over all; that
of the zero expert becomes 0 (but not with `moe_use_mixtral_gating`), then the
two are divided by their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.routing.gate import top_k_softmax
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class MoePlusPlusParameters:
    """`n_zero_experts`: 4 in the paper, of which 2 constant, 1 copy and 1 zero."""

    n_zero_experts: int = 4
    moe_use_mixtral_gating: bool = False


def route(
    logits: NDArray[np.float32],
    top_k: int,
    parameters: MoePlusPlusParameters,
    state: NDArray[np.float32] | None,
    draw: Draw,
) -> Assignment:
    """Top-2 of logits [T, E + n_zero_experts]."""
    expert, weight = top_k_softmax(logits, top_k)
    if not parameters.moe_use_mixtral_gating:
        weight[expert == logits.shape[1] - 1] = 0.0
    total = weight.sum(axis=1, keepdims=True)  # 0 where all probability is the zero expert's
    return Assignment.of(expert, np.divide(weight, total, out=weight, where=total > 0))


def check(n_experts: int, top_k: int, parameters: MoePlusPlusParameters) -> None:
    """MoE++ is top-2, so that the sum of the gates is never 0."""
    if top_k != 2:
        raise ParameterError("top_k", top_k, "2, as moe-plus-plus sends a token to two experts")
    if not 1 <= parameters.n_zero_experts < n_experts:
        raise ParameterError("n_zero_experts", parameters.n_zero_experts, f"1 to {n_experts - 1} of the logits")


STRATEGY = Strategy(
    name="moe-plus-plus",
    route=route,
    parameters=MoePlusPlusParameters,
    zero_experts=lambda parameters: parameters.n_zero_experts,
    check=check,
)
