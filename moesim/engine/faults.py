"""What faults do to times: a GPU that is slow or stopped for a while, and jitter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.picoseconds import whole_picoseconds
from moesim.compiled.random import TIME_JITTER, key, normals, uniform
from moesim.errors import TooLargeError
from moesim.types import Program
from moesim.types.picoseconds import MAX_PS


def too_long(found: str) -> TooLargeError:
    """A time that picoseconds in 64 bits do not count, `found` in words."""
    return TooLargeError(
        f"{found}, wanted less than {MAX_PS / 1e12:,.0f} s for a run and for all GPUs in a step; do factors of faults "
        "multiply, and are latencies, bandwidths and peaks in their units?"
    )


def longest_ps(program: Program) -> float:
    """A time by which a program has surely ended, in floats, which do not wrap around as the engines' integers do.

    As if all tasks and all messages followed one another, each as slow as anything ever is; but what lasts
    until a known time slows nothing down after it.
    """
    tasks = float(program.duration_ps.max(axis=1, initial=0).sum(dtype=np.float64))
    copies = float(program.copies.sum(dtype=np.float64) + program.node_copies.sum(dtype=np.float64))
    messages = 0.0
    for payload in (program.dispatch, program.combine):
        ports = float(payload.out_ps.max()) + float(payload.in_ps.max()) + 2 * float(payload.uplink_ps.sum())
        messages += 2 * copies * ports
        messages += 2 * float(payload.latency_ps.sum()) * len(program.copies)
    if program.latency_ps is not None:
        messages += 2 * float(program.latency_ps.max(axis=2).sum(dtype=np.float64))
    gpus, links = program.slow_gpus, program.slow_links
    stopped = np.isinf(gpus[:, 3])
    slow, ends = gpus[~stopped], np.isfinite(gpus[:, 2])
    messages *= _most_at_once(links[:, 1] + program.n_gpus * links[:, 0], *links[:, 2:].T)
    at_worst = tasks * _most_at_once(*slow.T) + (gpus[stopped, 2] - gpus[stopped, 1]).sum()
    afterwards = tasks * _most_at_once(*gpus[~ends].T) + gpus[ends, 2].max(initial=0.0)
    return float(min(at_worst, afterwards) + messages)


def _most_at_once(
    port: NDArray[np.float64], begin: NDArray[np.float64], until: NDArray[np.float64], factor: NDArray[np.float64]
) -> float:
    """The largest product of the factors [K] that hold at one time for one GPU or port."""
    change = np.concatenate([-np.log(factor), np.log(factor)])  # what ends at a time does so before the next begins
    order = np.lexsort((change, np.concatenate([until, begin]), np.tile(port, 2)))
    return float(np.exp(np.cumsum(change[order]).max(initial=0.0)))


@njit
def task_end(start: int, work: int, gpu: int, slow: NDArray[np.float64]) -> int:
    """When a task of `work` ps ends that starts at `start` on a GPU.

    Args:
        start: picoseconds after the step's begin.
        work: picoseconds it takes at full speed.
        gpu: where it runs.
        slow: [K, 4] GPU, from, until, factor; while several hold their factors multiply; inf = it does not go on.

    Returns:
        The first whole picosecond at which all of the work is done; MAX_PS at most.
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
            return whole_picoseconds(now + left * factor)
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
