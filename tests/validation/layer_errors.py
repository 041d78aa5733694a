"""Errors of all layers but the experts on rows that no shipped constant saw: python -m tests.validation.layer_errors.

Prints the table of the README: percent, median / 90th percentile and median of the signed error. Reads the tables that
ship with the package; what is held out of each, moesim.calibration.fit_layers says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from moesim.calibration.fit_layers import HELD_OUT
from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import load_layout
from moesim.calibration.predict import predict_columns

SHIPPED = Path(__file__).resolve().parents[2] / "moesim" / "calibration" / "measured"
LAYERS = (  # what, kind of table, regime ("" for all rows)
    ("dense products, weights beyond the L2 cache", "gemm", "weights beyond L2"),
    ("dense products, all", "gemm", ""),
    ("attention over prompts", "attention_context", ""),
    ("attention over the cache", "attention_generation", ""),
    ("latent attention over prompts, a whole module", "mla_context", "module"),
    ("the same for wide expert parallelism", "mla_context", "wideep_module"),
    ("latent attention over the cache, a whole module", "mla_generation", "module"),
    ("the same for wide expert parallelism", "mla_generation", "wideep_module"),
    ("products into the latent and out of it", "mla_bmm", ""),
    ("a feed-forward network as one graph", "mlp", ""),
    ("all-reduce inside a node", "allreduce", ""),
    ("elementwise", "elementwise", ""),
)


def rows() -> list[tuple[str, str, int, float, float, float]]:
    """What, what is held out, rows, median and 90th percentile of the absolute error and the median error, percent."""
    found = []
    for what, name, regime in LAYERS:
        kind = load_layout(name)
        frame = pd.read_parquet(SHIPPED / f"{name}_h100_calib.parquet")
        frame = frame[(kind.usable(frame) & ~kind.fitted(frame)).to_numpy()].reset_index(drop=True)
        frame = frame[(kind.regime(frame).eq(regime) | (regime == "")).to_numpy()].reset_index(drop=True)
        predicted = predict_columns(frame, kind, gpus=published_gpus())[:, 0]
        error = 100 * (predicted / (kind.unit_s * frame[kind.measured[0]].to_numpy()) - 1)
        size = np.abs(error)
        told = (float(np.median(size)), float(np.quantile(size, 0.9)), float(np.median(error)))
        found.append((what, HELD_OUT[name], len(frame), *told))
    return found


def main() -> None:
    """Print the table."""
    print("| layer | held out | rows | error | bias |\n|---|---|---|---|---|")
    for what, held_out, n, median, p90, bias in rows():
        print(f"| {what} | {held_out} | {n:,} | {median:.1f} / {p90:.1f} | {bias:+.1f} |")


if __name__ == "__main__":
    main()
