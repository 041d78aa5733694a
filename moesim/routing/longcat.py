"""LongCat-Flash: softmax top-k whose last experts compute nothing.

Meituan 2025, LongCat-Flash, section 2.1; HF `LongcatFlashTopkRouter`. The
router scores the model's experts and, behind them, `n_zero_experts` identity
ones: p = softmax over all of these; the top k of p + bias; weights p times
`routed_scaling_factor`, not normalised. A token that chooses identity experts
costs less; they hold no weights and take no traffic. The bias is what training
moves to hold the mean number of computing experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from moesim.routing.gate import GateParameters, check_gate, kept_groups, limited_to_groups, route, scores_by_sigmoid
from moesim.routing.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class LongCatParameters(GateParameters):
    """Those of the gate, and `n_zero_experts`; LongCat-Flash has 512 + 256 experts, top-12 and a factor of 6."""

    n_zero_experts: int = 0


STRATEGY = Strategy(
    name="longcat",
    route=route,
    parameters=LongCatParameters,
    takes_bias=True,
    zero_experts=lambda parameters: parameters.n_zero_experts,
    by_sigmoid=scores_by_sigmoid,
    groups=kept_groups,
    with_groups=limited_to_groups,
    check=check_gate,
)
