"""What the tables of latent attention share: scopes, groups, and the linear layers of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.calibration.fitting import Array, by_group, fit_group, measured_s, numbers, text, to_fit
from moesim.calibration.layouts.attention import cache_dtype, framework
from moesim.calibration.stand_in import stand_in
from moesim.hardware.constants import Constants, load
from moesim.hardware.constants.fitted import Search
from moesim.hardware.gemm import GemmConstants
from moesim.hardware.kernel_dtypes import dtype_of, nearest
from moesim.hardware.mla import DEEPSEEK_V3, AbsorbedConstants, absorbed_seconds, mla_projection_seconds
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
        constants = nearest(_stand_in(_BLOCKS_OF_VLLM.get(name, name), gemm), gemm)
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


def predict_by_scope(
    frame: pd.DataFrame,
    gpus: Mapping[str, GpuSpec],
    constants: Constants,
    seconds: Callable[[Mapping[str, float], GpuSpec, pd.DataFrame], Array],
) -> NDArray[np.float64]:
    """Seconds of all rows, [R, 1]; a module never takes the constants of a kernel."""
    predicted = np.full((len(frame), 1), np.nan)
    for name, where in scope(frame).groupby(scope(frame).to_numpy()).indices.items():
        part = frame.iloc[where]
        mine = {key: values for key, values in constants.items() if key.split("/")[1].startswith(f"{name}-")}
        for rows, gpu, c in by_group(part, stand_in(group(part), mine), gpus, mine):
            predicted[where[rows], 0] = seconds(c, gpu, part.iloc[rows])
    return predicted


def fit_modules(
    frame: pd.DataFrame,
    gpus: Mapping[str, GpuSpec],
    search: Mapping[str, Search],
    fixed: Callable[[str], Mapping[str, float]],
    around: Callable[[GpuSpec, pd.DataFrame], Array],
    seconds: Callable[[Mapping[str, float], GpuSpec, pd.DataFrame, Array], Array],
    pull: float = 0.0,
) -> dict[str, dict[str, float]]:
    """The constants of every group with more rows than constants.

    Linear layers have constants of their own, so their time is worked out
    once, before the search. `fixed`: constants that a group does not fit;
    `pull` is that of `fit_group`.
    """
    found = {}
    for name, rows, known, free in to_fit(frame, group(frame), search, lambda name, _rows: fixed(name)):
        parts = [(gpus[str(system)], part) for system, part in rows.groupby("system", sort=True)]
        timed = [(gpu, part, around(gpu, part)) for gpu, part in parts]
        predict = partial(_all_parts, timed, seconds)
        measured = np.concatenate([measured_s(part) for _, part in parts])
        found[name] = fit_group(search, free, known, predict, measured, pull=pull)
    return found


def _absorbed_seconds(made: str, gpu: GpuSpec, rows: Array, heads: Array) -> Array:
    """Seconds of both products of a framework, in bf16."""
    constants = nearest(f"{made}/bmm/bfloat16", load("mla_bmm"))
    assert constants is not None
    products = AbsorbedConstants(**constants)
    one = partial(absorbed_seconds, products, gpu, rows, heads, replayed=True)
    return np.asarray(sum(one(n, k) for n, k in DEEPSEEK_V3.absorbed))


def _all_parts(
    timed: list[tuple[GpuSpec, pd.DataFrame, Array]],
    seconds: Callable[[Mapping[str, float], GpuSpec, pd.DataFrame, Array], Array],
    c: Mapping[str, float],
) -> Array:
    return np.concatenate([seconds(c, gpu, part, around) for gpu, part, around in timed])


def _stand_in(name: str, constants: Constants) -> str:
    import pandas as pd

    return str(stand_in(pd.Series([name]), constants).iloc[0])
