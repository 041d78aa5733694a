"""Latent attention over prompts, kernel or module of DeepSeek-V3, milliseconds.

Layout: NVIDIA aiconfigurator `context_mla_perf`, `mla_context_module_perf` and `wideep_context_mla_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.columns import (
    Array,
    framework,
    numbers,
    optional,
    text,
)
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.calibration.layouts.mla import CURVE, around_seconds, fitted, group, same_scope, scope
from moesim.hardware.kernel_dtypes import dtype_of
from moesim.hardware.mla import MlaPrefillConstants, mla_prefill_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

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


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    batch, length, heads = numbers(frame, "batch_size", "isl", "num_heads")
    dtypes, cached, around = (
        text(frame, "mla_dtype", "bfloat16"),
        optional(frame, "past_kv_tokens"),
        _around(gpu, frame),
    )
    keys = dtypes + _absorbed(frame).map({True: "\nabsorbed", False: "\n"})
    kernels = frame.groupby(keys.to_numpy()).indices

    def seconds(constants: Mapping[str, float]) -> Array:
        out = np.empty(len(frame))
        for key, rows in kernels.items():
            name, _, in_latent = str(key).partition("\n")
            out[rows] = mla_prefill_seconds(
                MlaPrefillConstants(**constants),
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
        return out

    return seconds


def _around(gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    batch, length = numbers(frame, "batch_size", "isl")
    seconds = around_seconds(gpu, frame, batch * length, absorbed=False)
    if (in_latent := _absorbed(frame).to_numpy()).any():
        seconds[in_latent] = around_seconds(gpu, frame[in_latent], (batch * length)[in_latent], absorbed=True)
    return seconds


def _absorbed(frame: pd.DataFrame) -> pd.Series[bool]:
    """Whether a module multiplies in the latent."""
    return scope(frame).eq("module") & text(frame, "kernel_source").isin(_ABSORBED)


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:  # noqa: ARG001 - one of Fixed
    """What a group does not have: kernels do nothing around attention, graphs wait for no host."""
    source = name.split("/")[1]
    kernel = _KERNEL_FIXED if source.startswith("kernel-") else {}
    graph = _EAGER if source.startswith(_EAGER_MODULE) else _IN_A_GRAPH
    return {**_FIXED, **kernel, **graph, "packs": float(source.endswith(_ABSORBED))}


LAYOUT = GroupedLayout(
    name="mla_context",
    part="mla_context",
    prefixes=("mla_context", "context_mla", "wideep_context_mla"),
    columns=layer_columns(num_heads="number", batch_size="number", isl="number"),
    group=group,
    regime=scope,
    fitted=fitted,
    usable=_usable,
    formula=_formula,
    kernel=MlaPrefillConstants,
    fixed=_fixed,
    pull=_PULL,
    related=same_scope,
)
