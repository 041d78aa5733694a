"""Which constants the layers of a model take: those of one framework, by the data types and the shape of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.hardware.allreduce import AllReduceConstants
from moesim.hardware.constants import Constants, load
from moesim.hardware.decode import DecodeConstants
from moesim.hardware.elementwise import ElementwiseConstants
from moesim.hardware.gemm import GemmConstants
from moesim.hardware.kernel_dtypes import dtype_of, is_narrow, nearest
from moesim.hardware.measured import Measured
from moesim.hardware.mla import MlaDecodeConstants, MlaPrefillConstants
from moesim.hardware.mla_linear import AbsorbedConstants
from moesim.hardware.prefill import PrefillConstants
from moesim.types import LayerShape, Precision

_NARROW_HEAD, _MANY_HEADS = 64, 64
_LINEAR: Mapping[str, str] = {"fp8": "deepgemm/fp8_block", "int8": "cublas/fp8", "fp4": "cublas/fp8"}
_LINEAR_OTHERWISE = "cublas/bfloat16"
# vLLM's table of FP8 blocks is timed from the host; the kernel is the one that SGLang calls
_LINEAR_OF: Mapping[str, str] = {"vllm/deepgemm/fp8_block": "sglang/deepgemm/fp8_block"}
# the only elementwise kernel with a table whose launch and bandwidth are those of norms too
ELEMENTWISE = "vllm/scale_matrix/fp8"
# Modules around the kernel that a framework would take, by the data type of the cache.
_MLA_DECODE: Mapping[str, Mapping[str, str]] = {
    "trtllm": {},
    "vllm": {"bfloat16": "module-FLASH_ATTN_MLA", "fp8": "module-FLASHMLA"},
    "sglang": {"bfloat16": "wideep_module-fa3", "fp8": "wideep_module-fa3"},
}
_MLA_PREFILL: Mapping[str, Mapping[str, str]] = {
    "trtllm": {},
    "vllm": {"bfloat16": "module-FLASH_ATTN", "fp8": "module-FLASH_ATTN"},
    "sglang": {"bfloat16": "wideep_module-fa3", "fp8": "wideep_module-fa3"},
}
_MLA_OTHERWISE = "module-default"
BOUNDED = " over a part of the cache"
"""What is added to a group of measurements where a window or an indexer binds: tables that are looked up have none."""
EVERY = slice(None)
"""The places of all sizes, as formulas take them."""


@dataclass(frozen=True, kw_only=True)
class LayerKernels:
    """Kernels of all layers but the experts.

    `framework` is trtllm, vllm or sglang. `groups` names, by part, what a backend
    takes instead of the framework's own: of "gemm" the group of products in its
    data type, of "attention_context", "attention_generation" and "mla_bmm" another
    framework, of "mla_context" and "mla_generation" framework/module; data types
    and the template of the heads follow from the scenario. `constants`, by part
    and group as `moesim calibrate` writes them, replace the shipped ones of the
    same data type. The nearest group stands in for one that is missing. `measured`
    holds tables whose rows of exactly these kernels take precedence over formulas.
    A GPU is at its power limit if `throttled`; else each kernel comes as near to
    the limit as when it was timed alone, by how long it computes.
    """

    framework: str = "trtllm"
    groups: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Constants] = field(default_factory=dict)
    measured: Measured | None = None
    throttled: bool = True

    def measured_or(
        self,
        formula: Callable[[Any], NDArray[np.float64]],
        kind: str,
        group: str,
        shape: tuple[float, ...],
        sizes: ArrayLike,
        series: ArrayLike = 0.0,
        extra_seconds: Callable[[Any], NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float64]:
        """Seconds at sizes [G]: measured, else of the formula for places of [G] (arguments of Measured.measured_or)."""
        if self.measured is None:
            return formula(EVERY)
        return self.measured.measured_or(formula, kind, group, shape, sizes, series, extra_seconds)

    def scaled(self, factor: float) -> LayerKernels:
        """The same kernels for a caller that multiplies their seconds by a factor."""
        if factor == 1.0 or self.measured is None:
            return self
        return replace(self, measured=self.measured.scaled_by(f"times {factor:g}, as fitted in a module"))

    def linear(self, activations: str) -> GemmConstants:
        """The constants of dense layers whose activations are multiplied in a data type."""
        group = self._linear(activations)
        return GemmConstants(**self._of("gemm", _LINEAR_OF.get(group, group)))

    def linear_rows(self, weights: str, activations: str) -> str:
        """The group of measured dense layers of these data types."""
        group = self._linear(activations)
        dtype = dtype_of(group.rpartition("/")[2])
        same = (dtype.weights, dtype.compute) == (weights, activations)
        return group if same else f"{group} with {weights} weights and {activations} activations"

    def _linear(self, activations: str) -> str:
        group, own = f"{self.framework}/{_LINEAR.get(activations, _LINEAR_OTHERWISE)}", self.groups.get("gemm")
        if own is not None and is_narrow(dtype_of(own.rpartition("/")[2]).compute) == is_narrow(activations):
            group = own
        return group

    def elementwise(self) -> ElementwiseConstants:
        """The constants of norms, sums and activations."""
        mine = self.constants.get("elementwise", {}).get(ELEMENTWISE)
        return ElementwiseConstants(**(mine or load("elementwise")[ELEMENTWISE]))

    def prefill(self, layer: LayerShape, precision: Precision) -> PrefillConstants:
        """The constants of the attention kernel over prompts."""
        return PrefillConstants(**self._of("attention_context", self._prefill(layer, precision)))

    def prefill_rows(self, layer: LayerShape, precision: Precision) -> str:
        """The group of its measurements."""
        return _with_cache(self._prefill(layer, precision), precision)

    def _prefill(self, layer: LayerShape, precision: Precision) -> str:
        types = "bfloat16-fp8" if _cache(precision) == "fp8" else "bfloat16"
        return f"{self._framework('attention_context')}/{_template(layer)}/{types}"

    def prefill_compute(self, precision: Precision) -> str:
        """The data type that attention over prompts multiplies in, which is the cache's if that is narrow."""
        return "fp8" if _cache(precision) == "fp8" else "bf16"

    def decode(self, layer: LayerShape, precision: Precision) -> DecodeConstants:
        """The constants of the attention kernel over the cache."""
        return DecodeConstants(**self._of("attention_generation", self._decode(layer, precision)))

    def decode_rows(self, layer: LayerShape, precision: Precision) -> str:
        """The group of its measurements."""
        return _with_cache(self._decode(layer, precision), precision)

    def _decode(self, layer: LayerShape, precision: Precision) -> str:
        framework = self._framework("attention_generation")
        apart = framework == "trtllm" and layer.n_heads >= _MANY_HEADS * layer.n_kv_heads
        template = "mqa-128" if apart else _template(layer)
        return f"{framework}/{template}/{_cache(precision)}"

    def mla_prefill(self, precision: Precision) -> MlaPrefillConstants:
        """The constants of latent attention over prompts without its linear layers; the host keeps ahead of GPUs."""
        found = MlaPrefillConstants(**self._of("mla_context", self._module("mla_context", _MLA_PREFILL, precision)))
        return replace(found, host_s=0.0)

    def mla_decode(self, precision: Precision) -> MlaDecodeConstants:
        """The constants of latent attention over the cache without its linear layers."""
        group = self._module("mla_generation", _MLA_DECODE, precision)
        return MlaDecodeConstants(**self._of("mla_generation", group))

    def mla_rows(self, part: str, precision: Precision) -> str:
        """The group of measured modules of latent attention, of "mla_context" or "mla_generation"."""
        sources = _MLA_PREFILL if part == "mla_context" else _MLA_DECODE
        group = _with_cache(self._module(part, sources, precision), precision)
        same = precision.weights == precision.activations and precision.weights in ("bf16", "fp8")
        return group if same else f"{group} with {precision.weights} weights and {precision.activations} activations"

    def absorbed(self) -> AbsorbedConstants:
        """The constants of the products into the latent and out of it, in bf16."""
        return AbsorbedConstants(**self._of("mla_bmm", self.absorbed_rows()))

    def absorbed_rows(self) -> str:
        """The group of their measurements, and of their constants."""
        return f"{self._framework('mla_bmm')}/bmm/bfloat16"

    def allreduce(self) -> AllReduceConstants:
        """The constants of sums over the GPUs of a node."""
        return AllReduceConstants(**self._of("allreduce", self.allreduce_rows()))

    def allreduce_rows(self) -> str:
        """The group of their measurements, and of their constants."""
        return f"{self.framework}/custom/graph"

    def _framework(self, part: str) -> str:
        return self.groups.get(part, self.framework)

    def _module(self, part: str, sources: Mapping[str, Mapping[str, str]], precision: Precision) -> str:
        cache = _cache(precision)
        linear = "fp8_block" if is_narrow(precision.activations) else "bfloat16"
        source = f"{self.framework}/{sources.get(self.framework, {}).get(cache, _MLA_OTHERWISE)}"
        return f"{self.groups.get(part, source)}/{linear}-{cache}"

    def _of(self, part: str, group: str) -> Mapping[str, float]:
        dtype, mine = group.rpartition("/")[2], self.constants.get(part, {})
        own = {name: values for name, values in mine.items() if name.rpartition("/")[2] == dtype}
        found = nearest(group, own or load(part))
        assert found is not None, f"no constants of {part}"
        return found


def _cache(precision: Precision) -> str:
    return "fp8" if is_narrow(precision.kv_cache) else "bfloat16"


def _with_cache(group: str, precision: Precision) -> str:
    """The group of measurements: of the data type of the cache itself, not one that stands in for it."""
    return group if precision.kv_cache in ("bf16", "fp8") else f"{group} with a cache in {precision.kv_cache}"


def _template(layer: LayerShape) -> str:
    grouping = "mha" if layer.n_heads == layer.n_kv_heads else "gqa"
    return f"{grouping}-{64 if layer.head_dim <= _NARROW_HEAD else 128}"


DEFAULT = LayerKernels()
"""The kernels of a scenario that names none."""
