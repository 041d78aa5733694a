"""A calibrated kernel of the experts on a GPU, and the time that it takes for the loads of ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError, ParameterError, did_you_mean
from moesim.hardware.constants import load
from moesim.hardware.expert import (
    MAX_TOKENS,
    ExpertConstants,
    ExpertShape,
    Seconds,
    calibrated_gpu,
    expert_time,
    summarize,
    tokens_per_row,
)
from moesim.hardware.gpu import peak_flops
from moesim.hardware.kernel_dtypes import KernelDtype, kernel_dtype
from moesim.types import GpuSpec, LayerShape


@dataclass(frozen=True, kw_only=True)
class ExpertKernel:
    """A calibrated kernel on a GPU.

    `name` is that of its group of constants, framework/kernel/dtype. The GPU is at
    its power limit if `sustained`; else the clock falls as it does while one layer
    is timed alone.
    """

    name: str
    gpu: GpuSpec
    constants: ExpertConstants
    sustained: bool = True
    dtype: KernelDtype = field(default_factory=lambda: kernel_dtype("bfloat16"))

    @classmethod
    def from_preset(cls, name: str, gpu: GpuSpec | None = None) -> ExpertKernel:
        """The kernel of a group ("trtllm/cutlass/fp8_block") or of a backend ("trtllm-fp8-block").

        The default is the calibrated GPU; another one changes only the published specifications.

        Raises:
            InputError: there is no such group or backend, or the GPU has no peak for its data type.
        """
        backends = load("backends")
        group = str(backends[name]["experts"]) if name in backends else name
        groups = load("experts")
        if group not in groups:
            known = [*backends, *groups]
            raise InputError(f"kernel: found {name}, wanted one of {', '.join(known)}{did_you_mean(name, known)}")
        dtype = kernel_dtype(group.rpartition("/")[2])
        kernel = cls(name=group, gpu=gpu or calibrated_gpu(), constants=ExpertConstants(**groups[group]), dtype=dtype)
        peak_flops(kernel.gpu, dtype.compute)
        return kernel

    def time(
        self,
        tokens_per_expert: ArrayLike,
        shape: ExpertShape | LayerShape,
        *,
        tokens: ArrayLike | None = None,
        mean_load: ArrayLike | None = None,
    ) -> Seconds:
        """Seconds [...] of the experts of one rank and layer; 0 for a rank without tokens.

        Args:
            tokens_per_expert: assignments of each of its experts, [..., E].
            shape: of the experts; a model stands for all its experts on one rank.
            tokens: that the rank received, [...]; by default as many as evenly
                spread choices bring: those with at least one choice here.
            mean_load: assignments an expert of the whole batch, [...], by which
                the kernel chooses its tile; by default every expert has the tile that suits it.

        Raises:
            InputError: loads are no whole numbers from 0 to MAX_TOKENS; tokens or mean loads are negative, not finite
                or of another shape; or a mean load is 0 where there are assignments.
        """
        counts = _whole(tokens_per_expert)
        own = ExpertShape.of(shape) if isinstance(shape, LayerShape) else shape
        outer = counts.shape[:-1]
        flat = np.ascontiguousarray(counts, dtype=np.int64).reshape(math.prod(outer), counts.shape[-1])
        mean = None if mean_load is None else _of_ranks("mean_load", mean_load, outer)
        if mean is not None and flat[mean == 0].any():
            raise ParameterError("mean_load", mean_load, "numbers above 0 where there are assignments")
        summary = summarize(flat, mean, (self.constants.tile_low, self.constants.tile_high))
        received_tokens = summary.rows * tokens_per_row(own) if tokens is None else _of_ranks("tokens", tokens, outer)
        seconds = expert_time(
            summary, own, received_tokens, self.gpu, self.dtype, self.constants, sustained=self.sustained
        )
        return seconds.reshape(outer)


def _whole(tokens_per_expert: ArrayLike) -> NDArray[Any]:
    """Loads [..., E] as an array of whole numbers from 0 to MAX_TOKENS."""
    try:
        counts = np.asarray(tokens_per_expert)
    except ValueError:
        raise InputError("tokens_per_expert: found rows of several lengths, wanted an array [..., E]") from None
    if counts.dtype.kind in "fb" and not np.array_equal(counts, np.rint(counts)):
        raise InputError("tokens_per_expert: found fractions, wanted whole numbers of tokens")
    if counts.dtype == np.int64:
        small = counts.view(np.uint64).max(initial=0) <= MAX_TOKENS  # in one pass: negative ones are the largest then
    else:
        small = counts.dtype.kind in "biuf" and (not counts.size or (counts.min() >= 0 and counts.max() <= MAX_TOKENS))
    if counts.ndim == 0 or not small:
        raise InputError(f"tokens_per_expert: wanted an array [..., E] of numbers from 0 to {MAX_TOKENS:,}")
    return counts


def _of_ranks(argument: str, values: ArrayLike, outer: tuple[int, ...]) -> NDArray[np.float64]:
    """An argument for each of the ranks [...], flat."""
    wanted = f"finite numbers from 0, one or {list(outer)}"
    try:
        own = np.broadcast_to(np.asarray(values, dtype=np.float64), outer).ravel()
    except (TypeError, ValueError, OverflowError):
        raise ParameterError(argument, values, wanted) from None
    if not (np.isfinite(own) & (own >= 0)).all():
        raise ParameterError(argument, values, wanted)
    return own


def expert_seconds(
    kernel: ExpertKernel,
    shape: ExpertShape,
    slot_tokens: NDArray[np.int64],
    slot_rank: NDArray[np.int32],
    n_ranks: int,
    tokens: int | None = None,
) -> Seconds:
    """Seconds [L, G] of the experts of each layer and rank; 0 for a rank without tokens.

    Args:
        kernel: of the experts.
        shape: of the experts.
        slot_tokens: assignments processed by each slot, [L, S].
        slot_rank: GPU of each slot, [S].
        n_ranks: G.
        tokens: that every rank received; by default as many as evenly spread choices bring.
    """
    order, first = np.argsort(slot_rank, kind="stable"), np.searchsorted(np.sort(slot_rank), np.arange(n_ranks))
    counts = np.bincount(slot_rank, minlength=n_ranks)
    # slots of each rank, the last column beyond all of them standing for a slot without tokens
    slots = np.full((n_ranks, max(1, int(counts.max(initial=0)))), slot_tokens.shape[1])
    slots[np.repeat(np.arange(n_ranks), counts), np.arange(len(order)) - np.repeat(first, counts)] = order
    padded = np.concatenate([slot_tokens, np.zeros((len(slot_tokens), 1), dtype=np.int64)], axis=1)
    mean = np.broadcast_to(slot_tokens.sum(axis=1, keepdims=True) / shape.n_experts, (len(slot_tokens), n_ranks))
    return kernel.time(padded[:, slots], shape, tokens=tokens, mean_load=mean)
