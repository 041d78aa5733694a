"""DeepEP low latency: dispatch in FP8 and combine in bfloat16 of tokens with random experts.

Layout: NVIDIA aiconfigurator `wideep_deepep_ll_perf`, microseconds, `num_token` of one rank, 8 GPUs a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from moesim.hardware.collectives import LowLatency, fp8_payload, low_latency_seconds
from moesim.hardware.tables.groups import Array, Constant, by_group, fit_rows, numbers, subset, text
from moesim.hardware.tables.kind import Constants, TableKind
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = ("dispatch", "combine")
MEASURED = ("dispatch_avg_t_us", "combine_avg_t_us")
NOUN = "deepep-ll"

_SEARCH = {
    "launch_s": Constant(start=8e-6, low=1e-6, high=5e-5),
    "per_hidden_s": Constant(start=2e-10, low=1e-12, high=2e-9),
    "per_wave_s": Constant(start=1e-6, low=1e-8, high=5e-6),
    "link_share": Constant(start=0.65, low=0.1, high=1.0),
    "round_s": Constant(start=1e-6, low=1e-8, high=1e-5),
    "norm": Constant(start=1.1, low=1.0, high=4.0),
    "across_launch_s": Constant(start=12e-6, low=1e-6, high=1e-4),
    "across_hop_s": Constant(start=15e-6, low=1e-7, high=1e-4),
    "nic_share": Constant(start=0.9, low=0.1, high=1.0),
}
_WITHIN = ("launch_s", "link_share")
_WITHIN_SHAPES = ("launch_s", "per_hidden_s", "per_wave_s", "link_share", "round_s", "norm")
_ACROSS = ("across_launch_s", "across_hop_s", "nic_share")
_SHAPES_NEEDED = 4


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    """The constants are those of <group>/dispatch and of <group>/combine."""
    return text(frame, "framework") + f"/{NOUN}/" + text(frame, "version")


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    few = (frame["num_experts"] <= 16).map({True: ", few experts", False: ""})
    return frame["node_num"].eq(1).map({True: "within a node", False: "across nodes"}) + few


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; held out: Qwen3-235B's and one wider shape within a node, four nodes across."""
    shipped = frame["system"].eq("h100_sxm") & text(frame, "version").isin(["0.5.12", "0.5.0"])
    wide = frame["hidden_size"].eq(7168) & frame["num_experts"].eq(384) & frame["num_topk"].eq(8)
    qwen = frame["hidden_size"].eq(4096) & frame["num_experts"].isin([128, 256]) & frame["num_topk"].eq(8)
    return shipped & ~wide & ~qwen & frame["node_num"].ne(4)


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Not flagged, and not the table of H200 that is a copy of H100's."""
    copied = frame["system"].eq("h200_sxm") & text(frame, "version").eq("0.5.0")
    return text(frame, "flag").eq("") & ~copied


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame, direction: str) -> Array:
    hidden, tokens, top_k, experts, nodes = numbers(
        frame, "hidden_size", "num_token", "num_topk", "num_experts", "node_num"
    )
    payload = fp8_payload(hidden) if direction == "dispatch" else 2.0 * hidden
    return low_latency_seconds(
        LowLatency(**c), gpu, tokens=tokens, top_k=top_k, experts=experts, nodes=nodes, payload=payload, hidden=hidden
    )


def _measured_s(frame: pd.DataFrame, column: str) -> Array:
    return np.asarray(1e-6 * frame[column].to_numpy(dtype=np.float64))


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), len(MEASURED)), np.nan)
    for column, direction in enumerate(DIRECTIONS):
        ours = subset(constants, NOUN, direction)
        for rows, gpu, c in by_group(frame, _group(frame) + f"/{direction}", gpus, ours):
            seconds[rows, column] = _seconds(c, gpu, frame.iloc[rows], direction)
    return seconds


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    """Groups of few shapes, or of one node only, take what they cannot tell from the group with most shapes."""
    groups = {str(name): part for name, part in frame.groupby(_group(frame).to_numpy())}
    shapes = {name: len(part.groupby(["hidden_size", "num_topk", "num_experts"])) for name, part in groups.items()}
    fitted: dict[str, dict[str, float]] = {}
    for direction, column in zip(DIRECTIONS, MEASURED, strict=True):
        seconds = partial(_seconds, direction=direction)
        measured_s = partial(_measured_s, column=column)
        shared: dict[str, float] = {}
        own: dict[str, dict[str, float]] = {name: {} for name in groups}
        for name in sorted(groups, key=lambda name: -shapes[name]):
            part = groups[name]
            within = _WITHIN_SHAPES if shapes[name] >= _SHAPES_NEEDED else _WITHIN
            for rows, free in ((part[part["node_num"] == 1], within), (part[part["node_num"] > 1], _ACROSS)):
                if len(rows) > len(free):
                    found = fit_rows(_SEARCH, free, shared, rows, gpus, seconds, measured_s)
                    own[name] |= {key: found[key] for key in free}
            shared = own[name] | shared
        for name in groups:
            known = shared | own[name]
            fitted[f"{name}/{direction}"] = {key: known.get(key, constant.start) for key, constant in _SEARCH.items()}
    return fitted


KIND = TableKind(
    name="deepep_ll",
    prefixes=("deepep_ll", "wideep_deepep_ll"),
    columns={
        "system": "text",
        "node_num": "number",
        "hidden_size": "number",
        "num_token": "number",
        "num_topk": "number",
        "num_experts": "number",
        **dict.fromkeys(MEASURED, "number"),
    },
    measured=MEASURED,
    unit_s=1e-6,
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    predict=_predict,
    fit=_fit,
    noun="collectives",
)
