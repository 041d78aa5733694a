"""Speed of the expert kernel: python -m tests.benchmarks.experts.

1,000,000 predictions of 256 experts each, in batches that a processor's cache
holds, on one thread, against the same formula in plain NumPy in the same run. Processor time, so that
others on the machine do not matter; the goal is one second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

from moesim.hardware import ExpertKernel, ExpertShape
from moesim.hardware.expert import Load, expert_time, tokens_per_row

PREDICTIONS, EXPERTS, BATCH = 1_000_000, 256, 10_000
SHAPE = ExpertShape(hidden_size=7168, inner_size=2048, n_experts=EXPERTS, top_k=8)
KERNEL = ExpertKernel.from_preset("sglang-deepep-fp8")


def compiled(loads: np.ndarray) -> np.ndarray:
    """As a user calls it."""
    return KERNEL.time(loads, SHAPE, mean_load=32)


def plain(loads: np.ndarray) -> np.ndarray:
    """The same with NumPy's own sums over the loads."""
    tile = int(KERNEL.constants.tile_high)
    tiles = -(-loads // tile)
    active, rows = (loads > 0).sum(axis=1), loads.sum(axis=1)
    load = Load(
        active=active,
        rows=rows,
        padded=tiles.sum(axis=1) * tile,
        extra_tiles=tiles.sum(axis=1) - active,
        max_load=loads.max(axis=1),
    )
    return expert_time(load, SHAPE, rows * tokens_per_row(SHAPE), KERNEL.gpu, KERNEL.dtype, KERNEL.constants)


def seconds(predict: Callable[[np.ndarray], np.ndarray], loads: np.ndarray) -> float:
    """The best of three runs of all predictions."""
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        for _ in range(PREDICTIONS // BATCH):
            predict(loads)
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    """Check that both agree, then print both times."""
    loads = np.random.default_rng(0).poisson(32, (BATCH, EXPERTS)).astype(np.int64)
    assert np.allclose(compiled(loads), plain(loads), rtol=1e-12)
    ours, theirs = seconds(compiled, loads), seconds(plain, loads)
    print(f"1,000,000 predictions of 256 experts: {ours:.2f} s (goal 1 s), NumPy {theirs:.2f} s, {theirs / ours:.1f}x")


if __name__ == "__main__":
    main()
