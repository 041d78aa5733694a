"""What faults do to times: a GPU that is slow or stopped for a while, and jitter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit
from moesim.kernels.random import TIME_JITTER, key, normals, uniform


@njit
def task_end(start: int, work: int, gpu: int, slow: NDArray[np.float64]) -> int:
    """When a task of `work` ps ends that starts at `start` on a GPU.

    Args:
        start: picoseconds after the step's begin.
        work: picoseconds it takes at full speed.
        gpu: where it runs.
        slow: [K, 4] GPU, from, until, factor; while several hold their factors multiply; inf = it does not go on.

    Returns:
        The first whole picosecond at which all of the work is done.
    """
    if slow.shape[0] == 0 or work == 0:
        return start + work
    now, left = float(start), float(work)
    while True:
        factor, change = 1.0, math.inf
        for k in range(slow.shape[0]):
            if slow[k, 0] == gpu and slow[k, 2] > now:
                if slow[k, 1] <= now:
                    factor *= slow[k, 3]
                    change = min(change, slow[k, 2])
                else:
                    change = min(change, slow[k, 1])
        if now + left * factor <= change:
            return math.ceil(round(now + left * factor, 3))
        left -= (change - now) / factor
        now = change


@njit
def jitter(seed: int, step: int, fault: int, cv: float, lognormal: bool, out: NDArray[np.float64]) -> None:
    """Fill out [N, M] with random factors of mean 1 and a coefficient of variation, one draw for each place.

    Lognormal: exp(s z - s^2 / 2) with s^2 = ln(1 + cv^2). Exponential: 1 - cv + cv x, x exponential of mean 1.
    """
    spread = math.sqrt(math.log1p(cv * cv))
    normal = np.empty(1, dtype=np.float64)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            word = key(seed, TIME_JITTER, step, fault, i * out.shape[1] + j)
            if lognormal:
                normals(word, normal)
                out[i, j] = math.exp(spread * normal[0] - 0.5 * spread * spread)
            else:
                out[i, j] = 1.0 - cv - cv * math.log(uniform(word, 0))
