"""Predicted against measured expert time of DeepSeek-V3 on H100: python -m tests.validation.expert_time.

The measured rows time the most loaded rank of one MoE layer in decode, for
skewed experts as the mean of 5 draws. The exponent 0.6 was never fitted.
Prints a table and writes results/expert_time.html (measured values as dots, predictions as lines).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from moesim.calibration.layout import load_layout
from moesim.hardware.constants import load
from moesim.hardware.expert import calibrated_gpu

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "moesim" / "calibration" / "measured" / "wideep_generation_h100_calib.parquet"
FIGURE = ROOT / "results" / "expert_time.html"
FITTED, HELD_OUT = "fitted", "held out"
LAYOUT = load_layout("wideep_generation")


def predictions(table: pd.DataFrame) -> pd.DataFrame:
    """The measured rows with tokens `per_rank`, `predicted_ms`, the relative `error` and whether they were fitted."""
    predicted = 1e3 * LAYOUT.predict(table, {"h100_sxm": calibrated_gpu()}, load("experts"))[:, 0]
    return table.assign(
        per_rank=table.num_tokens // table.moe_ep_size,
        predicted_ms=predicted,
        error=predicted / table.latency_ms - 1,
        rows=np.where(LAYOUT.fitted(table), FITTED, HELD_OUT),
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Median and 90th percentile of the absolute error in percent, by distribution."""
    lines = [(str(name), part) for name, part in frame.groupby("distribution")]
    error = [100 * part.error.abs() for _, part in lines]
    return pd.DataFrame(
        {
            "distribution": [name for name, _ in lines],
            "rows": [part.rows.iloc[0] for _, part in lines],
            "n": [len(part) for _, part in lines],
            "median %": [e.median() for e in error],
            "p90 %": [e.quantile(0.9) for e in error],
        }
    )


def draw(frame: pd.DataFrame, path: Path) -> None:
    """One panel a distribution; a colour for each number of ranks."""
    import plotly.express as px
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = ["uniform", "power_law_0.6", "power_law_1.01"]
    titles = [f"{name} ({frame[frame.distribution == name].rows.iloc[0]})" for name in names]
    figure = make_subplots(cols=3, rows=1, shared_yaxes=True, subplot_titles=titles)
    for column, name in enumerate(names, start=1):
        for i, (ep, part) in enumerate(frame[frame.distribution == name].groupby("moe_ep_size")):
            colour = px.colors.qualitative.Dark24[i]
            common = {"x": part.per_rank, "legendgroup": str(ep), "marker": {"color": colour}}
            show = column == 1
            measured = go.Scatter(y=part.latency_ms, mode="markers", name=f"{ep} ranks", showlegend=show, **common)
            predicted = go.Scatter(y=part.predicted_ms, mode="lines", showlegend=False, **common)
            figure.add_traces([measured, predicted], rows=1, cols=column)
    figure.update_xaxes(type="log", title="tokens per rank")
    figure.update_yaxes(type="log", title="ms per layer", col=1)
    figure.update_layout(title="DeepSeek-V3 experts on H100, most loaded rank: measured dots, predicted lines")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    """Print the tables and write the figure."""
    frame = predictions(pd.read_parquet(TABLE)).sort_values(["distribution", "moe_ep_size", "per_rank"])
    print("Expert time of one layer, ms: measured / predicted, by ranks and tokens per rank")
    frame["cell"] = [f"{m:.3f}/{p:.3f}" for m, p in zip(frame.latency_ms, frame.predicted_ms, strict=True)]
    for name, part in frame.groupby("distribution"):
        print(f"\n{name} ({part.rows.iloc[0]})")
        print(part.pivot_table(index="moe_ep_size", columns="per_rank", values="cell", aggfunc="first").to_string())
    print("\nAbsolute error\n" + summary(frame).to_string(index=False, float_format="%.1f"))
    draw(frame, FIGURE)
    print(f"\nFigure: {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
