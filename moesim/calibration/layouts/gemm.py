"""Dense linear layers: one product with the quantisation of its input, milliseconds.

Layout: NVIDIA aiconfigurator `gemm_perf`.
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
    text,
)
from moesim.calibration.gpus import gpu_of
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.hardware.gemm import GemmConstants, product_seconds
from moesim.hardware.kernel_dtypes import dtype_of, is_narrow
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

# What the libraries are known to do: cuBLAS splits the sum over k and has wide tiles, CUTLASS as vLLM and SGLang call
# it takes the tile by the rows, DeepGEMM does neither.
_LIBRARIES: Mapping[str, Mapping[str, float]] = {
    "cublas": {"max_split": 8.0, "widest_tile": 256.0, "by_rows": 0.0},
    "cutlass": {"max_split": 1.0, "widest_tile": 128.0, "by_rows": 1.0, "split_s": 0.0},
    "deepgemm": {"max_split": 1.0, "widest_tile": 128.0, "by_rows": 0.0, "split_s": 0.0},
}
_NO_QUANTISATION = {"quantise_passes": 0.0, "quantise_row_s": 0.0, "cache_speedup": 1.0}
# Copies of the weight that a collector cycles through; vLLM's blocks of FP8 are timed on one.
_COPIES = {"TRTLLM": 5, "SGLang": 6, "VLLM": 6}
_COPIES_OTHERWISE = 5
_EAGER = ("VLLM", "fp8_block")
_HOST_MS = 0.2
_NARROW = 512
_HELD_OUT = 7168

# Launch, main loop and tile can stand for each other in small tables, for other GPUs they cannot; as of the experts.
_PULL = 0.1


def _library(frame: pd.DataFrame) -> pd.Series[str]:
    source, dtype = text(frame, "kernel_source").str.lower(), text(frame, "gemm_dtype")
    blocks = source.str.contains("deepgemm") | dtype.eq("fp8_block")
    cutlass = source.str.contains("cutlass|sgl_kernel")
    return blocks.map({True: "deepgemm", False: "cublas"}).mask(~blocks & cutlass, "cutlass")


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return framework(frame) + "/" + _library(frame) + "/" + text(frame, "gemm_dtype")


def _eager(frame: pd.DataFrame) -> pd.Series[bool]:
    return text(frame, "framework").eq(_EAGER[0]) & text(frame, "gemm_dtype").eq(_EAGER[1])


def resident(frame: pd.DataFrame) -> pd.Series[bool]:
    """Whether all copies of the weight stay in the L2 cache, as the collectors reckon: in decimal megabytes."""
    if "weights_fit_l2" in frame:
        return frame["weights_fit_l2"].astype(bool)
    sizes = {name: 0.0 if (gpu := gpu_of(name)) is None else 1e6 * gpu.l2_cache_mb for name in set(frame["system"])}
    width = text(frame, "gemm_dtype").map(lambda name: dtype_of(name).weight_bytes)
    copies = text(frame, "framework").map(_COPIES).fillna(_COPIES_OTHERWISE).mask(_eager(frame), 1)
    return copies * frame["n"] * frame["k"] * width <= frame["system"].map(sizes)


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    in_cache, narrow = resident(frame), (frame["n"] < _NARROW) | (frame["k"] < _NARROW)
    return in_cache.map({True: "weights in L2", False: "weights beyond L2"}).mask(narrow & ~in_cache, "narrow")


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; held out: every layer with 7,168 inputs or outputs."""
    return frame["system"].eq("h100_sxm") & frame["n"].ne(_HELD_OUT) & frame["k"].ne(_HELD_OUT)


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="m", curve=("gemm_dtype", "n", "k"), wrong=_host_bound)


def _host_bound(frame: pd.DataFrame) -> pd.Series[bool]:
    """Blocks of FP8 of vLLM are launched without a graph: short products wait for the host."""
    return _eager(frame) & frame["latency_ms"].lt(_HOST_MS)


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    m, n, k = numbers(frame, "m", "n", "k")
    in_cache = resident(frame).to_numpy(dtype=np.bool_)
    types = frame.groupby(text(frame, "gemm_dtype").to_numpy()).indices

    def seconds(constants: Mapping[str, float]) -> Array:
        out = np.empty(len(frame))
        for name, rows in types.items():
            dtype = dtype_of(str(name))
            out[rows] = product_seconds(
                GemmConstants(**constants),
                gpu,
                m[rows],
                n[rows],
                k[rows],
                weights=dtype.weights,
                activations=dtype.compute,
                resident=in_cache[rows],
                sustained=False,
            )
        return out

    return seconds


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:  # noqa: ARG001 - one of Fixed
    _, library, dtype = name.split("/")
    narrow = is_narrow(dtype_of(dtype).compute)
    return {**_LIBRARIES[library], **({} if narrow else _NO_QUANTISATION)}


LAYOUT = GroupedLayout(
    name="gemm",
    part="gemm",
    prefixes=("gemm",),
    columns=layer_columns(gemm_dtype="text", m="number", n="number", k="number"),
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    formula=_formula,
    kernel=GemmConstants,
    fixed=_fixed,
    pull=_PULL,
)
