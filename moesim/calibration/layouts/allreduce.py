"""All-reduce of the serving frameworks inside a node, bfloat16, milliseconds.

Layout: NVIDIA aiconfigurator `custom_allreduce_perf`; `message_size_elements` of each GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.columns import (
    Array,
    bytes_of,
    framework,
    numbers,
    text,
)
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.hardware.allreduce import AllReduceConstants, allreduce_seconds
from moesim.hardware.constants.fitted import searches
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

# Up to where the frameworks use kernels of their own, by the jumps of the measured curves. TensorRT-LLM has no second
# shot, SGLang takes one shot of two GPUs as far as two shots of eight; vLLM's two shots reduce in the switch, as NCCL.
_LIMITS: Mapping[str, Mapping[str, float]] = {
    "sglang": {"most_bytes": 2.0**24, "most_read_bytes": 2.0**24, "two_width": 0.0},
    "vllm": {"most_bytes": 2.0**26, "most_read_bytes": 5.5e6},
    "trtllm": {"most_bytes": 0.0, "most_read_bytes": 5.5e6, "two_width": 0.0, "second_s": 0.0, "two_share": 1.0},
}
_IN_A_GRAPH = {"copies": 0.0, "floor_s": 0.0}


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    eager = text(frame, "kernel_source").str.lower().str.contains("eager")
    return framework(frame) + "/custom/" + eager.map({True: "eager", False: "graph"})


def _bytes(frame: pd.DataFrame) -> Array:
    return numbers(frame, "message_size_elements")[0] * bytes_of(text(frame, "allreduce_dtype", "bfloat16"))


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    import pandas as pd

    sizes = pd.cut(_bytes(frame), [-1, 65536, 2**23, np.inf], labels=["to 64 KiB", "to 8 MiB", "above"])
    return frame["num_gpus"].astype(str) + " GPUs, " + pd.Series(sizes.astype(str), index=frame.index)


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on 2 and 8 H100 at 256, 1,024, 4,096 ... bytes; the sizes in between and 4 GPUs are held out."""
    import pandas as pd

    exponent = np.log2(_bytes(frame)).round().astype(np.int64)
    return frame["system"].eq("h100_sxm") & frame["num_gpus"].isin([2, 8]) & pd.Series(exponent % 2 == 0, frame.index)


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="message_size_elements", curve=("allreduce_dtype", "num_gpus"))


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    gpus, message = numbers(frame, "num_gpus")[0], _bytes(frame)

    def seconds(constants: Mapping[str, float]) -> Array:
        return allreduce_seconds(AllReduceConstants(**constants), gpu, gpus=gpus, message=message)

    return seconds


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:
    """What a framework is known to do; rows of one number of GPUs show no hops."""
    made, _, mode = name.split("/")
    fixed = {**_LIMITS.get(made, _LIMITS["vllm"]), **(_IN_A_GRAPH if mode == "graph" else {})}
    if len(set(rows["num_gpus"])) == 1:
        search = searches(AllReduceConstants)
        fixed |= {constant: search[constant].start for constant in ("hop_s", "nccl_hop_s")}
    return fixed


LAYOUT = GroupedLayout(
    name="allreduce",
    part="allreduce",
    prefixes=("allreduce", "custom_allreduce"),
    columns=layer_columns(kernel_source="text", num_gpus="number", message_size_elements="number"),
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    formula=_formula,
    kernel=AllReduceConstants,
    fixed=_fixed,
)
