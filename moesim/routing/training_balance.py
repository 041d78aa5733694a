"""How a router changes over a run of steps: what balances it, and what makes it collapse.

A layer carries two vectors over its experts. `bias` moves by the loss-free
rule (Wang et al. 2024; DeepSeek-V3, section 2.1.2) and acts on the selection
only. `shift` is added to the logits and stands for what training does to an
expert's popularity. Per step, in units of `learning_rate`:

    shift += feedback_gain * d  -  shift  -  pressure

with d = E * share of the load - 1. The first term is the feedback by which the
rich get richer: an expert that is asked more learns more. The second is the
language-model loss, which holds each expert near the popularity that the
workload gives it. The third is the auxiliary loss: its gradient with respect
to the expert's logit, E P (E f - E sum f P), for the shares f of the load and
P of the router's probability, times PRESSURE for a coefficient of 1e-3.

Two of the three constants are conventions: only the difference of pressure and
gain can be read from a published imbalance. PRESSURE is 4, and FEEDBACK_GAIN
follows from one row of Wang et al. 2024, table 2 (auxiliary loss, 1B model:
MaxVio 0.72); tests/validation/balancing_dynamics.py fits it and predicts the others.
The model says nothing about quality, what experts learn, or real optimisers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.exponential import largest, sigmoid, softmax, total
from moesim.compiled.jit import njit

PRESSURE, PRESSURE_COEFFICIENT = 4.0, 1e-3
FEEDBACK_GAIN = 3.9


def updated_bias(
    bias: NDArray[np.float32], load: NDArray[np.int64], *, step_size: float, rule: str
) -> NDArray[np.float32]:
    """The selection bias [E] after a step with this load [E].

    "sign": bias + step_size * sign(mean - load), sign(0) = 0, as Megatron's
    `get_updated_expert_bias`; "proportional": bias + step_size * (mean - load) / mean.
    """
    error = load.mean() - load
    move = np.sign(error) if rule == "sign" else error / max(1.0, float(load.mean()))
    return np.asarray(bias + (step_size * move).astype(np.float32), dtype=np.float32)


def auxiliary_loss(
    load: NDArray[np.int64], probability: NDArray[np.float64], *, scope: str
) -> tuple[float, NDArray[np.float64]]:
    """The loss E sum f P, 1 at balance, and the pressure E P (E f - E sum f P) [E].

    Args:
        load: [R, E] assignments of each source rank.
        probability: [R, E] sums over tokens of the router's probabilities, which sum to 1 for a token.
        scope: "global-batch" takes f and P over all tokens, "micro-batch" of each rank, and the mean over ranks.
    """
    if scope == "global-batch":
        load, probability = load.sum(axis=0, keepdims=True), probability.sum(axis=0, keepdims=True)
    n_experts = load.shape[1]
    f = load / np.maximum(load.sum(axis=1, keepdims=True), 1)
    p = probability / np.maximum(probability.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    loss = n_experts * (f * p).sum(axis=1, keepdims=True)
    pressure = n_experts * p * (n_experts * f - loss)
    return float(loss.mean()), np.asarray(pressure.mean(axis=0))


def updated_shift(
    shift: NDArray[np.float32],
    load: NDArray[np.int64],
    pressure: NDArray[np.float64],
    *,
    feedback_gain: float,
    coefficient: float,
    learning_rate: float,
) -> NDArray[np.float32]:
    """The popularity shift [E] after a step with this load [E]; a coefficient of 0 is no auxiliary loss."""
    excess = len(load) * load / max(1, int(load.sum())) - 1.0
    force = feedback_gain * excess - shift - PRESSURE / PRESSURE_COEFFICIENT * coefficient * pressure
    return (shift + learning_rate * force).astype(np.float32)


def add_statistics(
    logits: NDArray[np.float32],
    source: NDArray[np.int32],
    *,
    by_sigmoid: bool,
    probability: NDArray[np.float64],
) -> float:
    """Add the probabilities of tokens to those of their ranks [R, E] and return the sum of squared logsumexp.

    A sigmoid router's probabilities are its sigmoids over their sum (Megatron).
    """
    return float(_add_statistics(logits, source, by_sigmoid, probability))


@njit
def _add_statistics(
    logits: NDArray[np.float32],
    source: NDArray[np.int32],
    by_sigmoid: bool,
    probability: NDArray[np.float64],
) -> float:
    n_experts = logits.shape[1]
    score, power = np.empty(n_experts, dtype=np.float32), np.empty(n_experts, dtype=np.int32)
    scale = power.view(np.float32)
    no_bias, unused = np.zeros(n_experts, dtype=np.float32), np.empty(n_experts, dtype=np.float32)
    squares = 0.0
    for t in range(logits.shape[0]):
        peak = largest(logits, t)
        whole = softmax(logits, t, peak, score, power, scale)
        squares += (float(peak) + np.log(float(whole))) ** 2
        if by_sigmoid:
            sigmoid(logits, t, no_bias, score, unused, power, scale)
            whole = max(total(score), np.float32(1e-20))
        rank = source[t]
        for e in range(n_experts):
            probability[rank, e] += score[e] / whole
    return squares
