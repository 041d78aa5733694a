"""Multi-head latent attention: the kernel over the latent cache, and what stands around it in a layer.

Decode works in the latent: queries are multiplied into it, every head reads
the same row of each cached token, and the outputs are multiplied back. So the
cache is small and the matrix products are large: with 128 heads both count.
Prefill computes keys and values of every head and attends as usual.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants.fitted import POSITIVE, THROTTLE, fitted
from moesim.hardware.decode import split_seconds
from moesim.hardware.gpu import memory_bandwidth, peak_flops, stream_seconds
from moesim.hardware.p_norm import p_norm
from moesim.hardware.prefill import PrefillConstants, mixed_seconds
from moesim.types import GpuSpec, LayerShape

Array = NDArray[np.float64]
Numbers = NDArray[Any] | float

# A tile of the products has rows for so many query heads, however few there are.
_TILE_HEADS = 64
_WIDE_BYTES = 2.0
_COMPUTE = "bf16"
# Some kernels of a module wait for the host, others for the GPU.
_HOST_NORM = 2.0


@dataclass(frozen=True, kw_only=True)
class MlaWidths:
    """Widths in elements.

    These are the widths of the residual stream, of the query latent (0 where
    there is none), of the KV latent, and of a head's unrotated part, rotated part
    and value.
    """

    hidden: int
    query_latent: int
    latent: int
    plain: int
    rotated: int
    value: int

    @property
    def cached(self) -> int:
        """Elements of a cached token, which are the latent and the one rotated key."""
        return self.latent + self.rotated

    @property
    def absorbed(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(Outputs, inputs) of a head's products before the kernel, into the latent, and after it, out of it."""
        return (self.latent, self.plain), (self.value, self.latent)


DEEPSEEK_V3 = MlaWidths(hidden=7168, query_latent=1536, latent=512, plain=128, rotated=64, value=128)
"""The widths of the measured tables (DeepSeek-V3 technical report, section 4.2)."""


@dataclass(frozen=True, kw_only=True)
class MlaDecodeConstants:
    """Constants of one kernel and data type of the cache.

    `launch_s` is what the kernel takes to launch, or all that a module launches
    other than its products. A request takes `unit_s` and each of its tokens
    `token_s` on an SM that requests share, `alone_s` and `alone_token_s` on one
    that it has to itself; adding the parts of split requests takes `split_s`.
    Products and bytes reach `compute_share` and `bandwidth_share` of the published
    peaks, bytes are `cache_speedup` times faster from the L2 cache, and queries
    and outputs are moved `query_passes` times; the three overlap by the p-norm of
    `norm`. The linear layers of a module take `linear_factor` times as long as
    each of them alone, as their inputs are scaled and copied in between; the
    factor of a kernel alone is 1.
    """

    launch_s: float = field(metadata=fitted(2e-5, 1e-6, 2e-4))
    unit_s: float = field(metadata=fitted(5e-6, 1e-8, 5e-5))
    token_s: float = field(metadata=fitted(5e-9, 1e-10, 5e-7))
    alone_s: float = field(metadata=fitted(2e-6, 1e-8, 6e-5))
    alone_token_s: float = field(metadata=fitted(1e-8, 1e-10, 5e-7))
    split_s: float = field(metadata=fitted(3e-6, 1e-8, 5e-5))
    # an SM's own pace, `token_s`, has the share of the peak that its products reach: what is left is a bound
    compute_share: float = field(metadata=fitted(1.0, 1.0, 1.0, POSITIVE))
    bandwidth_share: float = field(metadata=fitted(0.9, 0.1, 1.0, POSITIVE))
    cache_speedup: float = field(metadata=fitted(1.3, 1.0, 3.0, POSITIVE))
    query_passes: float = field(metadata=fitted(1.0, 0.01, 10.0))
    norm: float = field(metadata=fitted(2.0, 1.0, 10.0, POSITIVE))
    linear_factor: float = field(metadata=fitted(1.1, 1.0, 2.0))


@dataclass(frozen=True, kw_only=True)
class MlaPrefillConstants(PrefillConstants):
    """Constants of attention over prompts with what else a module does.

    Each prompt takes `prompt_s` more, the residual stream of each token is moved
    `token_passes` times (norms, rotation, copies), and the host needs `host_s`
    where it launches kernels one by one, of which the GPU waits for some.
    """

    launch_s: float = field(metadata=fitted(2e-5, 1e-6, 1e-3))
    unit_s: float = field(metadata=fitted(1e-6, 1e-9, 4e-5))
    compute_share: float = field(metadata=fitted(0.65, 0.1, 1.0, POSITIVE))
    throttle: float = field(default=0.0, metadata=THROTTLE)
    bandwidth_share: float = field(metadata=fitted(0.5, 0.05, 1.0, POSITIVE))
    # heads of 192 and 128 elements multiply long enough to hide the exponentials of their scores
    score_s: float = field(metadata=fitted(0.0, 0.0, 0.0))
    longest_units: float = field(metadata=fitted(1.0, 0.05, 10.0))
    kv_passes: float = field(metadata=fitted(1.0, 0.01, 20.0))
    cache_speedup: float = field(metadata=fitted(1.2, 1.0, 5.0, POSITIVE))
    window_blocks: float = field(metadata=fitted(0.0, 0.0, 1.0))
    packs: float = field(metadata=fitted(0.0, 0.0, 1.0))
    prompt_s: float = field(metadata=fitted(1e-7, 1e-10, 1e-5))
    token_passes: float = field(metadata=fitted(2.0, 0.01, 50.0))
    host_s: float = field(metadata=fitted(6e-4, 1e-4, 2e-3))


