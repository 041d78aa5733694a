"""What a short formula is off on the same rows: python -m tests.validation.simple_forms h100_sxm h200_sxm b200_sxm.

Fits two forms to the shipped tables of H100, as a calculator would have them, and prints their errors beside moesim's
as `other_gpus.py` counts them: what the detail of moesim's formulas is worth, on H100 and where only the published
specifications are others. Needs an installed aiconfigurator-core (extra `measured`).

A fused layer, seven constants a kernel and data type, of the most loaded rank's loads n_e:
    launch + a x active experts + b x tokens x hidden + c x rows x (2 hidden + 3 inner)
    + sum over experts of norm(weights / bandwidth, FLOPs of whole tiles of 64 rows / peak)
A dense product, six constants a library and data type:
    launch + a x k + norm(FLOPs of whole tiles / peak, bytes / bandwidth) + b x what a quantisation moves
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pandas as pd

from moesim.calibration.columns import numbers
from moesim.calibration.fitting import fit_constants
from moesim.calibration.gpus import gpu_of, published_gpus
from moesim.calibration.layout import load_layout
from moesim.calibration.layouts.expert_rows import EVEN, KEY, ungated
from moesim.calibration.layouts.gemm import resident
from moesim.calibration.reading import predict_usable
from moesim.calibration.scores import well_behaved
from moesim.hardware.constants.fitted import Search
from moesim.hardware.expert import GATED
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.hardware.kernel_dtypes import dtype_of, kernel_dtype
from moesim.hardware.p_norm import p_norm
from moesim.hardware.token_loads import token_loads
from moesim.types import DTYPE_BYTES, GpuSpec
from tests.validation.other_gpus import LAYERS, SAME, counted, error, measured_on_h100, tables_of

Times = Callable[[Mapping[str, float], GpuSpec], np.ndarray]
CHUNK = 20000
TILE = 64
DRAWS = 8

LAYER = {
    "launch_s": Search(25e-6, 1e-6, 2e-4),
    "expert_s": Search(3e-7, 1e-9, 1e-5),
    "token_bytes": Search(2.0, 1e-3, 50.0),
    "row_bytes": Search(2.0, 1e-3, 100.0),
    "bandwidth_share": Search(0.85, 0.2, 1.1),
    "compute_share": Search(0.8, 0.1, 2.0),
    "norm": Search(4.0, 1.0, 20.0),
}
PRODUCT = {
    "launch_s": Search(3e-6, 3e-7, 3e-5),
    "per_k_s": Search(4e-10, 1e-13, 1e-8),
    "compute_share": Search(0.7, 0.2, 1.2),
    "bandwidth_share": Search(0.9, 0.3, 1.1),
    "norm": Search(3.0, 1.0, 20.0),
    "quantise": Search(1.0, 1e-3, 20.0),
}


@cache
def padded_loads(distribution: str, *sizes: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Loads in whole tiles, how many experts a draw have each, active experts and rows a draw."""
    loads = token_loads(distribution, *sizes, 1 if distribution in EVEN else DRAWS)
    values, counts = np.unique(np.ceil(loads / TILE) * TILE, return_counts=True)
    return values, counts / len(loads), (loads > 0).sum() / len(loads), loads.sum() / len(loads)


def layers(frame: pd.DataFrame, dtype_name: str) -> Times:
    """Seconds of fused layers by constants and GPU."""
    dtype = kernel_dtype(dtype_name)
    found = [
        padded_loads(str(name), *map(int, sizes))
        for name, *sizes in frame[list(KEY)].itertuples(index=False, name=None)
    ]
    widest = max(len(values) for values, *_ in found)
    padded, counts = (
        np.stack([np.pad(values, (0, widest - len(values))) for values in columns])
        for columns in ([each[0] for each in found], [each[1] for each in found])
    )
    active, rows = (np.array([each[i] for each in found]) for i in (2, 3))
    tokens, hidden, inner, slices = numbers(frame, "num_tokens", "hidden_size", "inter_size", "moe_tp_size")
    inner = np.ceil(inner / slices)
    weights = np.where(ungated(frame), GATED - 1, GATED) * hidden * inner

    def seconds(c: Mapping[str, float], gpu: GpuSpec) -> np.ndarray:
        bandwidth = memory_bandwidth(gpu)
        compute = padded * (2.0 * weights / (c["compute_share"] * peak_flops(gpu, dtype.compute)))[:, None]
        stream = (padded > 0) * (weights * dtype.weight_bytes / (c["bandwidth_share"] * bandwidth))[:, None]
        experts = (p_norm(compute, stream, c["norm"]) * counts).sum(axis=1)
        moved = c["token_bytes"] * tokens * hidden + c["row_bytes"] * rows * (2 * hidden + 3 * inner)
        return np.asarray(c["launch_s"] + c["expert_s"] * active + moved / bandwidth + experts)

    return seconds


