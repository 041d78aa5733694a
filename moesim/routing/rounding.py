"""Capacity of an expert in a scope, as each library rounds it.

For the same factor they differ: 700 tokens, 7 experts, top-1, factor 1.1 give
111 (Megatron), 110 (DeepSpeed, Tutel, flaxformer) or 112 (V-MoE, Lingvo).
Mesh, flaxformer and Lingvo leave top_k out, so that their factor means another thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Rounding = Callable[[Counts, int, int, float], Counts]
"""(tokens of each scope, experts, top_k, factor) -> capacity of each scope."""


_MAX = 2.0**40
"""As good as no limit, and far from where int64 ends."""


def megatron(tokens: Counts, n_experts: int, top_k: int, factor: float) -> Counts:
    """Megatron `get_capacity`: ceil(T k / E * factor) in double precision, which gives 111 for 110.00000000000001."""
    return _whole(np.ceil(tokens * top_k / n_experts * factor))


def deepspeed(tokens: Counts, n_experts: int, top_k: int, factor: float) -> Counts:
    """DeepSpeed `_capacity`: ceil(T / E * (factor k)) in float32."""
    even = (tokens / n_experts).astype(np.float32)
    return _whole(np.ceil(even * np.float32(min(factor * top_k, _MAX))))


def v_moe(tokens: Counts, n_experts: int, top_k: int, factor: float) -> Counts:
    """V-MoE: ceil(T k factor / E), up to a multiple of 4."""
    return _up_to_4(_whole(np.ceil(tokens * top_k * factor / n_experts)))


def flaxformer(tokens: Counts, n_experts: int, top_k: int, factor: float) -> Counts:
    """Flaxformer (ST-MoE): round half to even of factor T / E, at least 4; top_k is left out."""
    return np.maximum(_whole(np.rint(factor * tokens / n_experts)), 4)


def mesh(tokens: Counts, n_experts: int, top_k: int, factor: float) -> Counts:
    """Mesh TensorFlow (Switch): floor of T factor / E, at most T, at least 4; top_k is left out."""
    return np.maximum(np.minimum(tokens, _whole(np.floor(tokens * factor / n_experts))), 4)


def lingvo(tokens: Counts, n_experts: int, top_k: int, factor: float) -> Counts:
    """Lingvo (GShard): floor of T factor / E, up to a multiple of 4, at least 4; top_k is left out."""
    return np.maximum(_up_to_4(_whole(np.floor(tokens * factor / n_experts))), 4)


def tutel(tokens: Counts, n_experts: int, top_k: int, factor: float) -> Counts:
    """Tutel: k floor(factor ceil(T / E))."""
    return top_k * _whole(np.floor(factor * -(-tokens // n_experts)))


ROUNDINGS: Mapping[str, Rounding] = {
    "megatron": megatron,
    "deepspeed": deepspeed,
    "v-moe": v_moe,
    "flaxformer": flaxformer,
    "mesh": mesh,
    "lingvo": lingvo,
    "tutel": tutel,
}

SIGNED = frozenset({"tutel"})
"""Libraries whose factor may be 0 (as large as the largest load) or negative (that, but at most the factor's)."""


def _whole(value: NDArray[np.floating]) -> Counts:
    return np.asarray(np.minimum(value, _MAX), dtype=np.int64)


def _up_to_4(count: Counts) -> Counts:
    return -(-count // 4) * 4
