"""The attention kernel over prompts: causal blocks dealt to the SMs, of which the longest row cannot be split.

    launch + max(all blocks / SMs, longest row) + bytes / bandwidth

A unit of work is a tile of 128 query rows of one head and request; where
kernels pack the query heads of a KV head, their rows share tiles. A unit has a
time of its own (first loads, last store), and each of its blocks of 128 keys has
one: two matrix products at a share of the peak, and the exponentials of the scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants.fitted import POSITIVE, THROTTLE, fitted
from moesim.hardware.gpu import peak_flops, stream_seconds, throttling
from moesim.types import GpuSpec

Array = NDArray[np.float64]
Numbers = NDArray[Any] | float

_BLOCK = 128
_WIDE_BYTES = 2.0


@dataclass(frozen=True, kw_only=True)
class PrefillConstants:
    """Constants of one kernel and data type.

    A launch takes `launch_s`, a tile of queries `unit_s`. Products run at
    `compute_share` of the published peak, of which the power limit takes the
    part `throttle`; each score takes an SM `score_s` more. The longest row takes
    `longest_units` unit times. Bytes move at `bandwidth_share` of the published
    bandwidth, and `cache_speedup` times faster from the L2 cache; keys and values
    are moved `kv_passes` times, queries and outputs once. A tile visits
    `window_blocks` blocks beyond a window. Where `packs` is 1, the query heads of a
    KV head share tiles.
    """

    launch_s: float = field(metadata=fitted(1e-5, 1e-6, 5e-5))
    unit_s: float = field(metadata=fitted(1e-6, 1e-9, 2e-5))
    compute_share: float = field(metadata=fitted(0.65, 0.2, 1.0, POSITIVE))
    throttle: float = field(default=0.0, metadata=THROTTLE)
    bandwidth_share: float = field(metadata=fitted(0.5, 0.1, 1.0, POSITIVE))
    # An SM of Hopper has 16 exponentials a clock, 3e-11 s each, which the products hide in part. So much is left: with
    # it heads of 64 and 128 elements, whose scores weigh twice as much in the former, reach the same share of the peak.
    score_s: float = field(metadata=fitted(2e-11, 2e-11, 2e-11))
    longest_units: float = field(metadata=fitted(1.0, 0.05, 10.0))
    kv_passes: float = field(metadata=fitted(1.0, 0.01, 20.0))
    cache_speedup: float = field(metadata=fitted(1.2, 1.0, 5.0, POSITIVE))
    window_blocks: float = field(metadata=fitted(0.3, 0.01, 8.0))
    packs: float = field(metadata=fitted(1.0, 0.0, 1.0))


def prefill_seconds(
    constants: PrefillConstants,
    gpu: GpuSpec,
    *,
    prompts: Numbers,
    prompt_tokens: Numbers,
    heads: Numbers,
    kv_heads: Numbers,
    key_width: Numbers,
    value_width: Numbers,
    compute: str,
    window: Numbers = 0.0,
    cached_tokens: Numbers = 0.0,
    sustained: bool = True,
) -> Array:
    """Seconds of causal attention of equal prompts in one launch, arguments and result [...]; see `mixed_seconds`."""
    count, tokens, cached, *_ = np.broadcast_arrays(prompts, prompt_tokens, cached_tokens, heads, kv_heads, window)
    return mixed_seconds(
        constants,
        gpu,
        prompts=count[None],
        prompt_tokens=tokens[None],
        heads=heads,
        kv_heads=kv_heads,
        key_width=key_width,
        value_width=value_width,
        compute=compute,
        window=window,
        cached_tokens=cached[None],
        sustained=sustained,
    )


def mixed_seconds(
    constants: PrefillConstants,
    gpu: GpuSpec,
    *,
    prompts: NDArray[Any],
    prompt_tokens: NDArray[Any],
    heads: Numbers,
    kv_heads: Numbers,
    key_width: Numbers,
    value_width: Numbers,
    compute: str,
    window: Numbers = 0.0,
    cached_tokens: NDArray[Any] | float = 0.0,
    sustained: bool = True,
) -> Array:
    """Seconds [...] of causal attention of prompts of W kinds in one launch; no prompts take no time.

    Args:
        constants: constants of the kernel.
        gpu: its peaks and SMs.
        prompts: number of prompts of each kind, [W, ...].
        prompt_tokens: new tokens of each, [W, ...].
        heads: query heads.
        kv_heads: heads of keys and values.
        key_width: elements of a query and of a key.
        value_width: elements of a value and of an output.
        compute: data type of the matrix products.
        window: keys that a token sees, 0 for all.
        cached_tokens: tokens of each prompt whose keys and values exist already, [W, ...].
        sustained: whether the GPU is under sustained load, at its power limit; else the kernel was timed alone.
    """
    c = constants
    count, tokens, cached, heads, kv_heads, key, value, window = (
        np.asarray(x, dtype=np.float64)
        for x in (prompts, prompt_tokens, cached_tokens, heads, kv_heads, key_width, value_width, window)
    )
    packed = (heads != kv_heads) & (c.packs > 0)
    share = np.where(packed, heads / kv_heads, 1.0)
    before = np.where((window > 0) & (window < cached), window, cached) / _BLOCK
    groups = np.where(packed, kv_heads, heads)
    block_peak_s = 2.0 * (key + value) * _BLOCK * _BLOCK / (peak_flops(gpu, compute) / gpu.n_sms)
    tiles, blocks, longest = _causal(tokens, share, window, c.window_blocks)
    visited = blocks + tiles * before
    visits = (count * groups * visited).sum(axis=0)
    slower = throttling(visits * block_peak_s / gpu.n_sms, c.throttle, sustained=sustained)
    block_s = block_peak_s / c.compute_share * slower + c.score_s * _BLOCK * _BLOCK
    present = (count > 0) & (tokens > 0)
    spread = (count * groups * (tiles * c.unit_s + visited * block_s) / gpu.n_sms).sum(axis=0)
    rows_alone = np.where(present, c.longest_units * c.unit_s + (longest + before) * block_s, 0.0)
    alone = rows_alone.max(axis=0, initial=0.0)
    rows = tokens * heads + c.kv_passes * np.where(present, tokens + cached, 0.0) * kv_heads
    moved = (_WIDE_BYTES * count * (key + value) * rows).sum(axis=0)
    seconds = c.launch_s + np.maximum(spread, alone)
    seconds = seconds + stream_seconds(gpu, moved, c.bandwidth_share, c.cache_speedup)
    return np.asarray(np.where(alone > 0, seconds, 0.0))


def _causal(length: Array, share: Array, window: Array, extra: float) -> tuple[Array, Array, Array]:
    """The number of tiles of a prompt's query rows, of blocks that these visit together, and of those of the last tile.

    `share` query heads stand in one tile of 128 rows, so its rows are of
    128 / share tokens. Tile i ends at token (i + 1) 128 / share, hence all but
    b share tiles visit more than b blocks.
    """
    tiles = np.ceil(length * share / _BLOCK)
    most = np.ceil(length / _BLOCK)
    blocks = most * tiles - share * most * (most - 1) / 2
    # blocks that end before the window: tiles that skip at least b of them, summed over b
    reaches = tiles - np.ceil((window - 1) * share / _BLOCK)
    skips = np.maximum(np.floor(reaches / share), 0.0)
    skipped = skips * reaches - share * skips * (skips + 1) / 2
    within = blocks - skipped + extra * np.maximum(reaches - share, 0.0)
    span = np.ceil((window + _BLOCK / share - 1) / _BLOCK)
    has = window > 0
    return tiles, np.where(has, np.minimum(within, blocks), blocks), np.where(has, np.minimum(span, most), most)
