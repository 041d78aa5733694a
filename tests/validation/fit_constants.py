"""Fit the constants of the experts and of prefill attention on H100: python tests/validation/fit_constants.py.

Fitted: rows with evenly spread tokens only. bf16 on fused MoE layers of
TensorRT-LLM and vLLM (five shapes); fp8 on fused layers of TensorRT-LLM
together with DeepSeek-V3's wide expert parallelism (DeepGEMM), which share the
weights' bandwidth, the peak, the time per active expert and the norm. Fused
rows contain router and permutation, so they keep a launch and a traffic
constant of their own that is not shipped. Held out: every skewed row. Prefill
attention: heads 128 wide, full window, bf16; other widths are held out.

Needs the folder of MOESIM_DATA, whose measured/ holds the tables. Prints the
constants that moesim/hardware/constants.py holds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares
from token_loads import balanced, uniform

H100_BANDWIDTH = 3.352e12
H100_PEAK = {"bf16": 989.4e12, "fp8": 1978.9e12}
BYTES = {"bf16": 2.0, "fp8": 1.0}
TILES = (16, 32, 64, 128)
START = np.log([20e-6, 25e-6, 0.5e-6, 0.7, 0.85, 0.5, 0.5, 3.0])
LOW = np.log([1e-6, 1e-6, 1e-9, 0.1, 0.3, 0.05, 0.05, 1.0])
HIGH = np.log([1e-4, 1e-4, 1e-5, 1.0, 1.0, 5.0, 5.0, 8.0])
NAMES = ("launch_core", "launch_fused", "per_expert", "compute", "bandwidth", "traffic_core", "traffic_fused", "norm")


@dataclass(frozen=True)
class Rows:
    """Measured rows as the formula sees them; R rows, all [R]."""

    tokens: NDArray[np.float64]
    active: NDArray[np.float64]
    tiled: dict[int, NDArray[np.float64]]
    weights: NDArray[np.float64]
    flops: NDArray[np.float64]
    traffic: NDArray[np.float64]
    core: NDArray[np.bool_]
    seconds: NDArray[np.float64]


def rows_of(table: pd.DataFrame, dtype: str) -> Rows:
    """Evenly spread rows of a table with their loads and the bytes and FLOPs of their shapes."""
    draw = {"balanced": balanced, "uniform": uniform}
    loads = [
        draw[r.distribution](int(r.num_tokens), int(r.num_experts), int(r.topk), int(r.moe_ep_size))
        for r in table.itertuples()
    ]
    inner = (table.inter_size // table.moe_tp_size).to_numpy(dtype=np.float64)
    hidden, b = table.hidden_size.to_numpy(dtype=np.float64), BYTES[dtype]
    return Rows(
        tokens=np.array([x.sum() for x in loads], dtype=np.float64),
        active=np.array([(x > 0).sum() for x in loads], dtype=np.float64),
        tiled={t: np.array([(-(-x // t) * t).sum() for x in loads], dtype=np.float64) for t in TILES},
        weights=3 * hidden * inner * b,
        flops=6 * hidden * inner,
        traffic=hidden * (b + 2) + inner * (8 + 2 * b),
        core=(table.distribution == "uniform").to_numpy(),
        seconds=table.latency_ms.to_numpy() / 1e3,
    )


def predict(x: NDArray[np.float64], rows: Rows, dtype: str, tile: int) -> NDArray[np.float64]:
    """Seconds of every row for the logarithms of the constants, the formula of `expert_seconds`."""
    core0, fused0, per_expert, compute, bandwidth, core_traffic, fused_traffic, norm = np.exp(x)
    launch, share = np.where(rows.core, core0, fused0), np.where(rows.core, core_traffic, fused_traffic)
    work = rows.tiled[tile] * rows.flops / (compute * H100_PEAK[dtype])
    stream = rows.active * rows.weights / (bandwidth * H100_BANDWIDTH)
    joined = (work**norm + stream**norm) ** (1 / norm)
    return launch + per_expert * rows.active + rows.tokens * rows.traffic / (share * H100_BANDWIDTH) + joined


def fit(rows: Rows, weight: NDArray[np.float64], dtype: str, tile: int) -> tuple[float, NDArray[np.float64]]:
    """Cost and logarithms of the constants of one tile size."""

    def misfit(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return weight * np.log(predict(x, rows, dtype, tile) / rows.seconds)

    found = least_squares(misfit, START, bounds=(LOW, HIGH), loss="soft_l1", f_scale=0.1)
    print(f"  {dtype} tile {tile}: cost {found.cost:.2f}")
    return float(found.cost), found.x


def report(name: str, error: NDArray[np.float64]) -> None:
    """One line: rows, median and 90th percentile of the absolute percentage error."""
    median, p90 = np.median(error), np.quantile(error, 0.9)
    print(f"  {name}: {len(error)} rows, median {median:.1%}, 90th percentile {p90:.1%}")


def fit_prefill(table: pd.DataFrame) -> None:
    """Print launch, compute share and bandwidth share of causal attention, and their errors by head width."""
    table = table[(table.flag == "") & (table.window_size == 0) & (table.attn_dtype == "bfloat16")]
    rows = -(-table.isl // 128)
    spread = table.batch_size * table.num_heads * rows * (rows + 1) / 2 / 132
    work = np.maximum(spread, rows) * 4 * table.head_dim * 128 * 128 / (H100_PEAK["bf16"] / 132)
    heads = 2 * (table.num_heads + table.num_key_value_heads)
    stream = 2 * table.batch_size * table.isl * table.head_dim * heads / H100_BANDWIDTH
    seconds, fitted = table.latency_ms / 1e3, (table.head_dim == 128).to_numpy()

    def error(x: NDArray[np.float64]) -> NDArray[np.float64]:
        launch, compute, bandwidth = np.exp(x)
        return np.log(((launch + work / compute + stream / bandwidth) / seconds).to_numpy())

    start = np.log([1e-5, 0.6, 0.9])
    found = least_squares(lambda x: error(x)[fitted], start, loss="soft_l1", f_scale=0.1)
    print("prefill", dict(zip(("launch", "compute", "bandwidth"), np.exp(found.x).tolist(), strict=True)))
    report("heads 128 wide, fitted", np.abs(np.expm1(error(found.x)[fitted])))
    report("other widths, held out", np.abs(np.expm1(error(found.x)[~fitted])))


def main() -> None:
    """Print the constants and their errors."""
    folder = Path(os.environ["MOESIM_DATA"]) / "measured"
    fused = pd.read_parquet(folder / "moe_h100_calib.parquet")
    fused = fused[(fused.flag == "") & (fused.distribution == "balanced")]
    wide = pd.read_parquet(folder / "wideep_generation_h100_calib.parquet")
    wide = wide[wide.distribution == "uniform"]
    tensorrt, vllm = fused.framework == "TRTLLM", fused.framework == "VLLM"
    tables = {
        "bf16": fused[(tensorrt | vllm) & (fused.moe_dtype == "bfloat16")],
        "fp8": pd.concat([fused[tensorrt & (fused.moe_dtype == "fp8_block")], wide]),
    }
    for dtype, table in tables.items():
        rows = rows_of(table, dtype)
        # the 56 rows of the deployed kernel weigh as much as all fused ones together
        weight = np.where(rows.core, np.sqrt((~rows.core).sum() / max(1, rows.core.sum())), 1.0)
        fits = [(*fit(rows, weight, dtype, tile), tile) for tile in TILES]
        _, x, tile = min(fits, key=lambda found: found[0])
        print(dtype, {**dict(zip(NAMES, (float(f"{v:.4g}") for v in np.exp(x)), strict=True)), "tile": tile})
        error = np.abs(predict(x, rows, dtype, tile) / rows.seconds - 1)
        report("fused", error[~rows.core])
        if rows.core.any():
            report("wide expert parallelism, uniform", error[rows.core])

    fit_prefill(pd.read_parquet(folder / "attention_context_h100_calib.parquet"))


if __name__ == "__main__":
    main()
