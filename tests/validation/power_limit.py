"""What the power limit takes from long products: python -m tests.validation.power_limit.

Share of the published peak that large dense products on H100 reach, by the time that they would compute at the peak,
measured / predicted, median of each kernel. Reads the table that ships with the package. Beyond half a millisecond the
clock falls; what is predicted knows it by `throttle`, a constant of each kernel.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from moesim.calibration import MEASURED
from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import load_layout
from moesim.calibration.predict import predict_columns
from moesim.hardware.gpu import peak_flops
from moesim.hardware.kernel_dtypes import dtype_of

EDGES_MS = (0.1, 0.3, 0.6, 1, 2, 4, np.inf)
LARGE_WIDTH, LARGE_ROWS = 2048, 1024


def large_rows() -> pd.DataFrame:
    """Rows of the shipped table that are large in all three sizes, with `kernel`, whose constants they have."""
    kind = load_layout("gemm")
    frame = pd.read_parquet(MEASURED / "gemm_h100_calib.parquet")
    large = frame[["n", "k"]].ge(LARGE_WIDTH).all(axis=1) & frame["m"].ge(LARGE_ROWS)
    frame = frame[kind.usable(frame) & large].reset_index(drop=True)
    return frame.assign(kernel=kind.group(frame))


def large_products() -> pd.DataFrame:
    """A row a large product: `kernel`, `dtype`, `at_peak_ms`, and the shares of the peak `measured`, `predicted`."""
    frame, gpus = large_rows(), published_gpus()
    peak = frame["gemm_dtype"].map(lambda name: peak_flops(gpus["h100_sxm"], dtype_of(name).compute))
    at_peak_ms = 1e3 * 2.0 * frame["m"] * frame["n"] * frame["k"] / peak
    predicted_ms = 1e3 * predict_columns(frame, load_layout("gemm"), gpus=gpus)[:, 0]
    return pd.DataFrame(
        {
            "kernel": frame["kernel"],
            "dtype": frame["gemm_dtype"],
            "at_peak_ms": at_peak_ms,
            "measured": at_peak_ms / frame["latency_ms"],
            "predicted": at_peak_ms / predicted_ms,
        }
    )


def shares() -> pd.DataFrame:
    """A row a kernel, a column an interval of milliseconds at the peak: measured / predicted share of the peak."""
    each = large_products()
    each["milliseconds"] = pd.cut(each["at_peak_ms"], EDGES_MS)
    median = each.groupby(["kernel", "milliseconds"], observed=True)[["measured", "predicted"]].median()
    cells = median["measured"].map("{:.2f}".format) + " / " + median["predicted"].map("{:.2f}".format)
    return cells.reset_index(name="share").pivot_table(
        index="kernel", columns="milliseconds", values="share", aggfunc="first"
    )


def main() -> None:
    """Print the table."""
    print(shares().to_string())


if __name__ == "__main__":
    main()
