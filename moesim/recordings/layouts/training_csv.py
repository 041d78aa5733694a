"""Tokens per expert of training runs, exported by TensorBoard or Weights & Biases as CSV.

Forks of Megatron-LM log a scalar for each layer and expert, with a tag such as
`moe-expert/global_batch_tokens_per_expert_layer0_expert3` (microsoft/ltp-megatron). Weights & Biases exports a column
for each tag, TensorBoard a file for each with the columns `Wall time`, `Step` and `Value`. Upstream Megatron-LM logs
only scalars of each layer, which hold no loads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, MAX_COUNT, MAX_EXPERTS, MAX_LAYERS, stated_experts
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace
from moesim.recordings.records import csv_rows
from moesim.recordings.sample import Sample
from moesim.types import TRAIN, CountsTrace

TAG = re.compile(r"(?i)layer_?(\d{1,5})_expert_?(\d{1,6})(?![\d_]|__)")
SCALAR_TAG = re.compile(r"moe[/_][\w/]*?_layer_\d+(?:_p\d+)?$|moe[/_]avg_overload_factor")
STEP_NAMES = ("step", "_step", "global_step", "trainer/global_step", "iteration")


def place_of(tag: str) -> tuple[int, int] | None:
    """Layer and expert of a column or a file name, if it is of tokens per expert."""
    match = TAG.search(tag.removesuffix(".csv"))
    return None if match is None or tag.lower().endswith(("__min", "__max")) else (int(match[1]), int(match[2]))


def has_counts(name: str, header: Sequence[str]) -> bool:
    """Whether a CSV of this name and header has tokens per expert."""
    return any(place_of(column) for column in header) or (
        place_of(PurePath(name).name) is not None and {"step", "value"} <= {name.lower() for name in header}
    )


def has_scalars_only(header: Sequence[str]) -> bool:
    """Whether a CSV has scalars of MoE layers and no loads of experts."""
    return any(SCALAR_TAG.search(column) for column in header) and not any(place_of(column) for column in header)


def training_counts(job: ImportJob) -> CountsTrace:
    """Read the files of one run.

    Raises:
        TraceError: no step column, a cell that is no count, or two values of one (step, layer, expert).
    """
    cells: dict[tuple[int, int, int], int] = {}
    for path in job.files:
        rows = csv_rows(path, job.progress)
        header = next(rows, (1, [""]))[1]
        places = _columns(str(path), header)
        step_column = next((i for i, name in enumerate(header) if name.strip().lower() in STEP_NAMES), None)
        if step_column is None:
            raise TraceError(f"{path}:1: found no column of steps, wanted one named {', '.join(STEP_NAMES)}")
        for line, row in rows:
            if len(row) != len(header):
                raise TraceError(f"{path}:{line}: found {len(row)} cells, wanted {len(header)} as in the header")
            step = _count(f"{path}:{line}: {header[step_column]}", row[step_column])
            for column, (layer, expert) in places.items():
                if not row[column].strip():
                    continue
                value = _count(f"{path}:{line}: {header[column]}", row[column])
                if cells.setdefault((step, layer, expert), value) != value:
                    raise TraceError(f"{path}:{line}: layer {layer}, expert {expert} has two values at step {step}")
    return _arrays(job, cells)


def _columns(path: str, header: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Layer and expert of each column that has loads."""
    named = PurePath(path).name
    own = place_of(named)
    places = (
        {[name.lower() for name in header].index("value"): own}
        if own is not None and {"step", "value"} <= {name.lower() for name in header}
        else {i: place for i, name in enumerate(header) if (place := place_of(name)) is not None}
    )
    for layer, expert in places.values():
        if layer >= MAX_LAYERS or expert >= MAX_EXPERTS:
            raise TraceError(
                f"{path}:1: found layer {layer}, expert {expert}, wanted below {MAX_LAYERS}, {MAX_EXPERTS}"
            )
    return places


def _count(where: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_COUNT or value != int(value):
        raise TraceError(f"{where}: found {text[:40]!r}, wanted a whole number from 0")
    return int(value)


def _arrays(job: ImportJob, cells: dict[tuple[int, int, int], int]) -> CountsTrace:
    if not cells:
        raise TraceError(f"{job.files[0]}: found no tokens per expert in any row, wanted at least one")
    steps = sorted({step for step, _, _ in cells})
    layers = sorted({layer for _, layer, _ in cells})
    n_experts = stated_experts(job, max(expert for _, _, expert in cells))
    size = len(steps) * len(layers) * n_experts
    if size > MAX_CELLS:
        raise TraceError(f"{job.files[0]}: found {size} (step, layer, expert), wanted at most {MAX_CELLS}")
    count = np.zeros((len(steps), len(layers), n_experts), dtype=np.int64)
    at_step, at_layer = {step: i for i, step in enumerate(steps)}, {layer: i for i, layer in enumerate(layers)}
    for (step, layer, expert), value in cells.items():
        count[at_step[step], at_layer[layer], expert] = value
    if size > len(cells):
        job.note(f"{size - len(cells)} of {size} (step, layer, expert) were not logged: counted as 0")
    return counts_trace(
        count, job, step=np.array(steps, dtype=np.int64), layer_ids=tuple(layers), phase=np.full(len(steps), TRAIN)
    )


def _recognises(sample: Sample) -> bool:
    first = sample.text.split("\n", 1)[0]  # may be longer than the sample
    return not first.startswith(("{", "[")) and has_counts(
        sample.path.name, [name.strip(' "\r') for name in first.split(",")]
    )


def _read(job: ImportJob) -> CountsTrace:
    return training_counts(job)


LAYOUT = Layout(
    name="training-csv",
    summary="tokens per expert of a training run (CSV of TensorBoard or Weights & Biases)",
    recognises=_recognises,
    read=_read,
)
