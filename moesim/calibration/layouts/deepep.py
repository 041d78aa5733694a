"""What the two tables of DeepEP share: dispatch in FP8 and combine in bfloat16 of tokens with random experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.calibration.artefacts import unflagged
from moesim.calibration.columns import Array, measured_seconds, numbers, text
from moesim.calibration.fitting import fit_rows
from moesim.calibration.groups import Formula, predict_groups, same_exchange
from moesim.calibration.layout import Layout
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import searches
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


def versions(frame: pd.DataFrame, part: str) -> pd.Series[str]:
    """framework/library/version; the constants are those of <group>/dispatch and of <group>/combine."""
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


@dataclass(frozen=True, kw_only=True)
class DeepEpLayout(Layout):
    """A layout of exchanges: dispatch and combine have columns and constants of their own.

    `formula` predicts a direction, whose column `measured` holds in the order of
    DIRECTIONS. `within` are the constants that rows of one node show, `within_shapes`
    those that such rows of several shapes show, `across` those that rows of several
    nodes show.
    """

    formula: Callable[[str], Formula]
    kernel: type[Any]
    within: Sequence[str]
    within_shapes: Sequence[str]
    across: Sequence[str]

    def predict(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
        """Seconds [R, 2] of dispatch and combine."""
        group = self.group(frame)
        columns = [
            predict_groups(frame, group + f"/{way}", gpus, constants, self.formula(way), same_exchange)
            for way in DIRECTIONS
        ]
        return np.stack(columns, axis=1)

    def fit(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        """The constants of both directions of every group.

        Groups of few shapes, or of one node only, take what they cannot tell
        from the group with most shapes.
        """
        groups = {str(name): part for name, part in frame.groupby(self.group(frame).to_numpy())}
        n_shapes = {name: len(part.groupby(_SHAPE)) for name, part in groups.items()}
        search, fitted = searches(self.kernel), {}
        for way, column in zip(DIRECTIONS, self.measured, strict=True):
            measured_s = partial(measured_seconds, column=column, unit_s=self.unit_s)
            shared: dict[str, float] = {}
            own: dict[str, dict[str, float]] = {name: {} for name in groups}
            for name in sorted(groups, key=lambda name: -n_shapes[name]):
                rows = groups[name]
                within = self.within_shapes if n_shapes[name] >= _SHAPES_NEEDED else self.within
                parts = ((rows[rows["node_num"] == 1], within), (rows[rows["node_num"] > 1], self.across))
                for part, free in parts:
                    if len(part) > len(free):
                        found = fit_rows(part, gpus, self.formula(way), measured_s, search, shared, free=free)
                        own[name] |= {constant: found[constant] for constant in free}
                shared = own[name] | shared
            for name in groups:
                known = shared | own[name]
                fitted[f"{name}/{way}"] = {key: known.get(key, constant.start) for key, constant in search.items()}
        return fitted
