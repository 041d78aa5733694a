"""Rows of measured expert layers as the formula sees them: loads of the timed rank, shapes, and their prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.hardware.constants import Constants, document
from moesim.hardware.expert import (
    GATED,
    ExpertConstants,
    ExpertShape,
    Load,
    expert_time,
    summarize,
    tile_of,
    tokens_per_row,
)
from moesim.hardware.kernel_dtypes import KERNEL_DTYPES, KernelDtype, kernel_dtype, nearest_group
from moesim.hardware.token_loads import DRAWS, exponent_of, token_loads
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Mapping[str, str] = {
    "system": "text",
    "framework": "text",
    "kernel_source": "text",
    "moe_dtype": "text",
    "distribution": "text",
    "num_tokens": "number",
    "hidden_size": "number",
    "inter_size": "number",
    "topk": "number",
    "num_experts": "number",
    "moe_tp_size": "number",
    "moe_ep_size": "number",
    "latency_ms": "number",
}
"""Columns of every layout of expert layers."""

KEY = ("distribution", "num_tokens", "num_experts", "topk", "moe_ep_size")
"""The columns that determine the loads of a row."""

EVEN = ("balanced", "uniform")
SHAPE = ("hidden_size", "inter_size", "num_experts", "topk")
"""The columns of the experts' shape."""

_NO_GATE = "nongated"
"""A word in the names of kernels without gates."""
_NEMOTRON = (
    (2688, 1856, 128, 6),
    (4096, 2688, 512, 22),
    (1024, 2688, 512, 22),
    (8192, 5120, 512, 22),
    (2048, 5120, 512, 22),
)
"""Nemotron 3's experts have no gate, whatever the kernel is called."""
CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class ExpertTiming:
    """How the rank of a row was timed, which differs by layout.

    `received_tokens` gives the tokens that the timed rank received, [R], of a
    frame; None stands for those that an exchange would deliver. The counts of a
    random distribution were rounded up to multiples of `skewed_multiple`. No
    latency is below `host_s`, as the host launched the kernels while they were
    timed; the GPU idled for `idle_s` of it before the products began.
    """

    group: Callable[[pd.DataFrame], pd.Series[str]]
    received_tokens: Callable[[pd.DataFrame], NDArray[np.float64]] | None = None
    skewed_multiple: int = 1
    host_s: float = 0.0
    idle_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """R rows with D draws: load [R, D], shape and received tokens [R, 1]."""

    load: Load
    shape: ExpertShape
    tokens: NDArray[np.float64]


def rows_of(frame: pd.DataFrame, timing: ExpertTiming, constants: ExpertConstants, draws: int) -> Rows:
    """The rows of a frame of known distributions, with the tiles that the constants allow."""
    keys = frame.loc[:, list(KEY)].drop_duplicates().reset_index(drop=True)
    tiles = tile_of(keys.num_tokens * keys.topk / keys.num_experts, (constants.tile_low, constants.tile_high))
    loads = [
        _load(timing.skewed_multiple, float(tile), draws, str(name), *map(int, sizes))
        for tile, (name, *sizes) in zip(tiles, keys.itertuples(index=False, name=None), strict=True)
    ]
    which = frame.loc[:, list(KEY)].merge(keys.reset_index(names="key"), on=list(KEY), how="left").key.to_numpy()
    load = Load(**{f.name: np.stack([getattr(one, f.name) for one in loads])[which] for f in dataclasses.fields(Load)})

    def column(values: Any) -> NDArray[np.float64]:
        return np.asarray(values, dtype=np.float64)[:, None]

    shape = ExpertShape(
        hidden_size=column(frame.hidden_size),
        inner_size=column(np.ceil(frame.inter_size / frame.moe_tp_size)),
        n_experts=column(frame.num_experts),
        top_k=column(frame.topk),
        n_ranks=column(frame.moe_ep_size),
        matrices=column(np.where(ungated(frame), GATED - 1, GATED)),
    )
    received_tokens = (
        column(timing.received_tokens(frame)) if timing.received_tokens else load.rows * tokens_per_row(shape)
    )
    return Rows(load=load, shape=shape, tokens=received_tokens)


