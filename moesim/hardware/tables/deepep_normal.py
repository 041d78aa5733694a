"""DeepEP normal: dispatch in FP8 and combine in bfloat16 of tokens with random experts, on a number of SMs.

Layout: NVIDIA aiconfigurator `wideep_deepep_normal_perf`, microseconds, `num_token` of one rank, 8 GPUs a node.
`transmit` is the exchange with the best of its chunk sizes, `notify` the exchange of counts before it across nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from moesim.hardware.collectives import Normal, fp8_payload, normal_seconds, notify_seconds
from moesim.hardware.tables.groups import Array, Constant, by_group, fit_rows, numbers, subset, text
from moesim.hardware.tables.kind import Constants, TableKind
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = ("dispatch", "combine")
MEASURED = ("dispatch_transmit_us", "dispatch_notify_us", "combine_transmit_us", "combine_notify_us")
NOUN = "deepep-normal"

_SEARCH = {
    "launch_s": Constant(start=25e-6, low=1e-6, high=1e-4),
    "per_hidden_s": Constant(start=1e-9, low=1e-12, high=1e-8),
    "sm_bytes_per_s": Constant(start=15e9, low=1e9, high=1e11),
    "link_share": Constant(start=0.7, low=0.1, high=1.2),
    "norm": Constant(start=4.0, low=1.0, high=10.0),
    "per_token_s": Constant(start=1e-8, low=1e-10, high=1e-6),
    "fill_s": Constant(start=2e-5, low=1e-7, high=1e-3),
    "across_launch_s": Constant(start=2e-5, low=1e-6, high=1e-3),
    "across_hop_s": Constant(start=2e-5, low=1e-7, high=1e-3),
    "across_sm_bytes_per_s": Constant(start=15e9, low=1e9, high=1e11),
    "nic_share": Constant(start=0.95, low=0.1, high=1.2),
    "across_norm": Constant(start=4.0, low=1.0, high=10.0),
    "across_fill_s": Constant(start=2e-5, low=1e-7, high=1e-3),
    "congestion": Constant(start=1.5, low=1.0, high=5.0),
    "notify_s": Constant(start=1e-5, low=1e-7, high=1e-3),
    "notify_hop_s": Constant(start=2e-5, low=1e-7, high=1e-3),
}
_WITHIN = ("launch_s", "sm_bytes_per_s", "link_share")
_WITHIN_SHAPES = (*_WITHIN, "per_hidden_s", "norm", "per_token_s", "fill_s")
_ACROSS = (*(name for name in _SEARCH if name.startswith("across_")), "nic_share", "congestion")
_NOTIFY = ("notify_s", "notify_hop_s")
_SHAPES_NEEDED = 4


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    """The constants are those of <group>/dispatch and of <group>/combine."""
    return text(frame, "framework") + f"/{NOUN}/" + text(frame, "version")


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    return frame["node_num"].eq(1).map({True: "within a node", False: "across nodes"})


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; held out: 16 SMs, Qwen3-235B's and one wider shape within a node."""
    shipped = frame["system"].eq("h100_sxm") & text(frame, "version").isin(["0.5.12", "0.5.0"])
    wide = frame["hidden_size"].eq(7168) & frame["num_experts"].eq(384) & frame["num_topk"].eq(8)
    qwen = frame["hidden_size"].eq(4096) & frame["num_experts"].isin([128, 256]) & frame["num_topk"].eq(8)
    return shipped & ~wide & ~qwen & frame["dispatch_sms"].ne(16)


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Not flagged, and not the table of H200 that is a copy of H100's."""
    copied = frame["system"].eq("h200_sxm") & text(frame, "version").eq("0.5.0")
    return text(frame, "flag").eq("") & ~copied


def _transmit(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame, direction: str) -> Array:
    hidden, tokens, top_k, experts, nodes, sms = numbers(
        frame, "hidden_size", "num_token", "num_topk", "num_experts", "node_num", f"{direction}_sms"
    )
    return normal_seconds(
        Normal(**c),
        gpu,
        tokens=tokens,
        top_k=top_k,
        experts=experts,
        nodes=nodes,
        payload=fp8_payload(hidden) if direction == "dispatch" else 2.0 * hidden,
        hidden=hidden,
        sms=sms,
    )


def _notify(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:  # noqa: ARG001 - as _transmit
    (nodes,) = numbers(frame, "node_num")
    return notify_seconds(Normal(**c), nodes)


def _measured_s(frame: pd.DataFrame, column: str) -> Array:
    return np.asarray(1e-6 * frame[column].to_numpy(dtype=np.float64))


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), len(MEASURED)), np.nan)
    for column, direction in zip((0, 2), DIRECTIONS, strict=True):
        ours = subset(constants, NOUN, direction)
        for rows, gpu, c in by_group(frame, _group(frame) + f"/{direction}", gpus, ours):
            part = frame.iloc[rows]
            seconds[rows, column] = _transmit(c, gpu, part, direction)
            seconds[rows, column + 1] = _notify(c, gpu, part)
    return seconds


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    """Groups of few shapes, or of one node only, take what they cannot tell from the group with most shapes."""
    groups = {str(name): part for name, part in frame.groupby(_group(frame).to_numpy())}
    shapes = {name: len(part.groupby(["hidden_size", "num_topk", "num_experts"])) for name, part in groups.items()}
    fitted: dict[str, dict[str, float]] = {}
    for direction in DIRECTIONS:
        transmit = partial(_transmit, direction=direction)
        transmit_s = partial(_measured_s, column=f"{direction}_transmit_us")
        notify_s = partial(_measured_s, column=f"{direction}_notify_us")
        shared: dict[str, float] = {}
        own: dict[str, dict[str, float]] = {name: {} for name in groups}
        for name in sorted(groups, key=lambda name: -shapes[name]):
            part = groups[name]
            near, far = part[part["node_num"] == 1], part[part["node_num"] > 1]
            within = _WITHIN_SHAPES if shapes[name] >= _SHAPES_NEEDED else _WITHIN
            counted = far[far[f"{direction}_notify_us"] > 0]
            for rows, free, seconds, measured_s in (
                (near, within, transmit, transmit_s),
                (far, _ACROSS, transmit, transmit_s),
                (counted, _NOTIFY, _notify, notify_s),
            ):
                if len(rows) > len(free):
                    found = fit_rows(_SEARCH, free, shared, rows, gpus, seconds, measured_s)
                    own[name] |= {key: found[key] for key in free}
            shared = own[name] | shared
        for name in groups:
            known = shared | own[name]
            fitted[f"{name}/{direction}"] = {key: known.get(key, constant.start) for key, constant in _SEARCH.items()}
    return fitted


KIND = TableKind(
    name="deepep_normal",
    prefixes=("deepep_normal", "wideep_deepep_normal"),
    columns={
        "system": "text",
        "node_num": "number",
        "hidden_size": "number",
        "num_token": "number",
        "num_topk": "number",
        "num_experts": "number",
        "dispatch_sms": "number",
        "combine_sms": "number",
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
