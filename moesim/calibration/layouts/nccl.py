"""NCCL inside a node: nccl-tests, milliseconds, `message_size` elements of the buffer of one GPU.

Layout: NVIDIA aiconfigurator `nccl_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import unflagged
from moesim.calibration.fitting import Array, by_group, fit_rows, numbers, subset, text
from moesim.calibration.layout import Layout
from moesim.hardware.collectives import Nccl, nccl_seconds
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import searches
from moesim.hardware.shape import Shape
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

NOUN = "nccl"
ELEMENT_BYTES: Mapping[str, float] = {"half": 2.0, "bfloat16": 2.0, "float": 4.0, "int8": 1.0, "fp8": 1.0}

_SEARCH = searches(Nccl)
_LL128 = ("ll128_s", "ll128_hop_s", "ll128_share")


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return text(frame, "kernel_source", "NCCL") + f"/{NOUN}/" + text(frame, "op_name")


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


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return unflagged(frame)


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame, operation: str) -> Array:
    (gpus,) = numbers(frame, "num_gpus")
    turns = 2.0 if operation == "all_reduce" else 1.0
    one, peer = np.ones(len(frame)), _bytes(frame) / gpus
    x = Shape(
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
    return nccl_seconds(Nccl(**c), gpu, x, chooses=operation == "alltoall")


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), 1), np.nan)
    operations = text(frame, "op_name")
    for operation in operations.unique():
        here = np.flatnonzero(operations == operation)
        part = frame.iloc[here]
        for rows, gpu, c in by_group(part, _group(part), gpus, subset(constants, NOUN, operation)):
            seconds[here[rows], 0] = _seconds(c, gpu, part.iloc[rows], str(operation))
    return seconds


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    fitted = {}
    for name, rows in frame.groupby(_group(frame).to_numpy(), sort=True):
        operation = str(name).rpartition("/")[2]
        free = [key for key in _SEARCH if operation != "alltoall" or key not in _LL128]
        fitted[str(name)] = fit_rows(
            _SEARCH,
            free,
            {},
            rows,
            gpus,
            partial(_seconds, operation=operation),
            lambda part: np.asarray(1e-3 * part["latency"].to_numpy(dtype=np.float64)),
            loss="cauchy" if operation == "alltoall" else "soft_l1",  # its tables hold single rows at twice the others
        )
    return fitted


LAYOUT = Layout(
    name="nccl",
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
    unit_s=1e-3,
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    predict=_predict,
    fit=_fit,
    part="collectives",
)
