"""From the files of an engine to a trace: recognise the layout, read it, leave out what is no recording, and say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.assemble import assemble
from moesim.recordings.layout import ImportJob, ImportOptions, Layout
from moesim.recordings.layouts import files_of
from moesim.recordings.parquet import check_replaceable, write_trace
from moesim.recordings.warm_up import dummy_tokens, without_tokens
from moesim.types import PHASES, UNKNOWN, CountsTrace, LogitsTrace, Recording, Trace


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What was read, and what a user must know about it.

    `kind` is choices, counts or logits; `n_tokens`, `n_sequences` and `top_k`
    are 0 where the recording does not say them. `phases` are the tokens, or
    steps of counts, of each phase that is known.
    """

    layout: str
    kind: str
    n_tokens: int
    n_steps: int
    n_layers: int
    n_experts: int
    top_k: int
    n_sequences: int
    phases: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def import_recordings(
    paths: Sequence[str | Path],
    out: str | Path,
    options: ImportOptions | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Read recordings of one layout, files or a folder, and write one trace.

    Args:
        paths: of the recordings; what they are is recognised by their content.
        out: the trace to write; one that exists is replaced.
        options: what the files cannot say of themselves.
        progress: is told how many bytes of the files were read.

    Raises:
        TraceError: a file that is no recording; the text names file and line.
        OutputError: the trace cannot be written, or another file, such as a recording, stands there.
    """
    if not paths:
        raise TraceError("nothing to import: name at least one recording")
    check_replaceable(out)
    recording = read_recordings(paths, options, progress=progress)
    write_trace(recording, out)
    return report_of(recording)


def read_recordings(
    paths: Sequence[str | Path],
    options: ImportOptions | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """What recordings of one layout hold, as `import_recordings` writes it.

    Raises:
        TraceError: a file that is no recording; the text names file and line.
    """
    options = options or ImportOptions()
    layout, files, passed_over = files_of(paths, options.layout)
    _check_ids(options.ids, layout, files[0])
    model = options.model
    n_experts = options.n_experts or (None if model is None else model.n_experts)
    job = ImportJob(
        files=files,
        options=options,
        n_experts=n_experts,
        model="" if model is None else model.name,
    )
    if passed_over:
        job.note(f"{passed_over} other files in the folder are no recordings: passed over")
    if progress is not None:
        job.progress = progress
    found = layout.read(job)
    recording: Recording
    if isinstance(found, (Trace, LogitsTrace)):
        recording = found
    elif isinstance(found, CountsTrace):
        recording = _cleaned_counts(found, job)
    else:
        recording = _cleaned_choices(assemble(found, job), job)
    _note_other_model(recording, job)
    same = recording.layout == "" or layout.name != "moesim-trace"
    return dataclasses.replace(recording, layout=layout.name if same else recording.layout, notes=tuple(job.notes))


def _check_ids(ids: str, layout: Layout, file: Path) -> None:
    """Refuse ids of another space than the layout has.

    Raises:
        TraceError: slots without the map that gives their experts, or experts where the layout has slots.
    """
    if ids == "physical" and not layout.maps_slots:
        raise TraceError(
            f"{file}: ids: found physical, wanted logical, as recordings of {layout.name} have no map from slots to "
            "their experts"
        )
    if ids == "logical" and layout.maps_slots:
        raise TraceError(
            f"{file}: ids: found logical, wanted physical, as recordings of {layout.name} hold slots and their map"
        )


def _note_other_model(recording: Recording, job: ImportJob) -> None:
    """Say where a recording is not what the stated model would have left."""
    model = job.options.model
    if model is None:
        return
    if isinstance(recording, Trace) and recording.top_k != model.top_k:
        job.note(f"the recording has {recording.top_k} choices of a token, {model.name} makes {model.top_k}")
    if recording.n_layers > len(model.moe_layers):
        job.note(
            f"the recording has {recording.n_layers} layers, {model.name} has {len(model.moe_layers)} with experts"
        )


def _cleaned_choices(trace: Trace, job: ImportJob) -> Trace:
    """The trace without layers of zeros and, unless they are kept, without dummy tokens."""
    if job.dense_are_zero:
        trace = _without_dense(trace, job)
    if job.options.keep_warm_up:
        return trace
    dummies = dummy_tokens(trace)
    n_dummies = int(np.count_nonzero(dummies))
    if n_dummies:
        job.note(
            f"{n_dummies} of {trace.n_tokens} tokens are of warm-up or padding, with equal routes in long runs: "
            "left out (--keep-warm-up keeps them)"
        )
        trace = without_tokens(trace, dummies)
    return trace


def _without_dense(trace: Trace, job: ImportJob) -> Trace:
    """The trace without layers in which every choice is expert 0, as dense layers are recorded, or tokens with none.

    Raises:
        TraceError: nothing is left.
    """
    dense = ~(trace.expert > 0).any(axis=(1, 2))
    if job.options.model is not None:
        known = np.isin(trace.layer_ids, job.options.model.moe_layers, invert=True)
        dense = known if trace.n_layers == job.options.model.n_layers else dense
    if (trace.expert[~dense] < 0).all():
        if (trace.expert < 0).all():
            raise TraceError(f"{job.files[0]}: found zeros alone, wanted the experts of some tokens")
        return trace
    if dense.any():
        ids = np.array(trace.layer_ids)
        job.note(f"layers {ranges(ids[dense])} are dense, rows of zeros: left out")
        trace = dataclasses.replace(
            trace,
            expert=trace.expert[~dense],
            weight=None if trace.weight is None else trace.weight[~dense],
            layer_ids=tuple(map(int, ids[~dense])),
        )
    unrouted = np.asarray((trace.expert < 0).all(axis=(0, 2)))
    if unrouted.any():
        job.note(
            f"{np.count_nonzero(unrouted)} of {trace.n_tokens} tokens have zeros in every layer, as those of a cached "
            "prefix: left out"
        )
        trace = without_tokens(trace, unrouted)
    zeros = int((trace.expert < 0).all(axis=2).sum())
    if zeros:
        job.note(
            f"{zeros} of {trace.n_layers * trace.n_tokens} (token, layer) pairs are zeros: they make no choice there"
        )
    return trace


def _cleaned_counts(trace: CountsTrace, job: ImportJob) -> CountsTrace:
    """The counts without steps and layers in which nothing was counted."""
    steps = np.asarray(trace.count.any(axis=(1, 2)))
    layers = np.asarray(trace.count.any(axis=(0, 2)))
    if not steps.any():
        raise TraceError(f"{job.files[0]}: found counts that are all zero, wanted some assignments")
    if not steps.all():
        job.note(f"{np.count_nonzero(~steps)} of {len(steps)} steps are all zero: left out")
    ids = np.array(trace.layer_ids)
    if not layers.all():
        job.note(f"layers {ranges(ids[~layers])} have no assignments, as dense layers are recorded: left out")
    if trace.first_choice:
        job.note("the counts are of first choices alone (--counts first-choice)")
    if job.n_experts is not None and trace.n_experts != job.n_experts:
        raise TraceError(f"{job.files[0]}: found counts of {trace.n_experts} experts, wanted {job.n_experts}")
    return dataclasses.replace(
        trace,
        count=trace.count[steps][:, layers],
        step=trace.step[steps],
        phase=trace.phase[steps],
        layer_ids=tuple(map(int, ids[layers])),
    )


def ranges(numbers: NDArray[np.integer[Any]]) -> str:
    """Whole numbers in ascending order as text, runs as first-last: 0-2, 5."""
    if not len(numbers):
        return ""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def report_of(recording: Recording) -> ImportReport:
    """What a recording holds, in numbers."""
    phases, known_steps = recording.phase, recording.step[recording.step != UNKNOWN]
    of_tokens = not isinstance(recording, CountsTrace)
    return ImportReport(
        layout=recording.layout,
        kind="choices" if isinstance(recording, Trace) else "logits" if of_tokens else "counts",
        n_tokens=recording.n_tokens if not isinstance(recording, CountsTrace) else 0,
        n_steps=len(np.unique(known_steps)),
        n_layers=recording.n_layers,
        n_experts=recording.n_experts,
        top_k=recording.top_k if isinstance(recording, Trace) else 0,
        n_sequences=len(np.unique(recording.sequence)) if not isinstance(recording, CountsTrace) else 0,
        phases={
            name: int(np.count_nonzero(phases == phase))
            for phase, name in PHASES.items()
            if phase != UNKNOWN and (phases == phase).any()
        },
        notes=recording.notes,
    )
