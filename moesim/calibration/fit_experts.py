"""Constants of the experts and their error: python -m moesim.calibration.fit_experts [--cross-validate] [--write].

Fitted on the tables of H100 (NVIDIA aiconfigurator) that ship with moesim. The
shipped constants never saw: batches of 8, 96, 128, 384 and 2,048 tokens of the
fused layers, the exponent 0.6 of wide expert parallelism in decode.
`--cross-validate` fits again without each model, without every other token
count, without a fifth of the curves, and without each exponent, and prints the
error on what was left out; it takes some twenty minutes. `--write` replaces
constants/experts.yaml of `moesim.hardware`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import yaml

from moesim.calibration.columns import Array
from moesim.calibration.layout import Layout, load_layout
from moesim.calibration.layouts import (
    expert_fit,
    expert_rows,
    moe,
    wideep_context,
    wideep_generation,
    wideep_trtllm_eplb,
)
from moesim.calibration.shipped import CONSTANTS, shipped_rows
from moesim.hardware.expert import ExpertConstants, calibrated_gpu, expert_time
from moesim.hardware.kernel_dtypes import kernel_dtype

SYSTEM = "h100_sxm"
HELD_OUT_TOKENS = (8, 96, 128, 384, 2048)
HELD_OUT_EXPONENT = "power_law_0.6"
CORE = (
    "trtllm/cutlass/bfloat16",
    "trtllm/cutlass/fp8",
    "trtllm/cutlass/fp8_block",
    "vllm/triton/bfloat16",
    "vllm/triton/fp8_block",
    "vllm/cutlass/fp8_block",
    "sglang/triton/fp8_block",
)
"""Kernels that behave well; the others are tuned per shape, or not at all."""

TIMINGS = {
    "moe": (moe.TIMING, expert_fit.TILES),
    "wideep_context": (wideep_context.TIMING, wideep_context.TILES),
    "wideep_generation": (wideep_generation.TIMING, wideep_generation.TILES),
    "wideep_trtllm_eplb": (wideep_trtllm_eplb.TIMING, expert_fit.TILES),
}
BETWEEN = (48, 96, 160, 384, 1536, 6144)
FOLDS = 5
"""Parts of the curves (a kernel, shape and parallelism each) that are left out in turn."""
TABLES = {"moe": ["calib", "between_calib"]}
"""Tables of a layout: of the fused layers one with powers of two as token counts, one with those between."""
POINT = ["framework", "kernel_source", "moe_dtype", "hidden_size", "inter_size", "moe_tp_size", "moe_ep_size"]
HEADER = """\
# Constants of the experts' kernels; what each means: moesim/hardware/expert.py. Written by
# python -m moesim.calibration.fit_experts --write
# Contains performance measurements from NVIDIA aiconfigurator (Copyright (c) 2025-2026 NVIDIA CORPORATION &
# AFFILIATES), licensed under the Apache License 2.0; modified: only constants fitted to them are here.
"""


def read(name: str) -> pd.DataFrame:
    """The usable rows of a measured table."""
    frame = shipped_rows([f"{name}_h100_{part}" for part in TABLES.get(name, ["calib"])])
    return frame[load_layout(name).usable(frame)].reset_index(drop=True)


def held_out(name: str, frame: pd.DataFrame) -> pd.Series[Any]:
    """Rows that the shipped constants do not see."""
    if name == "moe":
        return frame.num_tokens.isin(HELD_OUT_TOKENS)
    return (frame.distribution == HELD_OUT_EXPONENT) & (name == "wideep_generation")


def fitted(name: str, train: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Constants of every group of a table."""
    timing, tiles = TIMINGS[name]
    return expert_fit.fit(train, {SYSTEM: calibrated_gpu()}, timing, tiles=tiles)


def predicted(layout: Layout, frame: pd.DataFrame, constants: Mapping[str, Any]) -> Array:
    """Milliseconds of every row."""
    return 1e3 * layout.predict(frame, {SYSTEM: calibrated_gpu()}, constants)[:, 0]


