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
from moesim.calibration.columns import (
    Array,
    numbers,
    text,
)
from moesim.calibration.groups import Seconds, same_exchange
from moesim.calibration.layout import GroupedLayout
from moesim.calibration.layouts.deepep import payloads
from moesim.hardware.collectives import Wrapper, wrapper_seconds
from moesim.hardware.constants.fitted import searches
from moesim.hardware.shape import shape
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    words = [text(frame, column) for column in ("comm_backend", "comm_dtype", "phase")]
    return text(frame, "framework") + "/moe-a2a/" + words[0] + "/" + words[1] + "/" + words[2]


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    return text(frame, "phase") + frame["node_num"].eq(1).map({True: "", False: ", across nodes"})


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; the hidden size 6,144 is held out."""
    shipped = frame["system"].eq("h100_sxm") & text(frame, "version").isin(["1.3.0rc11", "0.24.0"])
    return shipped & frame["hidden_size"].ne(6144)


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    """A copy a selection in low latency, else one a distinct rank."""
    low_latency = text(frame, "comm_backend").str.contains("_ll|generation").to_numpy()
    words = text(frame, "comm_dtype").where(text(frame, "phase").eq("dispatch"), "default")
    dtypes = words.map(lambda word: "fp8" if word == "fp8" else "fp4" if "fp4" in word else "bf16").to_numpy()
    loads = []
    for rule, dtype in product(("per-selection", "per-node"), ("fp8", "fp4", "bf16")):
        rows = np.flatnonzero((low_latency == (rule == "per-selection")) & (dtypes == dtype))
        hidden, tokens, top_k, experts, ranks, nodes = numbers(
            frame.iloc[rows], "hidden_size", "num_tokens", "topk", "num_experts", "ep_size", "node_num"
        )
        load = shape(
            rule,
            tokens=tokens,
            top_k=top_k,
            experts=experts,
            gpus=ranks,
            nodes=nodes,
            payload=payloads(hidden, dtype),
            hidden=hidden,
        )
        loads.append((rows, load))

    def seconds(constants: Mapping[str, float]) -> Array:
        out = np.empty(len(frame))
        for rows, load in loads:
            out[rows] = wrapper_seconds(Wrapper(**constants), gpu, load)
        return out

    return seconds


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:  # noqa: ARG001 - one of Fixed
    """Rows within a node do not show the share of the network cards."""
    return {} if (rows["node_num"] > 1).any() else {"nic_share": searches(Wrapper)["nic_share"].start}


LAYOUT = GroupedLayout(
    name="moe_a2a",
    part="collectives",
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
    usable=unflagged,
    formula=_formula,
    kernel=Wrapper,
    fixed=_fixed,
    related=same_exchange,
    underdetermined=True,
)
