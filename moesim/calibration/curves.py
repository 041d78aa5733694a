"""What of measured tables a step can take: for each layout, what tells curves apart and what varies along one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.calibration.columns import bytes_of, numbers, optional, text
from moesim.calibration.layouts.expert_rows import EVEN
from moesim.calibration.layouts.gemm import resident
from moesim.calibration.reading import Table
from moesim.hardware.measured import Rows
from moesim.hardware.mla import DEEPSEEK_V3

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]
_WIDE_BYTES = 2.0


def _even(frame: pd.DataFrame) -> Mask:
    return np.asarray(frame["distribution"].isin(EVEN), dtype=np.bool_)


def _streamed(frame: pd.DataFrame) -> Mask:
    """Products whose weights come from memory, as in a step that reads those of other layers meanwhile."""
    return ~resident(frame).to_numpy(dtype=np.bool_)


def _plain(frame: pd.DataFrame) -> Mask:
    """Attention without a window, of prompts of which nothing is cached."""
    return np.asarray((optional(frame, "window_size") == 0) & (optional(frame, "past_kv_tokens") == 0))


def _whole(frame: pd.DataFrame) -> Mask:
    """Attention without a window."""
    return np.asarray(optional(frame, "window_size") == 0)


def _wide(frame: pd.DataFrame) -> Mask:
    """Sums of elements of two bytes."""
    return np.asarray(bytes_of(text(frame, "allreduce_dtype", "bfloat16")) == _WIDE_BYTES)


def _all(frame: pd.DataFrame) -> Mask:
    return np.ones(len(frame), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Columns of a layout.

    `shape` tells curves apart (followed by `constants`, which the table does not
    hold), `series` plus `offset` tells the curves of one shape apart, `size`
    varies along one. `keep` says which rows a step can take, `group_also` is a column
    that belongs to the group.
    """

    shape: tuple[str, ...]
    size: str
    series: str = ""
    offset: float = 0.0
    constants: tuple[float, ...] = ()
    keep: Callable[[pd.DataFrame], Mask] = _all
    group_also: str = ""


_EXPERTS = Axes(
    shape=("hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size", "moe_tp_size"),
    size="num_tokens",
    keep=_even,
)
_HEADS = ("num_heads", "num_key_value_heads", "head_dim")
_LATENT = dataclasses.astuple(DEEPSEEK_V3)

# tables of decode count cached tokens, a new token reads itself too
AXES: Mapping[str, Axes] = {
    "moe": _EXPERTS,
    "wideep_context": _EXPERTS,
    "wideep_generation": _EXPERTS,
    "gemm": Axes(shape=("n", "k"), size="m", keep=_streamed),
    "attention_context": Axes(shape=_HEADS, size="batch_size", series="isl", keep=_plain),
    "attention_generation": Axes(shape=_HEADS, size="batch_size", series="past_kv_tokens", offset=1.0, keep=_whole),
    "mla_context": Axes(shape=("num_heads",), size="batch_size", series="isl", constants=_LATENT, keep=_plain),
    "mla_generation": Axes(
        shape=("num_heads",), size="batch_size", series="past_kv_tokens", offset=1.0, constants=_LATENT
    ),
    "allreduce": Axes(shape=("num_gpus",), size="message_size_elements", keep=_wide),
    "mla_bmm": Axes(shape=("num_heads",), size="num_tokens", constants=_LATENT, group_also="op_name"),
}
"""By name of the layout."""


def rows_for(table: Table, systems: set[str]) -> Table:
    """The table with only those rows scored that a step on one of these systems can take."""
    axes = AXES[table.layout.name]
    rows = table.frame["system"].isin(systems).to_numpy(dtype=np.bool_) & table.scored
    frame = table.frame[rows]
    rows[rows] = axes.keep(frame) & (frame[axes.size] > 0).to_numpy()
    return dataclasses.replace(table, predictable=rows, scored=rows)


def rows_of(table: Table) -> Rows:
    """The scored measurements of a table."""
    axes, frame = AXES[table.layout.name], table.frame[table.scored]
    group = table.layout.group(frame).astype(str)
    if axes.group_also:
        group = group + "/" + text(frame, axes.group_also)
    shape = [*numbers(frame, *axes.shape), *(np.full(len(frame), value) for value in axes.constants)]
    return Rows(
        group=group.to_numpy(dtype=np.str_),
        shape=np.stack(shape, axis=1).astype(np.float64),
        series=numbers(frame, axes.series)[0] + axes.offset if axes.series else np.zeros(len(frame)),
        size=numbers(frame, axes.size)[0],
        seconds=numbers(frame, table.layout.measured[0])[0] * table.layout.unit_s,
    )


def concatenate(parts: list[Rows]) -> Rows:
    """The rows of several tables of a layout as one."""
    names = [field.name for field in dataclasses.fields(Rows)]
    return Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
