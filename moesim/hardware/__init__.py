"""How long each part of a step takes, and whether it fits.

In: a model's shape, a cluster, data types, tokens by GPU and by expert slot.
Out: Durations in seconds, the rates of the ports in picoseconds, bytes of
memory. Rooflines with constants fitted on H100 kernels (`constants`); pure
functions over arrays, no state.
"""

from moesim.hardware.constants import PROVENANCE
from moesim.hardware.durations import Durations, step_durations
from moesim.hardware.expert import expert_seconds
from moesim.hardware.memory import check_memory, memory_bytes, parameters
from moesim.hardware.network import exchange_rates, payload_bytes
from moesim.hardware.predict import predict_table

__all__ = [
    "PROVENANCE",
    "Durations",
    "check_memory",
    "exchange_rates",
    "expert_seconds",
    "memory_bytes",
    "parameters",
    "payload_bytes",
    "predict_table",
    "step_durations",
]
