"""Linear layers of latent attention: down to the latents, up from them, the output, and the absorbed products."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants.fitted import POSITIVE, fitted
from moesim.hardware.gemm import GemmConstants, product_seconds
from moesim.hardware.gpu import peak_flops, stream_seconds
from moesim.hardware.mla import DEEPSEEK_V3, MlaWidths
from moesim.hardware.p_norm import p_norm
from moesim.types import DTYPE_BYTES, GpuSpec

Array = NDArray[np.float64]
Numbers = NDArray[Any] | float

_TILE_ROWS = 64
_WIDE_BYTES = 2.0
_COMPUTE = "bf16"


@dataclass(frozen=True, kw_only=True)
class AbsorbedConstants:
    """The products of all heads with weights of their own: `launch_s`, `head_s` of each head, shares of the peaks.

    `activation_passes`: how often inputs and outputs are moved; `cache_speedup`; `norm`.
    """

    launch_s: float = field(metadata=fitted(4e-6, 1e-6, 3e-5))
    head_s: float = field(metadata=fitted(1e-9, 1e-11, 5e-7))
    compute_share: float = field(metadata=fitted(0.6, 0.02, 1.0, POSITIVE))
    bandwidth_share: float = field(metadata=fitted(0.8, 0.05, 1.0, POSITIVE))
    activation_passes: float = field(metadata=fitted(1.0, 0.3, 10.0))
    cache_speedup: float = field(metadata=fitted(2.0, 1.0, 8.0, POSITIVE))
    norm: float = field(metadata=fitted(3.0, 1.0, 10.0, POSITIVE))


def mla_projection_seconds(
    constants: GemmConstants,
    gpu: GpuSpec,
    rows: Numbers,
    heads: Numbers,
    *,
    absorbed: bool,
    weights: str,
    activations: str,
    widths: MlaWidths = DEEPSEEK_V3,
    down: bool = True,
) -> Array:
    """Seconds of the layer's linear layers but for the absorbed products, as tables time them.

    Down to both latents (unless `down` is false, which leaves them out), up to
    the queries, up to keys and values (only where not absorbed), output.
    """
    product = partial(
        product_seconds,
        constants,
        gpu,
        rows,
        weights=weights,
        activations=activations,
        sustained=False,
    )
    shapes = projection_shapes(widths, np.asarray(heads, dtype=np.float64), absorbed=absorbed, down=down)
    return np.asarray(sum(product(n, k) for n, k in shapes))


def projection_shapes(
    widths: MlaWidths, heads: Numbers, *, absorbed: bool, down: bool = True
) -> list[tuple[Numbers, Numbers]]:
    """(Outputs, inputs) of these linear layers for so many heads, in the order of their sum."""
    query = heads * (widths.plain + widths.rotated)
    shapes: list[tuple[Numbers, Numbers]] = [(float(widths.hidden), heads * widths.value)]
    if widths.query_latent:
        shapes.append((query, float(widths.query_latent)))
    if down:
        shapes.append(down_shape(widths, heads))
    if not absorbed:
        shapes.append((heads * (widths.plain + widths.value), float(widths.latent)))
    return shapes


def down_shape(widths: MlaWidths, heads: Numbers) -> tuple[Numbers, Numbers]:
    """(Outputs, inputs) of the layer down to both latents; without a query latent it makes the queries themselves."""
    query = heads * (widths.plain + widths.rotated)
    return (float(widths.query_latent) or query) + widths.cached, float(widths.hidden)


def absorbed_seconds(
    constants: AbsorbedConstants,
    gpu: GpuSpec,
    rows: Numbers,
    heads: Numbers,
    n: Numbers,
    k: Numbers,
    *,
    dtype: str = _COMPUTE,
    replayed: bool = False,
) -> Array:
    """Seconds of the product [rows, k] x [k, n] of every head in one launch; no rows take no time.

    Args:
        constants: of the library.
        gpu: its peaks.
        rows: new tokens.
        heads: query heads of this GPU, each with weights of its own.
        n: outputs of a head.
        k: inputs of a head.
        dtype: data type of weights and products; inputs and outputs have two bytes.
        replayed: timed again and again, so that the weights may stay in the L2 cache; in a step they come from memory.
    """
    c = constants
    rows, heads, n, k = (np.asarray(x, dtype=np.float64) for x in (rows, heads, n, k))
    tiled = np.ceil(rows / _TILE_ROWS) * _TILE_ROWS
    compute = 2.0 * heads * tiled * n * k / (c.compute_share * peak_flops(gpu, dtype))
    weights = heads * n * k * DTYPE_BYTES[dtype]
    activations = heads * c.activation_passes * rows * (n + k) * _WIDE_BYTES
    # a narrow type takes a kernel of its own that quantises the inputs, beside which nothing is multiplied
    before, beside = (
        (activations, 0.0) if DTYPE_BYTES[dtype] < _WIDE_BYTES else (np.zeros_like(activations), activations)
    )
    stream = partial(stream_seconds, gpu, share=c.bandwidth_share, cache_speedup=c.cache_speedup)
    products = p_norm(compute, stream(weights + beside, cold=0.0 if replayed else weights), c.norm)
    seconds = c.launch_s + c.head_s * heads + stream(before) + products
    return np.asarray(np.where(rows > 0, seconds, 0.0))
