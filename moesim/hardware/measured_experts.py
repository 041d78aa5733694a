"""Experts at the level of a measured table, with the slowdown that the formula gives their actual loads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.expert import GATED, ExpertShape
from moesim.hardware.expert_kernel import ExpertKernel
from moesim.hardware.kernel_dtypes import KERNEL_DTYPES
from moesim.hardware.measured import Measured
from moesim.types import Precision

_EVEN = {"moe": "balanced", "wideep_context": "uniform", "wideep_generation": "uniform"}
"""The layouts of experts, and the even distribution of tokens in each."""
_RECEIVED_ALL = ("moe", "wideep_context")
"""The layouts whose timed rank received the tokens of all ranks, of which an exchange would deliver fewer."""
_SLOWED = "times the slowdown of the actual loads by formula"


def at_measured_level(
    seconds: NDArray[np.float64],
    measured: Measured,
    kernel: ExpertKernel,
    shape: ExpertShape,
    precision: Precision,
    *,
    tokens: int,
    inner_size: int,
    ranks: int,
    tensor_parallel: int = 1,
) -> NDArray[np.float64]:
    """Seconds of experts [L, G] by the formula, scaled to the measured level; unchanged if there is no measurement.

    Tables hold a few distributions of tokens, a run has loads of its own. So the
    table gives the level, and the formula gives the slowdown by the actual loads:

        formula(actual loads) x measured(even loads) / formula(even loads)

    with the table's curve over global tokens for the same widths, number of
    experts, choices and ranks. The denominator is the formula for what was timed:
    in `moe_*` and `wideep_context_*` the timed rank received the tokens of all
    ranks, of which an exchange would deliver only those that chose one of its
    experts. The formula accounts for the difference: none on one rank, 1 to 4 %
    of TensorRT-LLM's layers on eight, up to a quarter on 64. In
    `wideep_generation_*` the rank received what an exchange delivers.

    Args:
        seconds: of each layer and rank.
        measured: the tables.
        kernel: whose formula it is.
        shape: with which the formula was asked.
        precision: data types of weights and activations.
        tokens: that enter the layer, of all ranks together.
        inner_size: of an expert as a whole.
        ranks: that share the experts.
        tensor_parallel: GPUs that share each expert, of which `shape` has a slice.
    """
    if not tokens or not len(seconds):
        return seconds
    group = kernel.name if _same_types(kernel.name, precision) else f"{kernel.name} with {precision.weights} weights"
    if shape.matrices != GATED:
        group = f"{group} without gates"
    kind = next((kind for kind in _EVEN if kind in measured.rows and group in measured.rows[kind].groups), "moe")
    own = (shape.hidden_size, inner_size, shape.top_k, shape.n_experts, ranks, tensor_parallel)
    level = float(measured.scaled_by(_SLOWED).seconds(kind, group, own, [tokens])[0])
    if np.isnan(level):
        return seconds
    key = (kernel.name, shape, kind, tokens, ranks)
    if key not in measured.even:
        measured.even[key] = _even_seconds(kernel, shape, kind, tokens, ranks)
    return seconds / measured.even[key] * level


def _even_seconds(kernel: ExpertKernel, shape: ExpertShape, kind: str, tokens: int, ranks: int) -> float:
    """Seconds by the formula of the rank that a table of that layout timed."""
    from moesim.hardware.token_loads import token_loads  # compiled by Numba, which takes a second to import

    loads = token_loads(_EVEN[kind], tokens, shape.n_experts, shape.top_k, ranks)
    received_tokens = np.array([tokens]) if kind in _RECEIVED_ALL and ranks > 1 else None
    mean = tokens * shape.top_k / shape.n_experts
    return float(kernel.time(loads, shape, tokens=received_tokens, mean_load=mean)[0])


def _same_types(group: str, precision: Precision) -> bool:
    """Whether a group computes with the weights and activations of the scenario."""
    dtype = KERNEL_DTYPES[group.rpartition("/")[2]]
    return (dtype.weights, dtype.compute) == (precision.weights, precision.activations)
