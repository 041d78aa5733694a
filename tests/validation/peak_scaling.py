"""What twice the peak is worth: python -m tests.validation.peak_scaling.

FP8 has twice the peak of BF16 on the same H100, and is no more than 1.8 times as fast: how kernels fade as tensor cores
grow can be seen without another GPU. Prints
- for every framework the share of the peak of dense products as fitted in both types, and the exponent that joins the
  two, of which `fading` in moesim/hardware/gpu.py has the mean;
- without any formula the median of BF16 / FP8 times of the same large product, after launch and quantisation are taken
  off, by the time in FP8;
- how far constants of BF16, carried over to FP8 as to a GPU of twice the peak, are off with and without the exponent:
  median / 90th percentile of the absolute error and the median error, per cent, of rows of many tokens. Fused layers
  need none.
Blocks of FP8 add their partial sums outside the tensor cores; they are shown, the exponent does not rest on them.
Reads the constants and tables that ship with the package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from moesim.calibration import MEASURED
from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import load_layout
from moesim.calibration.predict import shipped
from moesim.hardware.gpu import peak_flops
from tests.validation.power_limit import large_rows

LAYOUT = load_layout("gemm")
EDGES_MS = (0.1, 0.3, 1, 3, np.inf)
WIDE, NARROW = "bfloat16", "fp8"
LIBRARIES = {"trtllm": "cublas", "sglang": "cutlass", "vllm": "cutlass"}
"""Of products in FP8; those in BF16 are cuBLAS's."""
SHAPE = ["framework", "m", "n", "k"]
BESIDE = {"launch_s": 0.0, "quantise_passes": 0.0, "quantise_row_s": 0.0}
"""Constants of what takes its time beside the product itself."""
MANY_TOKENS = 1024
CARRIED = {
    "gemm": [(f"{name}/cublas/{WIDE}", f"{name}/{library}/{NARROW}") for name, library in LIBRARIES.items()],
    "moe": [(f"trtllm/cutlass/{WIDE}", f"trtllm/cutlass/{NARROW}")],
}
"""Groups of a kind whose constants are taken, and whose rows are predicted with them."""


def exponents() -> pd.DataFrame:
    """A row a framework: the shares of the peak as fitted by data type, and `exponent`, share ~ peak^-exponent."""
    shares = pd.DataFrame(
        [(*name.split("/"), values["compute_share"]) for name, values in shipped(LAYOUT).items()],
        columns=["framework", "library", "dtype", "share"],
    )
    found = shares.pivot_table(index="framework", columns="dtype", values="share")
    return found.assign(exponent=np.log2(found[WIDE] / found[NARROW]))


def speedups() -> pd.DataFrame:
    """A row a product in a narrow type: how many times longer it takes in BF16 (`ratio`), and `milliseconds`."""
    frame, gpus, constants = large_rows(), published_gpus(), shipped(LAYOUT)
    alone = {name: {**values, **BESIDE} for name, values in constants.items()}
    beside_s = LAYOUT.predict(frame, gpus, constants)[:, 0] - LAYOUT.predict(frame, gpus, alone)[:, 0]
    frame["net_ms"] = frame["latency_ms"] - 1e3 * beside_s
    wide = frame["gemm_dtype"] == WIDE
    pairs = frame[~wide].merge(frame.loc[wide, [*SHAPE, "net_ms"]], on=SHAPE, suffixes=("", "_wide"))
    milliseconds = pd.cut(pairs["net_ms"], EDGES_MS)
    return pairs.assign(ratio=pairs["net_ms_wide"] / pairs["net_ms"], milliseconds=milliseconds)


def carried_over() -> pd.DataFrame:
    """Errors of groups in FP8 with constants of BF16, per cent, without an exponent and with the mean."""
    found = []
    for noun, pairs in CARRIED.items():
        kind = load_layout(noun)
        frame = pd.read_parquet(MEASURED / f"{noun}_h100_calib.parquet")
        frame = frame[kind.usable(frame) & (frame["m" if noun == "gemm" else "num_tokens"] >= MANY_TOKENS)]
        for wide, narrow in pairs:
            rows = frame[kind.group(frame) == narrow].reset_index(drop=True)
            own = {name: value for name, value in shipped(kind)[narrow].items() if name in (*BESIDE, "cache_speedup")}
            for exponent in (0.0, exponents()["exponent"].mean()):
                values = {**shipped(kind)[wide], **own}
                values["compute_share"] *= 2**-exponent
                seconds = kind.predict(rows, published_gpus(), {narrow: values})[:, 0]
                error = 100 * (seconds / (kind.unit_s * rows[kind.measured[0]]) - 1)
                size = error.abs()
                found.append(
                    (f"{noun} {narrow}", exponent, size.median(), size.quantile(0.9), error.median(), len(rows))
                )
    return pd.DataFrame(found, columns=["group", "exponent", "median", "p90", "bias", "rows"])


def main() -> None:
    """Print the tables."""
    found = exponents()
    print(found.round(3).to_string(), f"\nmean exponent {found['exponent'].mean():.3f}\n")
    h100 = published_gpus()["h100_sxm"]
    peaks = peak_flops(h100, "fp8") / peak_flops(h100, "bf16")
    by: dict[str, Any] = {
        "index": ["framework", "gemm_dtype"],
        "columns": "milliseconds",
        "values": "ratio",
        "observed": True,
    }
    cells = speedups().pivot_table(**by, aggfunc=lambda values: f"{values.median():.2f} ({len(values)})")
    print(f"times of BF16 / FP8, peaks are {peaks:.2f}\n{cells.to_string()}\n")
    print(f"constants of BF16 carried over to FP8, {MANY_TOKENS} tokens and more")
    print(carried_over().round(2).to_string(index=False))


if __name__ == "__main__":
    main()
