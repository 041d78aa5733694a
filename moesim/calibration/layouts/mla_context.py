"""Latent attention over prompts, kernel or module of DeepSeek-V3, milliseconds.

Layout: NVIDIA aiconfigurator `context_mla_perf`, `mla_context_module_perf` and `wideep_context_mla_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.fitting import Array, numbers, text
from moesim.calibration.layouts.attention import column, framework
from moesim.calibration.layouts.layer import layer_kind
from moesim.calibration.layouts.mla import CURVE, around_seconds, fit_modules, fitted, group, predict_by_scope, scope
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import searches
from moesim.hardware.kernel_dtypes import dtype_of
from moesim.hardware.mla import MlaPrefillConstants, mla_prefill_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = searches(MlaPrefillConstants)
# Constants that a table does not tell apart stay near where their search begins, as those of dense products.
_PULL = 0.02
_FIXED = {"score_s": 0.0, "window_blocks": 0.0}
_KERNEL_FIXED = {"prompt_s": 0.0, "token_passes": 0.0}
_IN_A_GRAPH = {"host_s": 0.0}
# A module that is launched kernel by kernel shows the time of the host, which a step does not lose, in `host_s`; the
# kernels' own launches take as long as those of TensorRT-LLM's modules in a graph.
_EAGER = {"launch_s": 2.5e-5}
_EAGER_MODULE = "wideep_module-"
_HOST_MS = 0.7
# vLLM's kernels of decode, which it also takes for prompts of up to 512 tokens: they multiply in the latent.
_ABSORBED = ("FLASHMLA", "FLASH_ATTN_MLA")


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="isl", curve=(*CURVE, "past_kv_tokens"), wrong=_wrong)


def _wrong(frame: pd.DataFrame) -> pd.Series[bool]:
    """SGLang's kernel multiplies prompts as decode does, at three times the FLOPs; eager modules wait for the host."""
    absorbed = scope(frame).eq("kernel") & framework(frame).eq("sglang")
    host_bound = scope(frame).eq("wideep_module") & frame["latency_ms"].lt(_HOST_MS)
    return absorbed | host_bound


def _module_seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame, around: Array) -> Array:
    batch, length, heads = numbers(frame, "batch_size", "isl", "num_heads")
    dtypes, cached = text(frame, "mla_dtype", "bfloat16"), column(frame, "past_kv_tokens")
    keys, seconds = dtypes + absorbed(frame).map({True: "\nabsorbed", False: "\n"}), np.empty(len(frame))
    for key, rows in keys.groupby(keys.to_numpy()).indices.items():
        name, _, in_latent = str(key).partition("\n")
        seconds[rows] = mla_prefill_seconds(
            MlaPrefillConstants(**c),
            gpu,
            prompts=batch[rows],
            prompt_tokens=length[rows],
            heads=heads[rows],
            compute=dtype_of(name).compute,
            cached_tokens=cached[rows],
            around_s=around[rows],
            absorbed=bool(in_latent),
            sustained=False,
        )
    return seconds


def _around(gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    batch, length = numbers(frame, "batch_size", "isl")
    seconds = around_seconds(gpu, frame, batch * length, absorbed=False)
    if (in_latent := absorbed(frame).to_numpy()).any():
        seconds[in_latent] = around_seconds(gpu, frame[in_latent], (batch * length)[in_latent], absorbed=True)
    return seconds


def absorbed(frame: pd.DataFrame) -> pd.Series[bool]:
    """Whether a module multiplies in the latent."""
    return scope(frame).eq("module") & text(frame, "kernel_source").isin(_ABSORBED)


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    return _module_seconds(c, gpu, frame, _around(gpu, frame))


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    return predict_by_scope(frame, gpus, constants, _seconds)


def _fixed(name: str) -> dict[str, float]:
    """What a group does not have: kernels do nothing around attention, graphs wait for no host."""
    source = name.split("/")[1]
    kernel = _KERNEL_FIXED if source.startswith("kernel-") else {}
    graph = _EAGER if source.startswith(_EAGER_MODULE) else _IN_A_GRAPH
    return {**_FIXED, **kernel, **graph, "packs": float(source.endswith(_ABSORBED))}


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    return fit_modules(frame[_usable(frame)], gpus, _SEARCH, _fixed, _around, _module_seconds, _PULL)


LAYOUT = layer_kind(
    name="mla_context",
    prefixes=("mla_context", "context_mla", "wideep_context_mla"),
    columns={
        "num_heads": "number",
        "batch_size": "number",
        "isl": "number",
    },
    group=group,
    regime=scope,
    fitted=fitted,
    usable=_usable,
    predict=_predict,
    fit=_fit,
)