def ungated(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows whose experts have two matrices, [R]: by the kernel, or by the shape of a known model."""
    named: NDArray[np.bool_] = frame.kernel_source.str.contains(_NO_GATE).to_numpy(dtype=np.bool_)
    return named | of_shapes(frame, _NEMOTRON)


def of_shapes(frame: pd.DataFrame, shapes: Iterable[Sequence[int]]) -> NDArray[np.bool_]:
    """Rows whose columns SHAPE are one of some shapes, [R]."""
    import pandas as pd

    return pd.MultiIndex.from_frame(frame[list(SHAPE)]).isin([tuple(shape) for shape in shapes])


@lru_cache(maxsize=1 << 14)  # of some 6 KB each
def _load(
    multiple: int,
    tile: float,
    draws: int,
    distribution: str,
    tokens: int,
    experts: int,
    k: int,
    ep: int,
) -> Load:
    """The loads [D] of a key, counts rounded up to a multiple where they are random; one load is repeated."""
    drawn = token_loads(distribution, tokens, experts, k, ep, draws)
    if len(drawn) > 1 and multiple > 1:
        drawn = -(-drawn // multiple) * multiple
    summary = summarize(np.ascontiguousarray(drawn), tokens * k / experts, (tile, tile))
    return Load(**{f.name: np.broadcast_to(getattr(summary, f.name), (draws,)) for f in dataclasses.fields(Load)})


def predict(
    frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants, timing: ExpertTiming
) -> NDArray[np.float64]:
    """Seconds [R, 1]: the mean over draws; NaN for unknown distributions, data types and systems."""
    out = np.full((len(frame), 1), np.nan)
    position = np.arange(len(frame))
    known = known_distribution(frame) & frame.system.isin(list(gpus)) & frame.moe_dtype.isin(list(KERNEL_DTYPES))
    known &= frame.num_experts % frame.moe_ep_size == 0
    labelled = frame.assign(_at=position, _group=timing.group(frame), _draws=draws_of(frame, DRAWS))[known]
    for (group, system, draws), part in labelled.groupby(["_group", "system", "_draws"], sort=False):
        name = nearest_group(str(group), constants)
        if name is None:
            continue
        own, dtype = ExpertConstants(**constants[name]), kernel_dtype(str(group).rpartition("/")[2])
        for first in range(0, len(part), CHUNK):
            chunk = part.iloc[first : first + CHUNK]
            rows = rows_of(chunk, timing, own, int(str(draws)))
            out[chunk["_at"].to_numpy(), 0] = latency(rows, gpus[str(system)], dtype, own, timing)
    return out


def latency(
    rows: Rows, gpu: GpuSpec, dtype: KernelDtype, constants: ExpertConstants, timing: ExpertTiming
) -> NDArray[np.float64]:
    """Seconds [R] of rows as a table holds them: timed alone, the mean over draws."""
    seconds = expert_time(rows.load, rows.shape, rows.tokens, gpu, dtype, constants, sustained=False)
    mean: NDArray[np.float64] = np.maximum(seconds + timing.idle_s, timing.host_s).mean(axis=1)
    return mean


def all_tokens(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The tokens of all ranks, which every rank receives, [R]."""
    return frame.num_tokens.to_numpy(dtype=np.float64)


def draws_of(frame: pd.DataFrame, draws: int) -> NDArray[np.int64]:
    """Draws of each row, [R]: one where the distribution leaves nothing to chance."""
    return np.where(frame.distribution.isin(EVEN), 1, draws)


def known_distribution(frame: pd.DataFrame) -> pd.Series[bool]:
    """Whether the distribution is one that can be drawn; not so after expert load balancing."""

    def known(name: str) -> bool:
        try:
            return name in EVEN or exponent_of(name) > 0
        except InputError:
            return False

    names = [name for name in frame.distribution.unique() if known(name)]
    return _series(frame, frame.distribution.isin(names).to_numpy())


def regime(frame: pd.DataFrame) -> pd.Series[str]:
    """Decode (at most 256 tokens a rank) or prefill, evenly spread or skewed."""
    even = frame.distribution.isin(EVEN)
    decode = frame.num_tokens / frame.moe_ep_size <= 256
    words = np.where(even, "even ", "skewed ").astype(object) + np.where(decode, "decode", "prefill").astype(object)
    return _series(frame, words)


def fitted_as(frame: pd.DataFrame, kind: str, usable: pd.Series[bool]) -> pd.Series[bool]:
    """Whether the shipped constants were fitted on such a row: its system, version, shape, distribution and tokens."""
    split = document("experts")["fitted"].get(kind)
    if split is None:
        return _series(frame, np.zeros(len(frame), dtype=bool))
    seen = of_shapes(frame, split["shapes"])
    version = frame["version"] if "version" in frame else _series(frame, np.full(len(frame), "", dtype=object))
    for values, known in (
        (frame.system, [split["system"]]),
        (version, split["versions"]),
        (frame.distribution, split["distributions"]),
        (frame.num_tokens, split["tokens"]),
    ):
        seen &= values.isin(known).to_numpy()
    return usable & _series(frame, seen)


def _series(frame: pd.DataFrame, values: Any) -> pd.Series[Any]:
    import pandas as pd

    return pd.Series(values, index=frame.index)
