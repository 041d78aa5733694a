"""Plain arrays of NumPy: counts [iteration, layer, expert], ids [token, layer, choice] or router logits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.json_lines import repeated
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout, blocks_of_tokens
from moesim.recordings.sample import Sample, npy_header
from moesim.recordings.stream import reason
from moesim.types import CountsTrace, LogitsTrace, token_columns

_MAX_TOP_K = 32
_MIN_ROWS_OF_IDS = 64
"""Rows of distinct small numbers below which an array is not taken for ids without being told."""
_MAX_ID = 1024
_LOOKED_AT = 4096


def load_array(path: Path, mapped: bool = True) -> NDArray[Any]:
    """The array of a .npy file, which is never unpickled.

    Raises:
        TraceError: it holds none, or objects.
    """
    with path.open("rb") as file:
        shape, dtype = npy_header(file, str(path))
    if dtype.hasobject:
        raise TraceError(f"{path}: found an array of Python objects, which is never unpickled; wanted numbers")
    try:
        return np.asanyarray(np.load(path, mmap_mode="r" if mapped and all(shape) else None, allow_pickle=False))
    except (ValueError, OSError, EOFError, OverflowError, MemoryError) as error:
        raise TraceError(f"{path}: cannot be read: {reason(error)}") from None


def _numbers(sample: Sample, kinds: str, dimensions: tuple[int, ...]) -> bool:
    found = sample.array
    return found is not None and found[1].kind in kinds and len(found[0]) in dimensions and all(found[0])


def _are_ids(sample: Sample) -> bool:
    """Whether the rows hold distinct small numbers, as the choices of a token are."""
    if not _numbers(sample, "iu", (2, 3)):
        return False
    array = load_array(sample.path)
    rows = np.asarray(array[:_LOOKED_AT]).reshape(-1, array.shape[-1])
    rows = rows[rows.any(axis=1)].astype(np.int64)  # of a dense layer they may be zeros
    if not 2 <= array.shape[-1] <= _MAX_TOP_K or len(rows) < _MIN_ROWS_OF_IDS or not 0 < rows.max() < _MAX_ID:
        return False
    even = len(np.unique(rows.sum(axis=1))) == 1  # as the counts of equal steps are
    return bool(rows.min() >= -1) and not even and not repeated(rows).any()


def _read_ids(job: ImportJob) -> Iterator[ChoiceBlock]:
    job.note("small distinct numbers in every row: taken for the expert ids of tokens (--layout npy-counts if not)")
    job.dense_are_zero = True
    first = 0
    for number, path in enumerate(job.files):
        array = load_array(path)
        expert = array[:, None] if array.ndim == 2 else array
        if expert.ndim != 3 or expert.dtype.kind not in "iu":
            raise TraceError(
                f"{path}: found {expert.dtype} {list(array.shape)}, wanted integers [token, layer, choice]"
            )
        named = _named_layer(path) if array.ndim == 2 else None
        layers = tuple(range(expert.shape[1])) if named is None else (named,)
        yield from blocks_of_tokens(
            expert,
            layers,
            first_token=first,
            where=partial(_place, path),
            sequence=np.full(len(expert), number),
        )
        first += len(expert)
        job.progress(path.stat().st_size)


def _place(path: Path, token: int) -> str:
    return f"{path}: token {token}"


def _named_layer(path: Path) -> int | None:
    """The number that the name of a file of one layer has, as in `logits_layer12.npy`."""
    named = re.search(r"layer[_-]?(\d{1,4})(?!\d)", path.name)
    return int(named[1]) if named else None


def _read_counts(job: ImportJob) -> CountsTrace:
    """Counts [S, L, E] or [L, E]; the steps of several files follow one another."""
    parts: list[NDArray[np.int64]] = []
    for path in job.files:
        array = np.asarray(load_array(path, mapped=False))
        job.progress(path.stat().st_size)
        counts = array[None] if array.ndim == 2 else array
        if counts.ndim != 3 or counts.dtype.kind not in "iuf" or not counts.size:
            found = f"{array.dtype} {list(array.shape)}"
            raise TraceError(f"{path}: found {found}, wanted counts [iteration, layer, expert] or [layer, expert]")
        if parts and counts.shape[1:] != parts[0].shape[1:]:
            raise TraceError(
                f"{path}: found {counts.shape[1]} layers of {counts.shape[2]} experts, wanted {parts[0].shape[1]} of "
                f"{parts[0].shape[2]}, as {job.files[0].name} has"
            )
        parts.append(whole_counts(counts, str(path)))
    return counts_trace(np.concatenate(parts), job)


def whole_counts(counts: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Counts as integers.

    Raises:
        TraceError: one that is negative, no whole number or too large.
    """
    wrong = ~(np.isfinite(counts) & (counts >= 0) & (counts < 2**62))
    if counts.dtype.kind == "f":
        wrong |= counts != np.floor(counts)
    if wrong.any():
        at = np.argwhere(wrong)[0]
        raise TraceError(f"{where}: found {counts[tuple(at)]} at {at.tolist()}, wanted whole counts from 0")
    return counts.astype(np.int64)


