"""DeepEP exchanges through the wrappers of TensorRT-LLM and vLLM: microseconds, `num_tokens` of one rank.

Layout: NVIDIA aiconfigurator `moe_a2a_perf`. Wrappers add copies, quantisation and a host that is slower than the
exchange of few tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import unflagged
from moesim.calibration.fitting import Array, by_group, fit_rows, numbers, subset, text
from moesim.calibration.layout import Layout
from moesim.calibration.layouts.deepep import payloads
from moesim.hardware.collectives import Wrapper, wrapper_seconds
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import searches
from moesim.hardware.shape import shape
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

NOUN = "moe-a2a"

_SEARCH = searches(Wrapper)
_WITHIN = ("floor_s", "link_share", "norm")


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    words = [text(frame, column) for column in ("comm_backend", "comm_dtype", "phase")]
    return text(frame, "framework") + f"/{NOUN}/" + words[0] + "/" + words[1] + "/" + words[2]


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    return text(frame, "phase") + frame["node_num"].eq(1).map({True: "", False: ", across nodes"})


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; the hidden size 6,144 is held out."""
    shipped = frame["system"].eq("h100_sxm") & text(frame, "version").isin(["1.3.0rc11", "0.24.0"])
    return shipped & frame["hidden_size"].ne(6144)


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return unflagged(frame)


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    """A copy a selection in low latency, else one a distinct rank."""
    low_latency = text(frame, "comm_backend").str.contains("_ll|generation").to_numpy()
    words = text(frame, "comm_dtype").where(text(frame, "phase").eq("dispatch"), "default")
    dtypes = words.map(lambda word: "fp8" if word == "fp8" else "fp4" if "fp4" in word else "bf16").to_numpy()
    seconds = np.empty(len(frame))
    for rule, dtype in product(("per-selection", "per-node"), ("fp8", "fp4", "bf16")):
        rows = np.flatnonzero((low_latency == (rule == "per-selection")) & (dtypes == dtype))
        part = frame.iloc[rows]
        hidden, tokens, top_k, experts, ranks, nodes = numbers(
            part, "hidden_size", "num_tokens", "topk", "num_experts", "ep_size", "node_num"
        )
        x = shape(
            rule,
            tokens=tokens,
            top_k=top_k,
            experts=experts,
            gpus=ranks,
            nodes=nodes,
            payload=payloads(hidden, dtype),
            hidden=hidden,
        )
        seconds[rows] = wrapper_seconds(Wrapper(**c), gpu, x)
    return seconds


def _measured_s(frame: pd.DataFrame) -> Array:
    return np.asarray(1e-6 * frame["latency"].to_numpy(dtype=np.float64))


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), 1), np.nan)
    group = _group(frame)
    for phase in ("dispatch", "combine"):
        here = np.flatnonzero(text(frame, "phase") == phase)
        part = frame.iloc[here]
        for rows, gpu, c in by_group(part, group.iloc[here], gpus, subset(constants, NOUN, phase)):
            seconds[here[rows], 0] = _seconds(c, gpu, part.iloc[rows])
    return seconds


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    fitted = {}
    for name, rows in frame.groupby(_group(frame).to_numpy(), sort=True):
        free = (*_WITHIN, "nic_share") if (rows["node_num"] > 1).any() else _WITHIN
        fitted[str(name)] = fit_rows(_SEARCH, free, {}, rows, gpus, _seconds, _measured_s)
    return fitted


LAYOUT = Layout(
    name="moe_a2a",
    prefixes=("moe_a2a",),
    columns={
        "system": "text",
        "comm_backend": "text",
        "phase": "text",
        "comm_dtype": "text",
        "ep_size": "number",
        "node_num": "number",
        "hidden_size": "number",
        "topk": "number",
        "num_experts": "number",
        "num_tokens": "number",
        "latency": "number",
    },
    measured=("latency",),
    unit_s=1e-6,
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    predict=_predict,
    fit=_fit,
    part="collectives",
)
