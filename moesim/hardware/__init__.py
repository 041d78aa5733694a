"""How long each part of a step takes, and whether it fits.

In: a model's shape, a cluster, data types, tokens by GPU and by expert slot.
Out: Durations in seconds, the rates of the ports in picoseconds, bytes of
memory. Rooflines with constants fitted on H100 kernels (`constants`), which
families of kernels name (`families`), or measured tables (`measured`), which
keep what was looked up in them; all else are pure functions over arrays.
"""

from moesim.hardware.durations import Durations, step_durations
from moesim.hardware.expert import ExpertKernel, ExpertShape, calibrated_gpu, expert_seconds
from moesim.hardware.families import (
    Family,
    calibrated_families,
    check_family,
    default_family,
    expert_kernel,
    families,
    family_of,
    provenance,
)
from moesim.hardware.memory import check_memory, memory_bytes, parameters
from moesim.hardware.network import ExchangeLoad, exchange_rates, fitted_group
from moesim.hardware.predict import predict_table
from moesim.hardware.shape import payload_bytes

__all__ = [
    "Durations",
    "ExchangeLoad",
    "ExpertKernel",
    "ExpertShape",
    "Family",
    "calibrated_families",
    "calibrated_gpu",
    "check_family",
    "check_memory",
    "default_family",
    "exchange_rates",
    "expert_kernel",
    "expert_seconds",
    "families",
    "family_of",
    "fitted_group",
    "memory_bytes",
    "parameters",
    "payload_bytes",
    "predict_table",
    "provenance",
    "step_durations",
]