def without(name: str, frame: pd.DataFrame, fold: pd.Series[Any]) -> Array:
    """Milliseconds of every row by constants fitted without the rows of its fold."""
    out = np.full(len(frame), np.nan)
    for value in sorted(fold.unique()):
        left_out = (fold == value).to_numpy()
        groups = load_layout(name).group(frame)
        known = groups[left_out].isin(set(groups[~left_out])).to_numpy()
        part = frame[left_out][known]
        train = frame[~left_out & groups.isin(set(groups[left_out])).to_numpy()]
        if len(part):
            rows = np.flatnonzero(left_out)[known]
            out[rows] = predicted(load_layout(name), part, fitted(name, train))
    return out


def slowdowns(frame: pd.DataFrame, value: Array) -> pd.Series[Any]:
    """Time of each skewed row over that of the evenly spread one, by row of the frame; NaN where there is none."""
    keys = [*POINT, "num_tokens"]
    data = frame[keys].assign(value=np.asarray(value))
    even = data[frame.distribution.isin(expert_rows.EVEN).to_numpy()].set_index(keys).value
    even = even[~even.index.duplicated()]
    ratio = data.value.to_numpy() / even.reindex(pd.MultiIndex.from_frame(data[keys])).to_numpy()
    return pd.Series(np.where(frame.distribution.isin(expert_rows.EVEN), np.nan, ratio), index=frame.index)


def shown(name: str, predicted_: Any, measured: Any) -> None:
    """One line: number, median, 90th percentile and bias of the relative error."""
    error = (pd.Series(np.asarray(predicted_)) / pd.Series(np.asarray(measured)) - 1).dropna() * 100
    print(
        f"{name:58} {len(error):6} {error.abs().median():6.2f} {error.abs().quantile(0.9):6.2f} {error.median():+6.2f}"
    )


def show_slowdowns(name: str, frame: pd.DataFrame, value: Array) -> None:
    """Slowdown of all skewed rows, of those that matter, and averaged over token counts."""
    ours, real = slowdowns(frame, value), slowdowns(frame, frame.latency_ms.to_numpy())
    shown(f"{name}: slowdown", ours, real)
    matters = (frame.moe_ep_size > 1) & (real >= 1.3)
    shown(f"{name}: slowdown, EP >= 2, measured >= 1.3", ours[matters], real[matters])
    decode = frame.num_tokens / frame.moe_ep_size <= 256
    pairs = pd.DataFrame({"ours": ours, "real": real}).dropna()
    mean = pairs.groupby([frame.hidden_size, frame.inter_size, frame.moe_ep_size, decode]).mean()
    rank = float(mean.ours.corr(mean.real, method="spearman"))
    shown(f"{name}: slowdown by model, EP, regime; Spearman {rank:.3f}", mean.ours, mean.real)


def laws(constants: Mapping[str, Any]) -> None:
    """Slowdown by EP size of an exponent that was never fitted, 1.2, with the tokens of the measured uniform rows."""
    for name, least in (("wideep_generation", 32), ("wideep_context", 1)):
        layout, even = load_layout(name), read(name)
        even = even[(even.distribution == "uniform") & (even.num_tokens >= least * even.moe_ep_size)]
        times = [predicted(layout, even.assign(distribution=d), constants) for d in ("power_law_1.2", "uniform")]
        mean = pd.Series(times[0] / times[1], even.index).groupby(even.moe_ep_size).mean()
        words = [f"EP{ep} {mean[ep]:.2f}" for ep in mean.index.to_list() if ep > 2]
        print(f"{name}, exponent 1.2: {', '.join(words)}")


def spread_of_draws(name: str, frame: pd.DataFrame, constants: Mapping[str, Any]) -> Array:
    """Relative distance of means of five draws, as rows are measured, from the mean of all, [R * 80].

    What the latency of the draws alone differs by, so that no prediction of the expected one can have a smaller error.
    """
    timing, group = TIMINGS[name][0], load_layout(name).group(frame).iloc[0]
    own = ExpertConstants(**constants[group])
    rows = expert_rows.rows_of(frame, timing, own, 400)
    dtype = kernel_dtype(group.rpartition("/")[2])
    seconds = expert_time(rows.load, rows.shape, rows.tokens, calibrated_gpu(), dtype, own)
    means = seconds.reshape(len(frame), -1, 5).mean(axis=2) / seconds.mean(axis=1, keepdims=True)
    return np.asarray(means.ravel())


