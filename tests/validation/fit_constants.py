"""Fit the constants of prefill attention on H100: python tests/validation/fit_constants.py.

Fitted: heads 128 wide, full window, bf16; other widths are held out. Needs the
folder of MOESIM_DATA, whose measured/ holds the tables. Prints the constants
that moesim/hardware/constants holds. Those of the experts: fit_experts.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

H100_BANDWIDTH = 3.352e12
H100_PEAK = {"bf16": 989.4e12, "fp8": 1978.9e12}


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
    fit_prefill(pd.read_parquet(folder / "attention_context_h100_calib.parquet"))


if __name__ == "__main__":
    main()
