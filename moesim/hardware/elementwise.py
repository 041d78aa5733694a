"""Kernels that pass over memory once: norms, sums, activations, quantisation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants.fitted import POSITIVE, fitted
from moesim.hardware.gpu import stream_seconds
from moesim.types import GpuSpec


@dataclass(frozen=True, kw_only=True)
class ElementwiseConstants:
    """`launch_s`; `row_s`: of each row, a block of threads; `bandwidth_share`; `cache_speedup`: in the L2 cache."""

    launch_s: float = field(metadata=fitted(2e-6, 5e-7, 2e-5))
    row_s: float = field(metadata=fitted(1e-10, 1e-13, 2e-8))
    bandwidth_share: float = field(metadata=fitted(0.8, 0.02, 1.1, POSITIVE))
    cache_speedup: float = field(metadata=fitted(2.0, 1.0, 8.0, POSITIVE))


def pass_seconds(
    constants: ElementwiseConstants,
    gpu: GpuSpec,
    rows: NDArray[np.float64] | NDArray[np.int64],
    bytes_per_row: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Seconds of one pass over `rows` rows of so many bytes, read and written together; no rows take no time."""
    rows = np.asarray(rows, dtype=np.float64)
    stream = stream_seconds(gpu, rows * bytes_per_row, constants.bandwidth_share, constants.cache_speedup)
    return np.asarray(np.where(rows > 0, constants.launch_s + constants.row_s * rows + stream, 0.0))
