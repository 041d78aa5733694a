"""How long each part of a step takes, and whether it fits.

In: a model's shape, a cluster, data types, tokens by GPU and by expert slot.
Out: Durations in seconds, the rates of the ports in picoseconds, bytes of
memory. Rooflines with constants fitted on H100 kernels (`constants`), which
backends name (`backends`), or measured tables (`measured`), which keep what was
looked up in them; all else are pure functions over arrays.
"""

from moesim.hardware.backends import (
    Backend,
    backend_of,
    backends,
    calibrated_backends,
    check_backend,
    default_backend,
    expert_kernel,
    provenance,
)
from moesim.hardware.durations import Durations, step_durations
from moesim.hardware.expert import ExpertShape, calibrated_gpu
from moesim.hardware.expert_kernel import ExpertKernel, expert_seconds
from moesim.hardware.memory import check_memory, memory_bytes, part_bytes
from moesim.hardware.network import ExchangeLoad, exchange_rates, fitted_group
from moesim.hardware.parameters import parameter_count
from moesim.hardware.shape import payload_bytes
from moesim.hardware.sizes import cache_bytes

__all__ = [
    "Backend",
    "Durations",
    "ExchangeLoad",
    "ExpertKernel",
    "ExpertShape",
    "backend_of",
    "backends",
    "cache_bytes",
    "calibrated_backends",
    "calibrated_gpu",
    "check_backend",
    "check_memory",
    "default_backend",
    "exchange_rates",
    "expert_kernel",
    "expert_seconds",
    "fitted_group",
    "memory_bytes",
    "parameter_count",
    "part_bytes",
    "payload_bytes",
    "provenance",
    "step_durations",
]
