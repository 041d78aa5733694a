"""Sinkhorn: the choice is made on a matrix whose experts have equal sums.

Clark et al. 2022, section 3.1.1; Megatron `sinkhorn` and
`sinkhorn_load_balancing`. With K = exp(x), factors d0 of tokens and d1 of
experts are scaled in turn until the mean change of d1 is at most 1e-4; the top
k of d0 K d1 are chosen. That balances softly: the tolerance is met after a few
rounds. Weights are not those values but sigmoid(x) for top-1 and the softmax
over all experts else. `training` false is plain top-k of the logits, and the
default of scenarios whose phase is not train.

Megatron's K overflows for logits above 88. Here all are lowered so that the
largest is at most 60, which changes K by one factor only, and the choice is
made by x + ln d1, which does not underflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.routing.gate import GateParameters
from moesim.routing.gate import route as route_gate
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw

TOLERANCE, EPSILON, MAX_LOGIT = 1e-4, 1e-8, 60.0
MAX_ROUNDS = 10_000


@dataclass(frozen=True, kw_only=True)
class SinkhornParameters:
    """`training`: balance; else plain top-k, as the reference evaluates."""

    training: bool = True


def route(
    logits: NDArray[np.float32],
    top_k: int,
    parameters: SinkhornParameters,
    state: NDArray[np.float32] | None,
    draw: Draw,
) -> Assignment:
    """Route all tokens of a batch, logits [T, E]."""
    bias = None
    if parameters.training and logits.size:
        bias = np.log(expert_factors(logits)).astype(np.float32)
    score = "sigmoid-of-chosen" if top_k == 1 else "softmax"
    chosen = route_gate(logits, top_k, GateParameters(score="softmax-of-chosen"), bias, draw).expert
    weight = _weights(logits, chosen, score)
    return Assignment.of(chosen, weight)


def expert_factors(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """d1 [E], after which the experts' shares of d0 K d1 are near equal."""
    factors = np.ones(logits.shape[1])
    _scale(logits, max(0.0, float(logits.max()) - MAX_LOGIT), factors)
    return factors


def _weights(logits: NDArray[np.float32], chosen: NDArray[np.int32], score: str) -> NDArray[np.float32]:
    x = logits.astype(np.float64)
    if score == "sigmoid-of-chosen":
        with np.errstate(over="ignore"):
            p = 1 / (1 + np.exp(-np.take_along_axis(x, chosen, axis=1)))
        return np.asarray(p, dtype=np.float32)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(np.take_along_axis(e, chosen, axis=1) / e.sum(axis=1, keepdims=True), dtype=np.float32)


@njit
def _scale(logits: NDArray[np.float32], shift: float, d1: NDArray[np.float64]) -> None:
    n_tokens, n_experts = logits.shape
    cost = np.exp(logits - np.float32(shift))
    column = np.empty(n_experts)
    for _ in range(MAX_ROUNDS):
        column[:] = 0.0
        for t in range(n_tokens):
            row = 0.0
            for e in range(n_experts):
                row += d1[e] * cost[t, e]
            d0 = 1.0 / n_tokens / (row + EPSILON)
            for e in range(n_experts):
                column[e] += d0 * cost[t, e]
        change = 0.0
        for e in range(n_experts):
            new = 1.0 / n_experts / (column[e] + EPSILON)
            change += abs(d1[e] - new)
            d1[e] = new
        if change <= TOLERANCE * n_experts:
            return


STRATEGY = Strategy(
    name="sinkhorn",
    route=route,
    parameters=SinkhornParameters,
    at_inference={"training": False},
    scope="batch",
)
