"""What the layouts of latent attention share: scopes, groups, and the linear layers of a module."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.columns import (
    Array,
    cache_dtype,
    framework,
    numbers,
    text,
)
from moesim.calibration.groups import constants_for
from moesim.hardware.constants import load
from moesim.hardware.gemm import GemmConstants
from moesim.hardware.kernel_dtypes import dtype_of
from moesim.hardware.mla import DEEPSEEK_V3
from moesim.hardware.mla_linear import AbsorbedConstants, absorbed_seconds, mla_projection_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT_HEADS = 64
"""Local query heads whose rows no shipped constant saw."""

_KERNEL = "kernel"
_NO_DOWN = "wideep_module"
# The library of a module's linear layers: vLLM's blocks of FP8 are DeepGEMM as SGLang calls it, timed without a graph.
_LIBRARY = {"fp8_block": "deepgemm"}
_LIBRARY_OTHERWISE = "cublas"
_BLOCKS_OF_VLLM = {"vllm/deepgemm/fp8_block": "sglang/deepgemm/fp8_block"}


CURVE = ("scope", "mla_dtype", "kv_cache_dtype", "gemm_type", "num_heads", "batch_size")
"""Columns that a curve of latencies over lengths shares."""


def scope(frame: pd.DataFrame) -> pd.Series[str]:
    """What was timed: kernel, module or wideep_module."""
    return text(frame, "scope", _KERNEL)


def scope_of(group: str) -> str:
    """The scope in the name of a group, framework/scope-kernel/types."""
    return group.split("/")[1].partition("-")[0]


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """A framework, the scope with the kernel, and the data types of linear layers and cache."""
    linear = text(frame, "gemm_type")
    types = (linear + "-").where(linear.ne(""), "") + cache_dtype(frame)
    return framework(frame) + "/" + scope(frame) + "-" + text(frame, "kernel_source") + "/" + types


def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; held out: 64 local heads."""
    return frame["system"].eq("h100_sxm") & frame["num_heads"].ne(HELD_OUT_HEADS)


def around_seconds(gpu: GpuSpec, frame: pd.DataFrame, rows: Array, *, absorbed: bool) -> Array:
    """Seconds of the linear layers of modules, zero for kernels, with the shipped constants of dense layers."""
    seconds, gemm = np.zeros(len(frame)), load("gemm")
    heads = numbers(frame, "num_heads")[0]
    keys = scope(frame) + "\n" + framework(frame) + "\n" + text(frame, "gemm_type")
    for key, here in keys.groupby(keys.to_numpy()).indices.items():
        scope_name, framework_name, type_name = str(key).split("\n")
        if scope_name == _KERNEL:
            continue
        name = f"{framework_name}/{_LIBRARY.get(type_name, _LIBRARY_OTHERWISE)}/{type_name}"
        constants = constants_for(_BLOCKS_OF_VLLM.get(name, name), gemm)
        assert constants is not None
        dtype = dtype_of(type_name)
        seconds[here] = mla_projection_seconds(
            GemmConstants(**constants),
            gpu,
            rows[here],
            heads[here],
            absorbed=absorbed,
            weights=dtype.weights,
            activations=dtype.compute,
            down=scope_name != _NO_DOWN,
        )
        if absorbed:
            seconds[here] += _absorbed_seconds(framework_name, gpu, rows[here], heads[here])
    return seconds


def same_scope(group: str, other: str) -> bool:
    """A module never takes the constants of a kernel, nor a kernel those of a module."""
    return scope_of(group) == scope_of(other)


def _absorbed_seconds(made: str, gpu: GpuSpec, rows: Array, heads: Array) -> Array:
    """Seconds of both products of a framework, in bf16."""
    constants = constants_for(f"{made}/bmm/bfloat16", load("mla_bmm"))
    assert constants is not None
    products = AbsorbedConstants(**constants)
    one = partial(absorbed_seconds, products, gpu, rows, heads, replayed=True)
    return np.asarray(sum(one(n, k) for n, k in DEEPSEEK_V3.absorbed))
