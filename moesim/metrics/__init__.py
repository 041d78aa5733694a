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
    normalised_entropy,
)
from moesim.metrics.conservation import check_conservation
from moesim.metrics.latency import breakdown, critical_path
from moesim.metrics.traffic import gpu_bytes, link_bytes, link_messages

__all__ = [
    "balancedness",
    "breakdown",
    "check_conservation",
    "critical_path",
    "cv",
    "dead_experts",
    "gini",
    "gpu_bytes",
    "link_bytes",
    "link_messages",
    "max_violation",
    "normalised_entropy",
]
