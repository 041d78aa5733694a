"""What it means: balance of loads, parts of the latency, bytes on links, and the laws that must hold.

In: loads [layers, experts], a program and its timeline. Out: numbers and
arrays, one function a metric. `conservation` raises where something was lost.
"""

from moesim.metrics.balance import (
    balancedness,
    cv,
    dead_experts,
    gini,
    max_violation,
    metric_of_target,
    normalised_entropy,
    top_share,
)
from moesim.metrics.conservation import check_step
from moesim.metrics.latency import breakdown, critical_path
from moesim.metrics.rates import imbalance_penalty, mean_rate
from moesim.metrics.step_times import later, queued_step_times, step_times
from moesim.metrics.traffic import gpu_copies, link_traffic

__all__ = [
    "balancedness",
    "breakdown",
    "check_step",
    "critical_path",
    "cv",
    "dead_experts",
    "gini",
    "gpu_copies",
    "imbalance_penalty",
    "later",
    "link_traffic",
    "max_violation",
    "mean_rate",
    "metric_of_target",
    "normalised_entropy",
    "queued_step_times",
    "step_times",
    "top_share",
]