def counts_trace(
    count: NDArray[np.int64],
    job: ImportJob,
    *,
    layer_ids: tuple[int, ...] | None = None,
    step: NDArray[Any] | None = None,
    phase: NDArray[Any] | None = None,
) -> CountsTrace:
    """A trace of counts [S, L, E], before the importer leaves out steps and layers of zeros."""
    n_steps, n_layers, n_experts = count.shape
    return CountsTrace(
        count=count,
        layer_ids=tuple(range(n_layers)) if layer_ids is None else layer_ids,
        step=np.arange(n_steps) if step is None else np.asarray(step, dtype=np.int64),
        phase=np.full(n_steps, -1, np.int8) if phase is None else np.asarray(phase, dtype=np.int8),
        n_experts=n_experts,
        model=job.model,
        first_choice=job.options.first_choice,
    )


def _are_logits(sample: Sample) -> bool:
    """Whether there are numbers with fractions, or below 0."""
    if not _numbers(sample, "f", (2, 3)):
        return False
    some = np.asarray(load_array(sample.path)[:64])
    return bool((some < 0).any() or (some != np.floor(some)).any())


def _read_logits(job: ImportJob) -> LogitsTrace:
    """Logits [token, expert] of a layer a file, or [layer, token, expert]."""
    by_layer: dict[int, NDArray[np.float32]] = {}
    for path in job.files:
        array = np.asarray(load_array(path, mapped=False))
        job.progress(path.stat().st_size)
        logits = array[None] if array.ndim == 2 else array
        if logits.ndim != 3 or logits.dtype.kind != "f" or not np.isfinite(logits).all() or not logits.size:
            raise TraceError(
                f"{path}: found {array.dtype} {list(array.shape)}"
                + ("" if np.isfinite(array).all() else " with values that are not finite")
                + ", wanted finite logits [layer, token, expert] or [token, expert]"
            )
        if array.ndim == 3:
            job.note(f"the axes of {path.name} are taken for [layer, token, expert]")
        first = max(by_layer, default=-1) + 1
        named = _named_layer(path) if array.ndim == 2 else None
        layers = range(first, first + len(logits)) if named is None else (named,)
        for layer, values in zip(layers, logits, strict=True):
            if layer in by_layer or (by_layer and values.shape != next(iter(by_layer.values())).shape):
                raise TraceError(
                    f"{path}: found layer {layer} of {values.shape}, wanted another layer of the same tokens"
                )
            by_layer[layer] = _as_logits(values, job)
    ids = sorted(by_layer)
    logits = np.stack([by_layer[layer] for layer in ids])
    return LogitsTrace(
        logits=logits,
        layer_ids=tuple(ids),
        n_experts=logits.shape[2],
        model=job.model,
        **token_columns(logits.shape[1]),
    )


def _as_logits(values: NDArray[Any], job: ImportJob) -> NDArray[np.float32]:
    """The logits of a layer; of probabilities their logarithms, which a softmax turns into the same."""
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2):
        job.note("rows sum to 1: taken for probabilities, of which the logarithms are the logits")
        values = np.log(np.maximum(values.astype(np.float64), 1e-30))
    return values.astype(np.float32)


IDS_ARRAY = Layout(
    name="npy-ids",
    summary="NumPy array of expert ids [token, layer, choice], or [token, choice] of one layer",
    recognises=_are_ids,
    read=_read_ids,
)
LOGITS_ARRAY = Layout(
    name="npy-logits",
    summary="NumPy array of router logits [layer, token, expert], or [token, expert] of one layer a file",
    recognises=_are_logits,
    read=_read_logits,
)
COUNTS_ARRAY = Layout(
    name="npy-counts",
    summary="NumPy array of counts [iteration, layer, expert] or [layer, expert]",
    recognises=lambda sample: _numbers(sample, "iuf", (2, 3)),
    read=_read_counts,
)
