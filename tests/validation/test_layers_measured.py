"""Layers against measured H100 kernels whose shapes no shipped constant saw; what is held out, each kind says."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import load_layout
from moesim.calibration.predict import predict_columns
from moesim.hardware.allreduce import AllReduceConstants, allreduce_seconds
from moesim.hardware.constants import load
from moesim.hardware.gpu import wide_sm_efficiency
from tests.validation import peak_scaling, power_limit

SHIPPED = Path(__file__).parents[2] / "moesim" / "calibration" / "measured"

# kind, regimes ("" for all rows), median and 90th percentile of the absolute error in percent, rounded up
REACHED = [
    ("gemm", "weights beyond L2", 3.8, 12.5),
    ("gemm", "", 4.1, 15.2),
    ("attention_context", "", 4.5, 13.0),
    ("attention_generation", "", 4.2, 15.5),
    ("mla_context", "module", 3.0, 8.5),
    ("mla_context", "", 3.2, 9.5),
    ("mla_generation", "module", 3.4, 9.5),
    ("mla_generation", "wideep_module", 3.6, 13.0),
    ("mla_generation", "", 4.2, 12.0),
    ("mla_bmm", "", 2.5, 8.5),
    ("mlp", "", 5.5, 16.5),
    ("allreduce", "", 2.6, 9.0),
    ("elementwise", "", 2.8, 14.0),
]


@pytest.mark.parametrize("name, regime, median, p90", REACHED)
def test_errors_on_shapes_never_fitted(name: str, regime: str, median: float, p90: float) -> None:
    """Median and 90th percentile stay below their bounds."""
    folder = Path(os.environ["MOESIM_DATA"]) / "measured" if "MOESIM_DATA" in os.environ else SHIPPED
    kind = load_layout(name)
    frame = pd.read_parquet(folder / f"{name}_h100_calib.parquet")
    frame = frame[(kind.usable(frame) & ~kind.fitted(frame)).to_numpy()].reset_index(drop=True)
    frame = frame[kind.regime(frame).eq(regime).to_numpy() | (regime == "")].reset_index(drop=True)
    assert len(frame) >= 18
    predicted = predict_columns(frame, kind, gpus=published_gpus())[:, 0]
    error = 100 * np.abs(predicted / (kind.unit_s * frame[kind.measured[0]].to_numpy()) - 1)
    assert np.median(error) < median
    assert np.quantile(error, 0.9) < p90


def test_measured_products_lose_speed_the_longer_they_compute() -> None:
    """Why there is a power limit: the share of the peak falls beyond a millisecond, and the prediction's with it."""
    products = power_limit.large_products()
    products = products[products["dtype"].eq("bfloat16")]
    falls = []
    for whose in ("measured", "predicted"):
        share, peak_ms = products[whose], products["at_peak_ms"]
        falls.append(share[peak_ms > 2].median() / share[peak_ms.between(0.3, 0.6)].median())
    assert falls[0] < 0.94
    assert falls[1] == pytest.approx(falls[0], abs=0.03)


def test_measured_products_gain_less_than_their_peak() -> None:
    """Why shares of the peak fade on faster GPUs: FP8 against BF16 on the same one, fitted and without a formula."""
    exponent = peak_scaling.exponents()["exponent"]
    assert exponent.between(0.09, 0.19).all()
    h100 = published_gpus()["h100_sxm"]
    twice = dataclasses.replace(h100, peak_tflops={"bf16": 2 * h100.peak_tflops["bf16"]})
    assert wide_sm_efficiency(twice, "bf16") == pytest.approx(2 ** -exponent.mean(), abs=0.005)
    products = peak_scaling.speedups().query("gemm_dtype == 'fp8'")
    ratio = products.groupby("framework")["ratio"].median()
    assert ratio.between(1.7, 1.9).all()


def test_constants_of_bf16_predict_fp8_better_with_fading_where_it_is_applied() -> None:
    """FP8 as a GPU of twice the peak: products need it, fused layers, which go without, do not."""
    errors = peak_scaling.carried_over().pivot_table(index="group", columns="exponent", values=["p90", "bias"])
    plain, faded = sorted(errors["p90"].columns)
    products = errors.index.str.startswith("gemm")
    assert (products.sum(), (~products).sum()) == (3, 1)
    assert (errors["p90", faded] < errors["p90", plain])[products].all()
    assert (errors["bias", faded].abs() < errors["bias", plain].abs())[products].all()
    assert (errors["p90", faded] > errors["p90", plain])[~products].all()


def test_sums_of_4_gpus_from_those_of_2_and_8() -> None:
    """The sizes that TensorRT-LLM leaves to NCCL on 4 GPUs, by nccl-tests; constants saw 2 and 8 GPUs."""
    rows = pd.read_parquet(SHIPPED / "nccl_h100_calib.parquet")
    rows = rows[rows["op_name"].eq("all_reduce") & rows["num_gpus"].eq(4) & rows["message_size"].ge(2**20)]
    c = AllReduceConstants(**load("allreduce")["trtllm/custom/graph"])
    message = 2.0 * rows["message_size"].to_numpy()
    predicted = allreduce_seconds(c, published_gpus()["h100_sxm"], gpus=4, message=message)
    error = 100 * np.abs(predicted / (1e-3 * rows["latency"].to_numpy()) - 1)
    assert len(error) == 9
    assert np.median(error) < 5.5
    assert np.quantile(error, 0.9) < 14.5


def test_the_table_of_the_readme_is_what_the_command_prints() -> None:
    """Line by line."""
    root = Path(__file__).parents[2]
    readme = (root / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("`python -m tests.validation.layer_errors`") :]
    quoted = [line for line in section[: section.index("Collectives,")].splitlines() if line.startswith("|")]
    command = [sys.executable, "-m", "tests.validation.layer_errors"]
    printed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    assert quoted == printed.splitlines()


@pytest.mark.parametrize("name", sorted({name for name, *_ in REACHED}))
def test_every_row_is_predicted_on_a_gpu_never_measured(name: str) -> None:
    """Frameworks and kernels without constants take the nearest."""
    # another framework, another kernel, another data type: the nearest group, never nothing
    kind = load_layout(name)
    frame = pd.read_parquet(SHIPPED / f"{name}_h100_calib.parquet").head(200)
    strange = frame.assign(system="b200_sxm", framework="XLLM")
    if "kernel_source" in frame:
        strange["kernel_source"] = "some_new_kernel"
    for column in ("gemm_dtype", "gemm_type", "bmm_dtype", "quant_type"):
        if column in frame:
            strange[column] = "nvfp4"
    strange = strange.drop(columns=[c for c in ("flag", "weights_fit_l2", "version") if c in strange])
    seconds = predict_columns(strange, kind)
    assert np.isfinite(seconds).all()
    assert (seconds > 0).all()