def products(frame: pd.DataFrame, dtype_name: str) -> Times:
    """Seconds of dense products by constants and GPU."""
    dtype, streamed = dtype_of(dtype_name), ~resident(frame).to_numpy(dtype=bool)
    m, n, k = numbers(frame, "m", "n", "k")
    each = DTYPE_BYTES[dtype.compute]
    flops = 2.0 * np.ceil(m / TILE) * TILE * np.ceil(n / 128) * 128 * k
    moved = streamed * n * k * dtype.weight_bytes + m * k * each + 2.0 * m * n

    def seconds(c: Mapping[str, float], gpu: GpuSpec) -> np.ndarray:
        compute = flops / (c["compute_share"] * peak_flops(gpu, dtype.compute))
        stream = moved / (c["bandwidth_share"] * memory_bandwidth(gpu))
        joined = p_norm(compute, stream, c["norm"])
        quantised = c["quantise"] * 3.0 * m * k / memory_bandwidth(gpu) if each < DTYPE_BYTES["bf16"] else 0.0
        return c["launch_s"] + c["per_k_s"] * k + joined + quantised

    return seconds


def of_gpu(times: Times, gpu: GpuSpec) -> Callable[[Mapping[str, float]], np.ndarray]:
    """Seconds by constants on one GPU."""
    return lambda constants: times(constants, gpu)


FORMS = {"moe": (LAYER, layers), "gemm": (PRODUCT, products)}


def fitted(kind_name: str) -> dict[str, dict[str, float]]:
    """The form's constants of every group whose own constants ship, from the rows that these saw."""
    kind, (search, form) = load_layout(kind_name), FORMS[kind_name]
    frame = measured_on_h100(kind_name)
    frame = frame[kind.usable(frame) & kind.fitted(frame)].reset_index(drop=True)
    if kind_name == "moe":
        frame = frame[well_behaved(frame)].reset_index(drop=True)
    found, h100 = {}, published_gpus()["h100_sxm"]
    for name, rows in frame.groupby(kind.group(frame)):
        times = form(rows, str(name).rpartition("/")[2])
        measured = rows[kind.measured[0]].to_numpy() * kind.unit_s
        found[str(name)] = fit_constants(search, list(search), {}, of_gpu(times, h100), measured)
    return found


def errors(system: str, kind_name: str, constants: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Rows of a system that count and have constants, with `short`, the error of the short formula, beside `error`."""
    form, gpu, found = FORMS[kind_name][1], gpu_of(system), []
    assert gpu is not None
    for table in (table for table in tables_of(system) if table.layout.name == kind_name):
        scores = counted(table, predict_usable(table)).query("known").reset_index(drop=True)
        frame = table.frame.loc[scores["row"]].reset_index(drop=True)
        for name, rows in frame.groupby(table.layout.group(frame)).indices.items():
            for first in range(0, len(rows), CHUNK):
                here = rows[first : first + CHUNK]
                times = form(frame.iloc[here], str(name).rpartition("/")[2])
                part = scores.iloc[here]
                found.append(part.assign(short=times(constants[str(name)], gpu) / part["measured_s"] - 1))
    return pd.concat(found)


def main() -> None:
    """Print a table, two columns a system."""
    systems = sys.argv[1:] or ["h100_sxm", "h200_sxm", "b200_sxm"]
    print("| | " + " | ".join(f"{system}, moesim | short formula" for system in systems) + " |")
    print("|---|" + "---|" * (2 * len(systems)))
    for kind_name in FORMS:
        constants = fitted(kind_name)
        frames = [errors(system, kind_name, constants) for system in systems]
        for same, words in SAME.items():
            parts = [frame[frame["same"] == same] for frame in frames]
            cells = [error(part[whose]) for part in parts for whose in ("error", "short")]
            print(f"| {LAYERS[kind_name]}, {words} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
