"""Fused MoE layers of one rank: `moe_*`.

Timed: router softmax and top-k, permutation, quantisation of activations, both
grouped GEMMs and the weighted sum, on the most loaded rank, which receives the
tokens of all ranks. There is no exchange, no shared expert and no product of the
gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.calibration.artefacts import spikes, without_artefacts
from moesim.calibration.layouts import expert_rows
from moesim.calibration.layouts.expert_layout import expert_layout

if TYPE_CHECKING:
    import pandas as pd

_KERNELS = ("modelopt", "cutlass", "triton", "deepgemm", "marlin", "trtllm_gen", "min_latency")
_CURVE = ("moe_dtype", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "distribution")
_DEFAULT_ROUTER = ((4096, 14336, 8, 2), (6144, 16384, 8, 2), (2816, 704, 128, 8), (1024, 2688, 512, 22))
"""Mixtral, Gemma 4 and the latent experts of Nemotron 3 Super, as SHAPE: plain softmax routers."""


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/kernel/data type, the kernel by what its source is known for."""
    names = {source: _kernel(source) for source in frame.kernel_source.unique()}
    return frame.framework.str.lower() + "/" + frame.kernel_source.map(names) + "/" + frame.moe_dtype


def _kernel(source: str) -> str:
    plain = source.lower()
    return next((name for name in _KERNELS if name in plain), plain.replace("_", "-"))


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows whose distribution can be drawn and that are no artefact."""
    return expert_rows.known_distribution(frame) & without_artefacts(
        frame, size="num_tokens", curve=_CURVE, wrong=_wrong
    )


def _wrong(frame: pd.DataFrame) -> pd.Series[bool]:
    """Artefacts that are no spikes.

    SGLang's Triton path computes the choices of remote experts too where a
    model with the default router is spread over ranks; SGLang and vLLM route
    DeepSeek-V3 by groups, which drops half of the intended experts; a smaller
    slice of the experts takes longer than a larger one only if it was tuned badly.
    """
    clamped = (frame.framework == "SGLang") & (frame.moe_ep_size > 1) & expert_rows.of_shapes(frame, _DEFAULT_ROUTER)
    grouped = (frame.framework != "TRTLLM") & (frame.hidden_size == 7168) & (frame.num_experts == 256)
    return clamped | grouped | _slow_slices(frame)


def _slow_slices(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that take longer than a larger slice of the same experts does: curves that were tuned badly throughout."""
    curve = [name for name in _CURVE if name != "moe_tp_size"]
    return spikes(frame.assign(slice=1.0 / frame["moe_tp_size"]), size="slice", curve=(*curve, "num_tokens"))


TIMING = expert_rows.ExpertTiming(group=group, received_tokens=expert_rows.all_tokens)


LAYOUT = expert_layout(name="moe", prefixes=("moe_",), timing=TIMING, usable=usable)