def widths_of(layer: LayerShape) -> MlaWidths:
    """The widths of a layer with latent attention."""
    return MlaWidths(
        hidden=layer.hidden_size,
        query_latent=layer.q_lora_rank,
        latent=layer.kv_lora_rank,
        plain=layer.qk_nope_head_dim,
        rotated=layer.qk_rope_head_dim,
        value=layer.v_head_dim,
    )


def mla_decode_seconds(
    constants: MlaDecodeConstants,
    gpu: GpuSpec,
    *,
    requests: Numbers,
    context_tokens: Numbers,
    heads: Numbers,
    cache_bytes: Numbers,
    widths: MlaWidths = DEEPSEEK_V3,
    longest_tokens: Numbers | None = None,
    replayed: bool = False,
) -> Array:
    """Seconds of the absorbed attention of one new token of each request; no requests take no time.

    Args:
        constants: constants of the kernel.
        gpu: its peaks and SMs.
        requests: number of requests.
        context_tokens: tokens of each that are read; their mean where requests differ.
        heads: query heads of this GPU.
        cache_bytes: bytes of a cached element.
        widths: widths of the latents and of a head.
        longest_tokens: tokens of the longest request; by default all are as long.
        replayed: timed again and again, so that a small cache stays in the L2 cache; in a step it is read from memory.
    """
    c = constants
    n, context, heads, each = (np.asarray(x, dtype=np.float64) for x in (requests, context_tokens, heads, cache_bytes))
    tiles = np.ceil(heads / _TILE_HEADS)
    working = split_seconds(
        gpu,
        n * tiles,
        context,
        context if longest_tokens is None else np.asarray(longest_tokens, dtype=np.float64),
        together=(c.unit_s, c.token_s),
        alone=(c.alone_s, c.alone_token_s),
        split_s=c.split_s,
    )
    flops = 2.0 * (widths.cached + widths.latent) * tiles * _TILE_HEADS * n * context
    compute = flops / (c.compute_share * peak_flops(gpu, _COMPUTE))
    queries = c.query_passes * n * heads * (widths.cached + widths.latent) * _WIDE_BYTES
    read = n * context * widths.cached * each
    stream = stream_seconds(gpu, read + queries, c.bandwidth_share, c.cache_speedup, 0.0 if replayed else read)
    joined = p_norm(p_norm(working, stream, c.norm), compute, c.norm)
    return np.asarray(np.where(n > 0, c.launch_s + joined, 0.0))


def mla_prefill_seconds(
    constants: MlaPrefillConstants,
    gpu: GpuSpec,
    *,
    prompts: Numbers,
    prompt_tokens: Numbers,
    heads: Numbers,
    compute: str = _COMPUTE,
    cached_tokens: Numbers = 0.0,
    widths: MlaWidths = DEEPSEEK_V3,
    around_s: Numbers = 0.0,
    absorbed: bool = False,
    sustained: bool = True,
) -> Array:
    """Seconds of latent attention over equal prompts, arguments and result [...]; see `mla_mixed_seconds`."""
    count, tokens, cached, *_ = np.broadcast_arrays(prompts, prompt_tokens, cached_tokens, heads)
    return mla_mixed_seconds(
        constants,
        gpu,
        prompts=count[None],
        prompt_tokens=tokens[None],
        heads=heads,
        compute=compute,
        cached_tokens=cached[None],
        widths=widths,
        around_s=around_s,
        absorbed=absorbed,
        sustained=sustained,
    )


def mla_mixed_seconds(
    constants: MlaPrefillConstants,
    gpu: GpuSpec,
    *,
    prompts: NDArray[Any],
    prompt_tokens: NDArray[Any],
    heads: Numbers,
    compute: str = _COMPUTE,
    cached_tokens: NDArray[Any] | float = 0.0,
    widths: MlaWidths = DEEPSEEK_V3,
    window: float = 0.0,
    around_s: Numbers = 0.0,
    absorbed: bool = False,
    sustained: bool = True,
) -> Array:
    """Seconds [...] of attention over prompts of W kinds with `around_s`, its linear layers; none take no time.

    Args:
        constants: constants of the kernel or module.
        gpu: its peaks and SMs.
        prompts: number of prompts of each kind, [W, ...].
        prompt_tokens: new tokens of each, [W, ...].
        heads: query heads of this GPU, each with keys and values of its own.
        compute: data type of the kernel's matrix products.
        cached_tokens: tokens of each prompt in the cache already, [W, ...].
        widths: widths of the latents and of a head.
        window: keys that a token sees, 0 for all.
        around_s: seconds of the linear layers.
        absorbed: whether it is multiplied in the latent, which all heads share, as in decode.
        sustained: whether the GPU is under sustained load, at its power limit; else the module was timed alone.
    """
    c = constants
    count, length = (np.asarray(x, dtype=np.float64) for x in (prompts, prompt_tokens))
    key, value = (widths.cached, widths.latent) if absorbed else (widths.plain + widths.rotated, widths.value)
    kernel = mixed_seconds(
        c,
        gpu,
        prompts=count,
        prompt_tokens=length,
        heads=heads,
        kv_heads=1.0 if absorbed else heads,
        key_width=float(key),
        value_width=float(value),
        compute=compute,
        window=window,
        cached_tokens=cached_tokens,
        sustained=sustained,
    )
    passes = c.token_passes * (count * length).sum(axis=0) * widths.hidden * _WIDE_BYTES / memory_bandwidth(gpu)
    device = kernel + c.prompt_s * count.sum(axis=0) + passes + around_s
    return np.asarray(np.where(kernel > 0, p_norm(device, np.full_like(device, c.host_s), _HOST_NORM), 0.0))
