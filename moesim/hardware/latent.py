"""Latent attention of one layer: its linear layers, the absorbed products of decode, and the kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.dense import gemm_seconds
from moesim.hardware.layer_kernels import BOUNDED, EVERY, LayerKernels
from moesim.hardware.mla import MlaWidths, mla_decode_seconds, mla_mixed_seconds, widths_of
from moesim.hardware.mla_linear import absorbed_seconds, down_shape, projection_shapes
from moesim.hardware.sequences import lengths_of, limit_of, requests_of
from moesim.types import DTYPE_BYTES, AttentionWork, GpuSpec, LayerShape, Precision, Sequences

Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]

_WITHOUT_DOWN = "/wideep_module-"


def latent_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """Latent attention, [A]: linear layers, in decode the absorbed products, and the kernels.

    What prompts and what caches take were fitted, and may be measured, as one
    module each. In a step with both, their common linear layers run once for all
    tokens: the sum of the modules is less by what that saves.
    """
    module = _Latent(layer, gpu, precision, tensor_parallel, kernels)
    seconds = np.zeros(work.n_groups)
    if work.decodes.any:
        seconds = seconds + module.decode_seconds(work.decodes)
    if work.prompts.any:
        seconds = seconds + module.prompt_seconds(work.prompts)
    if work.decodes.any and work.prompts.any:
        seconds = seconds - module.saved_seconds(work)
    return seconds


def latent_in_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """What comes before the kernels, [A]: the products down and up, in decode also the one into the latent."""
    module = _Latent(layer, gpu, precision, tensor_parallel, kernels)
    seconds = np.zeros(work.n_groups)
    if work.decodes.any:
        seconds = seconds + module.decode_in_seconds(work.decodes.tokens)
    if work.prompts.any:
        seconds = seconds + module.prompt_in_seconds(work.prompts.tokens)
    return seconds


@dataclass(frozen=True)
class _Latent:
    """A layer's latent attention on GPUs of which `tensor_parallel` share the heads."""

    layer: LayerShape
    gpu: GpuSpec
    precision: Precision
    tensor_parallel: int
    kernels: LayerKernels

    @cached_property
    def heads(self) -> float:
        """Query heads of one GPU."""
        return float(-(-self.layer.n_heads // self.tensor_parallel))

    @cached_property
    def widths(self) -> MlaWidths:
        """Of the latents and of a head."""
        return widths_of(self.layer)

    @cached_property
    def shape(self) -> tuple[float, ...]:
        """As measured tables tell it."""
        return (self.heads, *astuple(self.widths))

    def prompt_seconds(self, prompts: Sequences) -> Seconds:
        """The module over prompts, [A]."""
        tokens = prompts.tokens
        limit = limit_of(self.layer, prompts.new_tokens + prompts.cached_tokens)

        def formula(where: Any) -> Seconds:
            around = self._linear(tokens[where], self.kernels, absorbed=False)
            return mla_mixed_seconds(
                self.kernels.mla_prefill(self.precision),
                self.gpu,
                prompts=prompts.count[:, where],
                prompt_tokens=prompts.new_tokens[:, where],
                cached_tokens=prompts.cached_tokens[:, where],
                heads=self.heads,
                widths=self.widths,
                window=limit,
                around_s=around,
                sustained=self.kernels.throttled,
            )

        def down(where: Any) -> Seconds:
            return self._product(tokens[where], down_shape(self.widths, self.heads), self.kernels)

        group = self.kernels.mla_rows("mla_context", self.precision) + (BOUNDED if limit else "")
        return self.kernels.measured_or(
            formula, "mla_context", group, self.shape, *lengths_of(prompts), down if _WITHOUT_DOWN in group else None
        )

    def decode_seconds(self, decodes: Sequences) -> Seconds:
        """The module over caches, [A]."""
        constants = self.kernels.mla_decode(self.precision)
        parts = self.kernels.scaled(constants.linear_factor)
        tokens, limit = decodes.tokens, limit_of(self.layer, requests_of(decodes).longest)
        requests = requests_of(decodes, limit or np.inf)

        def formula(where: Any) -> Seconds:
            around = self._linear(tokens[where], parts, absorbed=True)
            for name, size in zip(("mla_gen_pre", "mla_gen_post"), self.widths.absorbed, strict=True):
                group = f"{self.kernels.absorbed_rows()}/{name}"
                own = self._absorbed(tokens[where], *size)
                around = around + parts.measured_or(own, "mla_bmm", group, self.shape, tokens[where])
            kernel = mla_decode_seconds(
                constants,
                self.gpu,
                requests=requests.number[where],
                context_tokens=requests.mean[where],
                longest_tokens=requests.longest[where],
                heads=self.heads,
                cache_bytes=DTYPE_BYTES[self.precision.kv_cache],
                widths=self.widths,
            )
            return constants.linear_factor * around + kernel

        def down(where: Any) -> Seconds:
            return constants.linear_factor * self._product(tokens[where], down_shape(self.widths, self.heads), parts)

        group = self.kernels.mla_rows("mla_generation", self.precision) + (BOUNDED if limit else "")
        # modules of wide expert parallelism were timed without the product down to the latents
        extra = down if _WITHOUT_DOWN in group else None
        return self.kernels.measured_or(
            formula, "mla_generation", group, self.shape, requests.alike, requests.mean, extra
        )

    def saved_seconds(self, work: AttentionWork) -> Seconds:
        """What the linear layers of both modules take less for all tokens at once than one after the other, [A]."""
        formulas = replace(self.kernels, measured=None)
        apart = [self._linear(own.tokens, formulas, absorbed=True) for own in (work.decodes, work.prompts)]
        return np.maximum(sum(apart) - self._linear(work.group_tokens, formulas, absorbed=True), 0.0)

    def prompt_in_seconds(self, tokens: Counts) -> Seconds:
        """The products down and up, [A]."""
        return self._in_order(tokens, self._before())

    def decode_in_seconds(self, tokens: Counts) -> Seconds:
        """The products down and up to the queries, and the one into the latent, [A]."""
        seconds = self._in_order(tokens, self._before()[:-1]) + self._absorbed(tokens, *self.widths.absorbed[0])(EVERY)
        return self.kernels.mla_decode(self.precision).linear_factor * seconds

    def _before(self) -> list[tuple[Any, Any]]:
        """(Outputs, inputs) of the products before the kernel over prompts, in the order they are used."""
        _output, *query, down, up = projection_shapes(self.widths, self.heads, absorbed=False)
        return [down, *query, up]

    def _in_order(self, tokens: Counts, shapes: list[tuple[Any, Any]]) -> Seconds:
        seconds = np.zeros(len(tokens))
        for size in shapes:
            seconds = seconds + self._product(tokens, size, self.kernels)
        return seconds

    def _linear(self, tokens: Counts, kernels: LayerKernels, *, absorbed: bool) -> Seconds:
        shapes = projection_shapes(self.widths, self.heads, absorbed=absorbed)
        return np.asarray(sum(self._product(tokens, size, kernels) for size in shapes))

    def _product(self, tokens: Counts, size: tuple[Any, Any], kernels: LayerKernels) -> Seconds:
        weights, activations = self.precision.weights, self.precision.activations
        return gemm_seconds(self.gpu, tokens, *size, weights=weights, activations=activations, kernels=kernels)

    def _absorbed(self, tokens: Counts, n: int, k: int) -> Callable[[Any], Seconds]:
        constants = self.kernels.absorbed()
        return lambda where: absorbed_seconds(constants, self.gpu, tokens[where], self.heads, float(n), float(k))
