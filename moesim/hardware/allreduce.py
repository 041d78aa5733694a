"""All-reduce inside a node as serving frameworks do it: kernels of their own for small messages, NCCL for large ones.

One-shot: every GPU reads the whole message of all others. Two-shot: each
reduces its part and gathers those of the others; less to read, one more
barrier. The faster is taken up to a size, then NCCL, whose bandwidth grows
with the GPUs as its switches help. Bandwidths are shares of the links' published one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.collectives import links
from moesim.hardware.constants.fitted import POSITIVE, fitted
from moesim.hardware.gpu import memory_bandwidth
from moesim.types import GpuSpec

Array = NDArray[np.float64]
Numbers = NDArray[Any] | float

_FEW, _MANY = 2.0, 8.0
_SHORTEST_S = 1e-12


@dataclass(frozen=True, kw_only=True)
class AllReduceConstants:
    """Constants of one framework.

    A barrier takes `launch_s`, and `hop_s` for each GPU beyond two; the second of
    two shots takes `second_s` more. One-shot reaches `one_share` of the links'
    bandwidth and reads up to `most_read_bytes`, two-shot reaches `two_share` at 8
    GPUs, growing as GPUs^`two_width`, and takes messages up to `most_bytes`. NCCL
    takes larger ones: it starts after `nccl_s`, and `nccl_hop_s` for each GPU
    beyond two, fills its pipeline in `nccl_fill_s`, and reaches `nccl_share` of the
    bandwidth at 2 GPUs and `nccl_wide_share` at 8. Every message is copied in memory
    `copies` times as well, and the host needs `floor_s` at least.
    """

    launch_s: float = field(metadata=fitted(3e-6, 1e-6, 2e-5))
    hop_s: float = field(metadata=fitted(1e-7, 1e-9, 5e-6))
    second_s: float = field(metadata=fitted(2e-6, 1e-8, 2e-5))
    one_share: float = field(metadata=fitted(0.65, 0.1, 1.0, POSITIVE))
    two_share: float = field(metadata=fitted(0.7, 0.1, 1.0, POSITIVE))
    two_width: float = field(metadata=fitted(0.3, 0.01, 0.6))
    most_bytes: float = field(metadata=fitted(2.0**24, 1.0, 2.0**40))
    most_read_bytes: float = field(metadata=fitted(2.0**40, 1.0, 2.0**40))
    nccl_s: float = field(metadata=fitted(1e-5, 1e-6, 1e-4))
    nccl_hop_s: float = field(metadata=fitted(1e-6, 1e-9, 2e-5))
    nccl_fill_s: float = field(metadata=fitted(7e-5, 1e-6, 3e-4))
    nccl_share: float = field(metadata=fitted(0.7, 0.1, 1.0, POSITIVE))
    nccl_wide_share: float = field(metadata=fitted(1.0, 0.1, 1.2, POSITIVE))
    copies: float = field(metadata=fitted(1.0, 0.01, 5.0))
    floor_s: float = field(metadata=fitted(2e-5, 1e-6, 1e-4))


def allreduce_seconds(c: AllReduceConstants, gpu: GpuSpec, *, gpus: Numbers, message: Numbers) -> Array:
    """Seconds to sum `message` bytes over `gpus` GPUs of a node; nothing to sum takes no time, nor does one GPU.

    Args:
        c: constants of the framework.
        gpu: its links and memory.
        gpus: number of GPUs that hold a part of the sum.
        message: bytes of each of them.
    """
    gpus, message = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (gpus, message)))
    within, _ = links(gpu)
    extra_tiles, turns = gpus - _FEW, 2.0 * (gpus - 1) / gpus
    barrier = c.launch_s + c.hop_s * extra_tiles
    reads = c.most_read_bytes / np.maximum(gpus - 1, 1.0)
    own = np.minimum(message, np.maximum(reads, c.most_bytes))
    one = barrier + (gpus - 1) * own / (c.one_share * within)
    width = np.float_power(gpus / _MANY, c.two_width)
    two = barrier + c.second_s + c.hop_s * extra_tiles + turns * own / (c.two_share * width * within)
    kernel = np.minimum(np.where(own <= reads, one, np.inf), np.where(own <= c.most_bytes, two, np.inf))
    # what is known of 2 and 8 GPUs, and on a straight line between them
    share = np.interp(gpus, (_FEW, _MANY), (c.nccl_share, c.nccl_wide_share))
    start = c.nccl_s + c.nccl_hop_s * np.clip(extra_tiles, 0.0, _MANY - _FEW)
    wire = turns * message / (share * within)
    nccl = start + wire + wire * c.nccl_fill_s / np.maximum(wire + c.nccl_fill_s, _SHORTEST_S)
    seconds = np.where(message <= own, kernel, np.maximum(kernel, nccl))
    seconds = seconds + c.copies * 2.0 * message / memory_bandwidth(gpu)
    return np.asarray(np.where((gpus > 1) & (message > 0), np.maximum(seconds, c.floor_s), 0.0))
