"""The attention kernel of new tokens over the cache: one unit of work for each request and KV head.

    launch + overlap(waves of units, cache bytes / bandwidth)

A unit walks over the cached tokens of its head at the pace of one SM. Where
there are fewer units than SMs it may be split over several, at the price of a
second kernel that adds the parts; the best split is taken. The first units of
an SM wait for their own bytes, later ones while those of others arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants.fitted import POSITIVE, fitted
from moesim.hardware.gpu import peak_flops, stream_seconds
from moesim.hardware.p_norm import p_norm
from moesim.types import GpuSpec

Array = NDArray[np.float64]
Numbers = NDArray[Any] | float

MAX_SPLITS = 128
MIN_SPLIT_TOKENS = 128
_HEAD_WIDTH = 128.0
_WIDE_BYTES = 2.0
_COMPUTE = "bf16"
_MIN_UNITS = 1e-12


@dataclass(frozen=True, kw_only=True)
class DecodeConstants:
    """Constants of one kernel and data type of the cache.

    A launch takes `launch_s`. On an SM that many units share, a unit takes
    `unit_s` and `unit_head_s` for each of its query heads, `byte_s` for each
    cached byte, and `token_head_s` for each cached token and query head of 128
    elements. Where units are so few that none hides another's latency, a unit
    takes `alone_s` and `alone_byte_s` instead of `unit_s` and `byte_s`. Adding
    the parts of split units takes `split_s`. Where `per_query_head` is 1, every
    query head is a unit of its own.

    Bytes move at `bandwidth_share` of the published bandwidth, and
    `cache_speedup` times faster from the L2 cache. Queries and outputs are moved
    `query_passes` times. Beyond a window `window_tokens` more are read. The
    first `exposed_units` units of an SM hide no bytes, later ones overlap with
    them by the p-norm of `norm`.
    """

    launch_s: float = field(metadata=fitted(8e-6, 2e-6, 3e-5))
    unit_s: float = field(metadata=fitted(2e-6, 1e-8, 5e-5))
    unit_head_s: float = field(metadata=fitted(2e-8, 1e-10, 5e-6))
    byte_s: float = field(metadata=fitted(4e-11, 1e-13, 5e-9))
    token_head_s: float = field(metadata=fitted(5e-11, 1e-13, 2e-8))
    alone_s: float = field(metadata=fitted(1e-6, 1e-8, 3e-5))
    alone_byte_s: float = field(metadata=fitted(4e-11, 1e-13, 5e-9))
    split_s: float = field(metadata=fitted(3e-6, 1e-8, 5e-5))
    # further tokens of the largest caches, 1.5 GB and more, come at 0.91 to 0.96 of the published bandwidth
    bandwidth_share: float = field(metadata=fitted(0.92, 0.3, 0.95, POSITIVE))
    cache_speedup: float = field(metadata=fitted(1.5, 1.0, 4.0, POSITIVE))
    window_tokens: float = field(metadata=fitted(32.0, 1.0, 1e5))
    query_passes: float = field(metadata=fitted(1.0, 0.01, 20.0))
    per_query_head: float = field(metadata=fitted(0.0, 0.0, 1.0))
    norm: float = field(metadata=fitted(3.0, 1.0, 10.0, POSITIVE))
    exposed_units: float = field(default=0.0, metadata=fitted(4.0, 0.01, 100.0))


def decode_seconds(
    constants: DecodeConstants,
    gpu: GpuSpec,
    *,
    requests: Numbers,
    context_tokens: Numbers,
    heads: Numbers,
    kv_heads: Numbers,
    head_width: Numbers,
    cache_bytes: Numbers,
    window: Numbers = 0.0,
    longest_tokens: Numbers | None = None,
    replayed: bool = False,
) -> Array:
    """Seconds of the attention of one new token of each request; no requests take no time.

    Args:
        constants: constants of the kernel.
        gpu: its bandwidth and SMs.
        requests: number of requests.
        context_tokens: tokens of each whose keys and values are read; their mean where requests differ.
        heads: query heads.
        kv_heads: heads of keys and values.
        head_width: elements of a key and of a value.
        cache_bytes: bytes of a cached element.
        window: tokens that are read at most, 0 for all; only where requests are equal.
        longest_tokens: those of the longest request; by default all are as long.
        replayed: timed again and again, so that a small cache stays in the L2 cache; in a step it is read from memory.
    """
    c = constants
    n, context, heads, kv_heads, width, each, window = (
        np.asarray(x, dtype=np.float64)
        for x in (requests, context_tokens, heads, kv_heads, head_width, cache_bytes, window)
    )
    context = read_tokens(context, window, c.window_tokens)
    longest = context if longest_tokens is None else np.asarray(longest_tokens, dtype=np.float64)
    share = heads / kv_heads
    cached = 2 * width * each
    head_s, token_head_s = c.unit_head_s * share, c.token_head_s * share * width / _HEAD_WIDTH
    units = n * (heads if c.per_query_head else kv_heads)
    working = split_seconds(
        gpu,
        units,
        context,
        longest,
        together=(c.unit_s + head_s, c.byte_s * cached + token_head_s),
        alone=(c.alone_s + head_s, c.alone_byte_s * cached + token_head_s),
        split_s=c.split_s,
    )
    read = cached * n * context * kv_heads
    moved = read + c.query_passes * 2 * n * width * heads * _WIDE_BYTES
    stream = stream_seconds(gpu, moved, c.bandwidth_share, c.cache_speedup, 0.0 if replayed else read)
    exposed = np.minimum(1.0, c.exposed_units * gpu.n_sms / np.maximum(units, _MIN_UNITS))
    together = exposed * (working + stream) + (1.0 - exposed) * p_norm(working, stream, c.norm)
    multiplied = 4 * n * context * heads * width / peak_flops(gpu, _COMPUTE)
    return np.asarray(np.where(n > 0, c.launch_s + np.maximum(together, multiplied), 0.0))


def read_tokens(context_tokens: Numbers, window: Numbers, beyond: float) -> Array:
    """Tokens of the cache that a kernel reads: a window, with `beyond` tokens of blocks that it cuts, or all."""
    context, window = np.asarray(context_tokens, dtype=np.float64), np.asarray(window, dtype=np.float64)
    binds = (window > 0) & (window < context)
    return np.asarray(np.where(binds, np.minimum(context, window + beyond), context))


def split_seconds(
    gpu: GpuSpec,
    units: Array,
    tokens: Array,
    longest: Array,
    *,
    together: tuple[Numbers, Numbers],
    alone: tuple[Numbers, Numbers],
    split_s: float,
) -> Array:
    """Seconds of units over the SMs with the best split of their tokens.

    Units have `tokens` in the mean and `longest` at most. They stay whole, or
    are cut into a power of two of parts, of which none takes less than
    MIN_SPLIT_TOKENS tokens would. `together` are the seconds of a unit and of each
    of its tokens where many units share the SMs, `alone` those of a unit that has
    an SM to itself. More parts cost each unit more, so that a batch is never
    slower than the parts that it is cut into.
    """
    best = np.maximum(units / gpu.n_sms * (together[0] + tokens * together[1]), alone[0] + longest * alone[1])
    parts = 2
    while parts <= MAX_SPLITS:
        spread = units / gpu.n_sms * (parts * together[0] + tokens * together[1])
        slowest = alone[0] + np.maximum(longest / parts, MIN_SPLIT_TOKENS) * alone[1]
        split = np.maximum(spread, slowest) + split_s
        best = np.minimum(best, split)
        parts *= 2
    return np.asarray(best)
