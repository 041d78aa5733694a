"""Tables of measured expert layers: recognised, grouped, predicted, fitted; errors on rows never fitted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from moesim.calibration import fit_experts
from moesim.calibration.layout import layout_of, load_layout
from moesim.calibration.layouts import expert_fit, expert_rows, moe, wideep_context
from moesim.errors import InputError
from moesim.hardware import ExpertKernel, ExpertShape
from moesim.hardware.constants import load
from moesim.hardware.expert import ExpertConstants, calibrated_gpu, expert_time, summarize
from moesim.hardware.kernel_dtypes import kernel_dtype, nearest_group
from moesim.hardware.token_loads import token_loads

GPUS = {"h100_sxm": calibrated_gpu()}
DATA = Path(os.environ.get("MOESIM_DATA", "")) / "measured"
needs_data = pytest.mark.skipif(not (DATA / "moe_h100_calib.parquet").is_file(), reason="MOESIM_DATA has no measured/")


def frame(**columns: Any) -> pd.DataFrame:
    """A table of as many rows as the longest column; what is not said is a Qwen3 layer of TensorRT-LLM."""
    usual = {
        "system": "h100_sxm",
        "framework": "TRTLLM",
        "version": "1.3.0rc20",
        "kernel_source": "moe_torch_flow_cutlass",
        "moe_dtype": "fp8_block",
        "hidden_size": 4096,
        "inter_size": 1536,
        "topk": 8,
        "num_experts": 128,
        "moe_tp_size": 1,
        "moe_ep_size": 4,
        "distribution": "balanced",
        "num_tokens": 64,
        "latency_ms": 1.0,
    }
    rows = max([len(value) for value in columns.values() if isinstance(value, list)], default=1)
    return pd.DataFrame({**usual, **columns}, index=range(rows))


def unthrottled(group: str) -> tuple[ExpertKernel, dict[str, dict[str, float]]]:
    """The kernel of a group, and all constants, as if the power limit took nothing: timed alone is as in service."""
    kernel = ExpertKernel.from_preset(group)
    constants = {name: {**values, "throttle": 0.0} for name, values in load("experts").items()}
    return replace(kernel, constants=replace(kernel.constants, throttle=0.0)), constants


@pytest.mark.parametrize(
    "stem, name",
    [
        ("moe_h100_calib", "moe"),
        ("moe_perf", "moe"),
        ("wideep_context_moe_perf", "wideep_context"),
        ("wideep_generation_h200", "wideep_generation"),
        ("wideep_trtllm_eplb_b200", "wideep_trtllm_eplb"),
        ("anything", "moe"),
    ],
)
def test_kinds_are_known_by_name_then_by_columns(stem: str, name: str) -> None:
    """Names of wide expert parallelism, and any name for fused layers."""
    found = layout_of(stem, frame().columns)
    assert found is not None
    assert found.name == name


def test_groups_are_framework_kernel_and_data_type() -> None:
    """Spellings of sources and types are made alike."""
    table = frame(
        framework=["TRTLLM", "VLLM", "VLLM", "SGLang"],
        kernel_source=[
            "moe_torch_flow_cutlass",
            "vllm_fp8moe_flashinfer_cutlass_flashinferexperts",
            "vllm_modeloptfp8moe_flashinfer_cutlass_flashinferexperts",
            "sglang_fused_moe_triton",
        ],
    )
    assert moe.group(table).tolist() == [
        "trtllm/cutlass/fp8_block",
        "vllm/cutlass/fp8_block",
        "vllm/modelopt/fp8_block",
        "sglang/triton/fp8_block",
    ]


def test_a_group_never_fitted_takes_the_nearest() -> None:
    """First by framework and data type."""
    known = load("experts")
    assert nearest_group("trtllm/cutlass/fp8", known) == "trtllm/cutlass/fp8"
    assert nearest_group("trtllm/new-kernel/fp8", known) == "trtllm/cutlass/fp8"
    assert nearest_group("else/kernel/fp8", known) == "trtllm/cutlass/fp8"
    assert nearest_group("trtllm/cutlass/nvfp4", known) == "trtllm/cutlass/fp8"
    assert nearest_group("vllm/triton/fp8", known) == "vllm/triton/fp8_block"
    assert nearest_group("sglang/deepgemm/fp8_block", known) == "sglang/triton/fp8_block"
    assert nearest_group("sglang/deepep-decode/nvfp4", known) == "sglang/deepep-decode/fp8_block"
    assert nearest_group("vllm/triton/float16", known) == "vllm/triton/bfloat16"
    assert nearest_group("trtllm/cutlass/strange", known) is None


def test_a_prediction_is_the_mean_over_draws_of_the_kernel() -> None:
    """Balanced loads have one draw."""
    table = frame(distribution=["balanced", "power_law_1.2"], moe_tp_size=2)
    kernel, constants = unthrottled("trtllm/cutlass/fp8_block")
    predicted = moe.LAYOUT.predict(table, GPUS, constants)
    shape = ExpertShape(hidden_size=4096, inner_size=768, n_experts=128, top_k=8, n_ranks=4)
    for row, distribution in enumerate(table.distribution):
        loads = token_loads(distribution, 64, 128, 8, 4)
        expected = kernel.time(loads, shape, tokens=64, mean_load=64 * 8 / 128).mean()
        assert predicted[row, 0] == pytest.approx(expected, rel=1e-12)


def test_what_is_not_known_is_nan_and_the_rest_does_not_change() -> None:
    """Unknown distributions, types and systems."""
    table = frame(
        distribution=["balanced", "zipf", "balanced", "power_law_1.01_eplb", "balanced"],
        moe_dtype=["fp8_block", "fp8_block", "strange", "fp8_block", "fp8_block"],
        system=["h100_sxm", "h100_sxm", "h100_sxm", "h100_sxm", "other"],
    )
    predicted = moe.LAYOUT.predict(table, GPUS, load("experts"))[:, 0]
    assert np.isnan(predicted).tolist() == [False, True, True, True, True]
    assert predicted[0] == moe.LAYOUT.predict(frame(), GPUS, load("experts"))[0, 0]


def test_tables_without_flags_lose_their_known_artefacts() -> None:
    """Spikes, and rows whose times do not follow from their sizes."""
    tokens = [1, 2, 4, 8]
    table = pd.concat(
        [
            frame(num_tokens=tokens, latency_ms=[1.0, 3.0, 2.0, 2.5]),  # 3.0 is a spike
            frame(framework="SGLang", inter_size=14336, num_experts=8, topk=2, moe_ep_size=[1, 2]),
            frame(framework=["TRTLLM", "VLLM"], hidden_size=7168, num_experts=256),
            frame(num_experts=64, moe_tp_size=[1, 2], latency_ms=[1.0, 1.4]),  # half of the work takes longer
        ],
        ignore_index=True,
    )
    assert moe.usable(table).tolist() == [True, False, True, True, True, False, True, False, True, False]
    assert moe.usable(table.assign(flag="")).all()


def test_experts_without_a_gate_have_two_matrices() -> None:
    """As the kernel or a known model says; work and bytes of weights are two thirds, and so is what lies between."""
    table = frame(kernel_source=["moe_torch_flow_cutlass", "moe_torch_flow_nongated"], num_tokens=65536, moe_ep_size=1)
    assert expert_rows.ungated(table).tolist() == [False, True]
    nemotron = frame(hidden_size=2688, inter_size=1856, topk=6)
    assert expert_rows.ungated(nemotron).all()
    kernel, constants = unthrottled("trtllm/cutlass/fp8_block")
    gated, ungated = moe.LAYOUT.predict(table, GPUS, constants)[:, 0]
    shape = ExpertShape(hidden_size=4096, inner_size=1536, n_experts=128, top_k=8, matrices=2)
    loads = token_loads("balanced", 65536, 128, 8, 1)
    assert ungated == pytest.approx(kernel.time(loads, shape, tokens=65536, mean_load=4096)[0], rel=1e-12)
    assert 2 / 3 < ungated / gated < 0.85


def test_ungated_time_is_two_thirds_where_only_the_inner_width_counts() -> None:
    """Two matrices of three."""
    own = dict.fromkeys(load("experts")["trtllm/cutlass/fp8_block"], 0.0) | {"row_inner": 6.0, "choice_inner": 2.0}
    usable = {"bandwidth_share": 1.0, "compute_share": 1.0, "norm": 4.0, "scan_norm": 4.0, "tile_low": 16.0}
    constants = ExpertConstants(**{**own, **usable, "tile_high": 16.0, "sm_bytes_per_s": 1e9})
    shape = ExpertShape(hidden_size=64, inner_size=1 << 20, n_experts=4, top_k=1)
    rows = summarize(np.full((1, 4), 64), None, (16, 16))
    gpu, dtype = calibrated_gpu(), kernel_dtype("fp8_block")
    three = expert_time(rows, shape, 256, gpu, dtype, constants)
    two = expert_time(rows, replace(shape, matrices=2), 256, gpu, dtype, constants)
    assert two / three == pytest.approx(2 / 3, rel=1e-12)


def test_prefill_is_handed_all_tokens_and_padded_counts() -> None:
    """Counts are rounded up to 128."""
    table = frame(framework="SGLang", distribution=["uniform", "power_law_1.01"], num_tokens=8192, num_experts=256)
    received = wideep_context.TIMING.received_tokens
    assert received is not None
    assert received(table).tolist() == [8192, 8192]
    assert wideep_context.usable(table).all()
    assert not wideep_context.usable(table.assign(num_tokens=4096)).any()
    kernel, constants = unthrottled("sglang/deepep-prefill/fp8_block")
    shape = ExpertShape(hidden_size=4096, inner_size=1536, n_experts=256, top_k=8, n_ranks=4)
    loads = -(-token_loads("power_law_1.01", 8192, 256, 8, 4) // 128) * 128
    expected = wideep_context.IDLE_S + kernel.time(loads, shape, tokens=8192, mean_load=256).mean()
    assert wideep_context.LAYOUT.predict(table, GPUS, constants)[1, 0] == pytest.approx(expected, rel=1e-12)


def test_rows_after_load_balancing_are_not_scored() -> None:
    """Nor those of very few tokens."""
    kind = load_layout("wideep_trtllm_eplb")
    table = frame(distribution=["power_law_1.01", "power_law_1.01_eplb", "power_law_1.01"], num_tokens=[64, 64, 2])
    assert kind.usable(table).tolist() == [True, False, False]


def test_a_fit_finds_the_constants_that_made_the_times() -> None:
    """Times made by the kernel itself are met to a percent, and the constants that they show are found."""
    tokens = [2**i for i in range(15)]
    tables = [
        frame(num_tokens=tokens, moe_ep_size=ep, hidden_size=hidden, inter_size=inter, distribution="balanced")
        for ep in (1, 4, 16)
        for hidden, inter in ((2048, 768), (4096, 1536), (6144, 8192))
    ]
    table = pd.concat(tables, ignore_index=True)
    table["latency_ms"] = 1e3 * moe.LAYOUT.predict(table, GPUS, load("experts"))[:, 0]
    found = moe.LAYOUT.fit(table, GPUS)
    again = 1e3 * moe.LAYOUT.predict(table, GPUS, found)[:, 0]
    assert [*found] == ["trtllm/cutlass/fp8_block"]
    error = np.abs(again / table.latency_ms - 1)
    assert error.median() < 0.01
    assert error.max() < 0.05
    true = load("experts")["trtllm/cutlass/fp8_block"]
    assert found["trtllm/cutlass/fp8_block"]["bandwidth_share"] == pytest.approx(true["bandwidth_share"], rel=0.02)


def test_too_few_rows_are_an_error() -> None:
    """Three where thirty are wanted."""
    with pytest.raises(InputError, match="trtllm/cutlass/fp8_block: found 3 rows, wanted at least 30"):
        expert_fit.fit(frame(num_tokens=[1, 2, 4]), GPUS, moe.TIMING)


def errors(ours: NDArray[np.float64] | pd.Series[Any], real: pd.Series[Any]) -> tuple[float, float]:
    """Median and 90th percentile of the absolute error, percent."""
    error = (np.asarray(ours) / np.asarray(real) - 1)[~np.isnan(np.asarray(ours) / np.asarray(real))]
    return 100 * np.median(np.abs(error)), 100 * np.quantile(np.abs(error), 0.9)


@needs_data
def test_errors_of_the_shipped_constants_on_token_counts_never_fitted() -> None:
    """Of times, and of slowdowns by skew."""
    table = fit_experts.read("moe")
    core = table[moe.group(table).isin(fit_experts.CORE)].reset_index(drop=True)
    held = ~moe.LAYOUT.fitted(core)
    assert held.equals(core.num_tokens.isin(fit_experts.HELD_OUT_TOKENS))
    predicted = 1e3 * moe.LAYOUT.predict(core, GPUS, load("experts"))[:, 0]
    # reached when fitted: 2.8 / 10.1, 3.3 / 10.6 %
    median, p90 = errors(predicted[held], core.latency_ms[held])
    assert (median < 3.2, p90 < 11.5) == (True, True)
    ours, real = (fit_experts.slowdowns(core, value) for value in (predicted, core.latency_ms.to_numpy()))
    median, p90 = errors(ours[held], real[held])
    assert (median < 3.6, p90 < 12) == (True, True)


@needs_data
@pytest.mark.slow
def test_errors_on_models_never_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model is predicted by constants that were fitted on the others."""
    monkeypatch.setitem(fit_experts.TIMINGS, "moe", (moe.TIMING, expert_fit.TILES[:1]))  # a third of the time
    table = fit_experts.read("moe")
    core = table[moe.group(table).isin(fit_experts.CORE)].reset_index(drop=True)
    # reached: 3.9 / 14.5 %, with all tiles 3.9 / 14.2
    median, p90 = errors(fit_experts.without("moe", core, core.model), core.latency_ms)
    assert (median < 4.3, p90 < 16) == (True, True)


@pytest.mark.parametrize(
    "ep, measured", [(4, 1.57), (8, 1.84), (16, 2.5), (32, 3.2), (64, 4.0), (128, 4.7), (256, 5.2)]
)
def test_the_slowdown_of_prefill_grows_with_the_ranks(ep: int, measured: float) -> None:
    """Measured with the exponent 1.2, which was never fitted, from 8,192 tokens in all to at most 16,384 a rank."""
    tokens = [n for n in (8192 * 2**i for i in range(7)) if n <= 16384 * ep]
    table = frame(
        framework="SGLang",
        hidden_size=7168,
        inter_size=2048,
        num_experts=256,
        moe_ep_size=ep,
        distribution=["uniform", "power_law_1.2"] * len(tokens),
        num_tokens=np.repeat(tokens, 2).tolist(),
    )
    seconds = wideep_context.LAYOUT.predict(table, GPUS, load("experts"))[:, 0]
    assert np.mean(seconds[1::2] / seconds[0::2]) == pytest.approx(measured, rel=0.08)
