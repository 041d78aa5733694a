"""What the two tables of DeepEP share: dispatch in FP8 and combine in bfloat16 of tokens with random experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import unflagged
from moesim.calibration.fitting import Array, fit_rows, numbers, text
from moesim.hardware.constants.fitted import Search
from moesim.hardware.shape import Shape, payload_bytes, shape
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = ("dispatch", "combine")
COLUMNS: Mapping[str, str] = {
    "system": "text",
    "node_num": "number",
    "hidden_size": "number",
    "num_token": "number",
    "num_topk": "number",
    "num_experts": "number",
}
_SHAPE = ["hidden_size", "num_topk", "num_experts"]
_SHAPES_NEEDED = 4
_GPUS_PER_NODE = 8

Timing = tuple["pd.DataFrame", Sequence[str], Callable[..., Array], Callable[["pd.DataFrame"], Array]]
"""Rows, the constants that they show, their predicted and their measured seconds."""


def versions(frame: pd.DataFrame, part: str) -> pd.Series[str]:
    """framework/noun/version; the constants are those of <group>/dispatch and of <group>/combine."""
    return text(frame, "framework") + f"/{part}/" + text(frame, "version")


def where(frame: pd.DataFrame) -> pd.Series[str]:
    """Within a node or across nodes."""
    return frame["node_num"].eq(1).map({True: "within a node", False: "across nodes"})


def of_fitted_shapes(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows of H100 and the fitted versions; held out: Qwen3-235B's and one wider shape."""
    shipped = frame["system"].eq("h100_sxm") & text(frame, "version").isin(["0.5.12", "0.5.0"])
    wide = frame["hidden_size"].eq(7168) & frame["num_experts"].eq(384) & frame["num_topk"].eq(8)
    qwen = frame["hidden_size"].eq(4096) & frame["num_experts"].isin([128, 256]) & frame["num_topk"].eq(8)
    return shipped & ~wide & ~qwen


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Not flagged, and not the table of H200 that is a copy of H100's."""
    copied = frame["system"].eq("h200_sxm") & text(frame, "version").eq("0.5.0")
    return unflagged(frame) & ~copied


def shapes(frame: pd.DataFrame, direction: str, rule: str, sms: str = "") -> Shape:
    """The exchanges of the rows; `sms` names the column of SMs, if any."""
    hidden, tokens, top_k, experts, nodes = numbers(
        frame, "hidden_size", "num_token", "num_topk", "num_experts", "node_num"
    )
    return shape(
        rule,
        tokens=tokens,
        top_k=top_k,
        experts=experts,
        gpus=_GPUS_PER_NODE * nodes,
        nodes=nodes,
        payload=payloads(hidden, "fp8" if direction == "dispatch" else "bf16"),
        hidden=hidden,
        sms=numbers(frame, sms)[0] if sms else 1.0,
    )


def payloads(hidden: Array, dtype: str) -> Array:
    """Bytes of one token's copy, for each row."""
    return np.array([payload_bytes(int(size), dtype) for size in hidden], dtype=np.float64)


def measured_s(frame: pd.DataFrame, column: str) -> Array:
    """A column of microseconds in seconds."""
    return np.asarray(1e-6 * frame[column].to_numpy(dtype=np.float64))


def fit_directions(
    frame: pd.DataFrame,
    gpus: Mapping[str, GpuSpec],
    group: pd.Series[str],
    search: Mapping[str, Search],
    timings: Callable[[str, pd.DataFrame, bool], Iterator[Timing]],
) -> dict[str, dict[str, float]]:
    """Constants of both directions of every group.

    Groups of few shapes, or of one node only, take what they cannot tell from
    the group with most shapes. `timings(direction, rows, many_shapes)` gives
    what is fitted one after the other.
    """
    groups = {str(name): part for name, part in frame.groupby(group.to_numpy())}
    shapes = {name: len(part.groupby(_SHAPE)) for name, part in groups.items()}
    fitted: dict[str, dict[str, float]] = {}
    for direction in DIRECTIONS:
        shared: dict[str, float] = {}
        own: dict[str, dict[str, float]] = {name: {} for name in groups}
        for name in sorted(groups, key=lambda name: -shapes[name]):
            for rows, free, seconds, measured in timings(direction, groups[name], shapes[name] >= _SHAPES_NEEDED):
                if len(rows) > len(free):
                    found = fit_rows(search, free, shared, rows, gpus, seconds, measured)
                    own[name] |= {key: found[key] for key in free}
            shared = own[name] | shared
        for name in groups:
            known = shared | own[name]
            fitted[f"{name}/{direction}"] = {key: known.get(key, constant.start) for key, constant in search.items()}
    return fitted
