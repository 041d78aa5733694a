"""The summary of a run: the keys that scripts rely on (README, "Summary keys")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moesim import metrics
from moesim.hardware import parameter_count
from moesim.types import CAUSES, LEVELS, PARTS, ModelShape, QueueTotals

PS = 1e-12


@dataclass(frozen=True, kw_only=True)
class StepTotals:
    """Exact sums of one step; times in picoseconds, `parts_ps` summed over the GPUs, the rest per MoE layer [L]."""

    step_ps: int
    even_ps: int
    parts_ps: NDArray[np.int64]
    critical_ps: NDArray[np.int64]
    tokens: int
    bytes: NDArray[np.int64]
    """Over each level of the network."""
    requested: NDArray[np.int64]
    dropped: NDArray[np.int64]
    rerouted: NDArray[np.int64]
    lost_tokens: NDArray[np.int64]
    unrouted_tokens: NDArray[np.int64]
    recorded_tokens: NDArray[np.int64] | None
    causes: NDArray[np.int64]
    zero_choices: NDArray[np.int64]
    processed_violation: NDArray[np.float64]
    requested_balancedness: NDArray[np.float64]
    events: int
    queues: QueueTotals | None = None
    uplinks_ps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    """How long the busiest uplink of each level but the last carries."""

    @property
    def known_tokens(self) -> NDArray[np.int64]:
        """Tokens with known choices in each layer, [L]: all of them, or those that the recording holds."""
        everyone = np.full(len(self.requested), self.tokens, dtype=np.int64)
        return everyone if self.recorded_tokens is None else self.recorded_tokens


def work_of(scenario: Mapping[str, Any], model: ModelShape) -> dict[str, int | None]:
    """What a step of a resolved scenario has to do in addition to its tokens and GPUs."""
    workload = scenario["workload"]
    decodes = workload["phase"] == "decode"
    return {
        "context_tokens": workload["context_tokens"] if decodes else None,
        "sequence_tokens": None if decodes else workload["sequence_tokens"],
        "layers": model.n_layers,
        "parameters": parameter_count(model)["total"],
        "top_k": scenario["model"]["top_k"],  # the model's own: another one is a matter of routing
    }


def summarise(
    totals: Sequence[StepTotals],
    layers: pd.DataFrame,
    *,
    n_gpus: int,
    work: Mapping[str, int | None],
    levels: tuple[str, ...] = LEVELS,
) -> dict[str, Any]:
    """One number a key; scalars without a suffix are means over (step, layer), absent values None.

    Args:
        totals: of each step.
        layers: the frame.
        n_gpus: of the cluster.
        work: of a step, as `work_of` says.
        levels: names of the levels of the network.
    """
    n_steps = len(totals)
    step_ps = np.array([total.step_ps for total in totals], dtype=np.int64)
    parts = _long_sum_of(totals, "parts_ps") / (n_gpus * n_steps) * PS
    critical = _long_sum_of(totals, "critical_ps") / n_steps * PS
    tokens = sum(total.tokens for total in totals)
    carried = sum_of(totals, "bytes") / n_steps
    requested = np.concatenate([total.requested for total in totals])
    dropped = np.concatenate([total.dropped for total in totals])
    rerouted = np.concatenate([total.rerouted for total in totals])
    known = np.concatenate([total.known_tokens for total in totals])
    unserved = np.concatenate([total.lost_tokens + total.unrouted_tokens for total in totals])
    unrouted = np.concatenate([total.unrouted_tokens for total in totals])
    causes = np.concatenate([total.causes for total in totals])
    processed = np.concatenate([total.processed_violation for total in totals])[known > 0]
    asked = np.concatenate([total.requested_balancedness for total in totals])[known > 0]
    zero = np.concatenate([total.zero_choices for total in totals])
    simulated = int(step_ps.sum()) * PS
    return {
        "step_time_s": _spread(step_ps * PS),
        "breakdown_s": {part: float(parts[i]) for i, part in enumerate(PARTS)},
        # a wait only where a GPU was lost, until that was noticed
        "critical_path_s": {p: float(critical[i]) for i, p in enumerate(PARTS) if p != "wait" or critical[i] > 0},
        "imbalance_penalty": metrics.imbalance_penalty(
            [total.step_ps for total in totals], [total.even_ps for total in totals]
        ),
        "balancedness": {
            "mean": _mean(layers["balancedness"]),
            "min": _min(layers["balancedness"]),
        },
        "balancedness_requested": {
            "mean": _mean(asked),
            "min": float(asked.min()) if len(asked) else None,
        },
        "max_violation": {
            "mean": _mean(layers["max_violation"]),
            "max": _max(layers["max_violation"]),
        },
        "max_violation_processed": {
            "mean": _mean(processed),
            "max": float(processed.max()) if len(processed) else None,
        },
        "load_cv": _mean(layers["cv"]),
        "load_entropy": _mean(layers["entropy"]),
        "dead_experts": _mean(layers["dead_experts"]),
        "drop_rate": metrics.mean_rate(dropped, requested),
        "token_drop_rate": metrics.mean_rate(unserved, known),
        "unrouted_token_rate": metrics.mean_rate(unrouted, known),
        "reroute_rate": metrics.mean_rate(rerouted, requested),
        "by_cause": {text: metrics.mean_rate(causes[:, cause], requested) for cause, text in CAUSES.items() if cause},
        "zero_computation_rate": metrics.mean_rate(zero, requested + zero) if zero.any() else None,
        "queue": _queues(totals),
        "bytes": dict(zip(LEVELS, (float(carried[0]), float(carried[1:].sum())), strict=True)),
        "bytes_by_level": dict(zip(levels, carried.tolist(), strict=True)) if levels != LEVELS else {},
        **_uplinks(totals, levels),
        "tokens_per_s_per_gpu": tokens / simulated / n_gpus if simulated else None,
        "work": {"tokens_per_step": tokens / n_steps, "gpus": n_gpus, **work},
        "simulated_s": simulated,
        "n_steps": n_steps,
        "moe_layers": len(totals[0].requested),
        "recorded_layers": _recorded_layers(totals),
    }


def _uplinks(totals: Sequence[StepTotals], levels: tuple[str, ...]) -> dict[str, Any]:
    """The part of the time for which the busiest shared uplink carries copies, and by level where any can fill."""
    busy, time = sum_of(totals, "uplinks_ps"), sum(total.step_ps for total in totals)
    if not busy.any() or not time:
        return {"uplink_busy": None, "uplink_busy_by_level": {}}
    shares = {level: float(ps / time) for level, ps in zip(levels, busy, strict=False) if ps}
    return {"uplink_busy": max(shares.values()), "uplink_busy_by_level": shares}


def _recorded_layers(totals: Sequence[StepTotals]) -> int | None:
    """Layers of which a recording holds anything; None where the tokens are drawn."""
    recorded = [total.recorded_tokens for total in totals if total.recorded_tokens is not None]
    return int(np.count_nonzero(np.sum(recorded, axis=0))) if recorded else None


def _queues(totals: Sequence[StepTotals]) -> dict[str, float | int | None]:
    """Waits of tokens in the queues of experts, and the longest queue; None where there are none."""
    queues = [total.queues for total in totals if total.queues is not None]
    if not queues:
        return dict.fromkeys(("wait_mean_s", "wait_max_s", "tokens_max"))
    tokens = sum(own.tokens for own in queues)
    return {
        "wait_mean_s": sum(own.wait_ps for own in queues) / max(1, tokens) * PS,
        "wait_max_s": max(own.longest_wait_ps for own in queues) * PS,
        "tokens_max": max(own.longest_queue for own in queues),
    }


def sum_of(totals: Sequence[StepTotals], name: str) -> NDArray[np.int64]:
    """Exact sum of an array over the steps."""
    return np.asarray(np.sum([getattr(total, name) for total in totals], axis=0), dtype=np.int64)


def _long_sum_of(totals: Sequence[StepTotals], name: str) -> NDArray[np.float64]:
    """The same of picoseconds, which of many steps and GPUs are more than 64 bits count."""
    each = np.array([getattr(total, name) for total in totals], dtype=object)
    return np.asarray(each.sum(axis=0), dtype=np.float64)


def _spread(values: NDArray[np.floating]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "mean": float(values.mean()),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(values.max()),
    }


def _mean(values: pd.Series[Any] | NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _min(values: pd.Series[Any]) -> float | None:
    return float(values.min()) if len(values) else None


def _max(values: pd.Series[Any]) -> float | None:
    return float(values.max()) if len(values) else None