def cross_validate() -> None:
    """Errors on what was left out."""
    frame = read("moe")
    frame = frame[moe.group(frame).isin(CORE)].reset_index(drop=True)
    every_other = np.log2(frame.num_tokens).round().astype(int) % 2
    for what, fold in (("models left out", frame.model), ("every other token count left out", every_other)):
        value = without("moe", frame, fold)
        shown(f"moe core, {what}: latency", value, frame.latency_ms)
        show_slowdowns(f"moe core, {what}", frame, value)
    skewed = (frame.distribution != "balanced").to_numpy()
    between = frame.num_tokens.isin(BETWEEN).to_numpy()
    curve = pd.util.hash_pandas_object(frame[POINT], index=False) % FOLDS
    value = without("moe", frame, curve)
    for what, rows in (("at powers of two", ~between), ("between them", between)):
        shown(f"moe core, curves left out, token counts {what}: latency", value[rows], frame.latency_ms[rows])
        show_slowdowns(f"moe core, curves left out, {what}", frame[rows], value[rows])
    value = predicted(load_layout("moe"), frame, fitted("moe", frame[~skewed]))
    shown("moe core, all skewed rows left out: latency", value[skewed], frame.latency_ms[skewed])
    show_slowdowns("moe core, all skewed rows left out", frame, value)
    for name in ("wideep_generation", "wideep_context"):
        frame = read(name)
        value = without(name, frame, frame.distribution)
        for exponent in ("power_law_0.6", "power_law_1.01"):
            own = (frame.distribution == exponent).to_numpy()
            shown(f"{name}, {exponent} left out: latency", value[own], frame.latency_ms[own])
            part = fitted(name, frame[~own])
            ours = slowdowns(frame, predicted(load_layout(name), frame, part))
            shown(
                f"{name}, {exponent} left out: slowdown", ours[own], slowdowns(frame, frame.latency_ms.to_numpy())[own]
            )
            drawn = spread_of_draws(name, frame[own], part)
            shown(f"{name}, {exponent}: five draws about their mean", drawn, np.ones(len(drawn)))
    frame = read("wideep_trtllm_eplb")
    value = without("wideep_trtllm_eplb", frame, frame.hidden_size)
    shown("wideep_trtllm_eplb, hidden sizes left out: latency", value, frame.latency_ms)


def main() -> None:
    """Fit, report, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cross-validate", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    constants: dict[str, dict[str, float]] = {}
    split: dict[str, dict[str, Any]] = {}
    print(f"{'':58} {'rows':>6} {'median':>6} {'p90':>6} {'bias':>6}  %")
    for name in TIMINGS:
        frame = read(name)
        left_out = held_out(name, frame)
        train = frame[~left_out]
        groups = fitted(name, train)
        constants |= groups
        split[name] = {
            "system": SYSTEM,
            "versions": sorted(train.version.unique().tolist()),
            "distributions": sorted(train.distribution.unique().tolist()),
            "tokens": sorted(train.num_tokens.unique().tolist()),
            "shapes": sorted(
                train[["hidden_size", "inter_size", "num_experts", "topk"]].drop_duplicates().to_numpy().tolist()
            ),
        }
        value, group = predicted(load_layout(name), frame, groups), load_layout(name).group(frame)
        for part in sorted(group.unique()):
            for label, rows in (("fitted", ~left_out), ("held out", left_out)):
                own = rows & (group == part)
                if own.any():
                    shown(f"{name}: {part}, {label}", value[own], frame.latency_ms[own])
        if name == "moe":
            core = group.isin(CORE) & left_out
            shown("moe: core, held out", value[core], frame.latency_ms[core])
            show_slowdowns("moe: core, held out", frame[core], value[core])
    laws(constants)
    if asked.cross_validate:
        cross_validate()
    if asked.write:
        path = CONSTANTS / "experts.yaml"
        document = {
            "source": "NVIDIA aiconfigurator-core 0.12.0, systems/data/h100_sxm/moe",
            "gpu": yaml.safe_load(path.read_text(encoding="utf-8"))["gpu"],
            "held_out": "moe: 8, 96, 128, 384 and 2,048 tokens; wideep_generation: exponent 0.6",
            "fitted": split,
            "groups": constants,
        }
        path.write_text(
            HEADER + yaml.safe_dump(document, sort_keys=False, width=120, default_flow_style=None), encoding="utf-8"
        )
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
