"""NCCL inside a node: nccl-tests, milliseconds, `message_size` elements of the buffer of one GPU.

Layout: NVIDIA aiconfigurator `nccl_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import unflagged
from moesim.calibration.columns import (
    Array,
    numbers,
    text,
)
from moesim.calibration.fitting import Loss
from moesim.calibration.groups import Seconds, same_exchange
from moesim.calibration.layout import GroupedLayout
from moesim.hardware.collectives import Nccl, nccl_seconds
from moesim.hardware.constants.fitted import searches
from moesim.hardware.shape import Shape
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

ELEMENT_BYTES: Mapping[str, float] = {"half": 2.0, "bfloat16": 2.0, "float": 4.0, "int8": 1.0, "fp8": 1.0}

_LL128 = ("ll128_s", "ll128_hop_s", "ll128_share")


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return text(frame, "kernel_source", "NCCL") + "/nccl/" + text(frame, "op_name")


def _bytes(frame: pd.DataFrame) -> Array:
    width = frame["nccl_dtype"].astype(str).map(ELEMENT_BYTES).to_numpy(dtype=np.float64)
    return np.asarray(frame["message_size"].to_numpy(dtype=np.float64) * width)


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    import pandas as pd

    sizes = pd.cut(_bytes(frame), [-1, 65536, 2**23, np.inf], labels=["to 64 KiB", "to 8 MiB", "above"])
    return text(frame, "op_name") + ", " + pd.Series(sizes.astype(str), index=frame.index)


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on 4 and 8 H100; every third size (256, 2,048, 16,384 ... elements) is held out."""
    exponent = frame["message_size"].astype(float).map(np.log2)
    shipped = frame["system"].eq("h100_sxm") & frame["nccl_dtype"].eq("half") & frame["num_gpus"].isin([4, 8])
    return shipped & (exponent % 3).ne(2)


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    """All rows are of one operation, as a group is."""
    (gpus,), operation = numbers(frame, "num_gpus"), frame["op_name"].iloc[0]
    turns = 2.0 if operation == "all_reduce" else 1.0
    one, peer = np.ones(len(frame)), _bytes(frame) / gpus
    load = Shape(
        tokens=one,
        experts=one,
        hidden=one,
        gpus=gpus,
        nodes=one,
        sms=one,
        near=turns * peer * (gpus - 1.0),
        far=0.0 * one,
        peer=peer,
    )

    def seconds(constants: Mapping[str, float]) -> Array:
        return nccl_seconds(Nccl(**constants), gpu, load, chooses=operation == "alltoall")

    return seconds


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:  # noqa: ARG001 - one of Fixed
    """An all-to-all never takes LL128."""
    search = searches(Nccl)
    return {constant: search[constant].start for constant in _LL128} if _operation(name) == "alltoall" else {}


def _loss(name: str) -> Loss:
    """Tables of all-to-alls hold single rows at twice the others."""
    return "cauchy" if _operation(name) == "alltoall" else "soft_l1"


def _operation(group: str) -> str:
    return group.rpartition("/")[2]


LAYOUT = GroupedLayout(
    name="nccl",
    part="collectives",
    prefixes=("nccl",),
    columns={
        "system": "text",
        "op_name": "text",
        "nccl_dtype": "text",
        "num_gpus": "number",
        "message_size": "number",
        "latency": "number",
    },
    measured=("latency",),
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=unflagged,
    formula=_formula,
    kernel=Nccl,
    fixed=_fixed,
    loss=_loss,
    related=same_exchange,
    underdetermined=True,
)
