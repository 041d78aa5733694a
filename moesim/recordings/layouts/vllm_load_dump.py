"""vLLM's dump of EPLB loads: JSON lines of `record_type`, of which `eplb_load_stats` has the tokens of every slot.

Facts: vllm-project/vllm pull request 41141, which was open when it was read, so fields may change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, to_logical, whole_numbers
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace
from moesim.recordings.records import json_objects
from moesim.recordings.sample import Sample
from moesim.types import CountsTrace

STATISTICS = "eplb_load_stats"
SLOTS = {2: "[layers, slots]"}


def load_dump(job: ImportJob, records: Iterable[tuple[str, dict[str, Any]]]) -> CountsTrace:
    """Read the records (where, object) of a dump; those of other types are passed over.

    Raises:
        TraceError: a record of loads that lacks `step`, `expert_load` or `p2l_map`, or whose shapes differ.
    """
    counts: list[NDArray[np.int64]] = []
    steps: list[int] = []
    others: Counter[str] = Counter()
    n_experts = job.options.n_experts
    redundant, cells, last_map = 0, 0, None
    for where, record in records:
        kind = record.get("record_type")
        if kind != STATISTICS:
            others[str(kind)[:40]] += 1
            if kind == "eplb_load_meta" and isinstance(record.get("model"), str):
                job.model = record["model"][:200]
            continue
        step = record.get("step")
        if type(step) is not int or not 0 <= step < 2**53:
            raise TraceError(f"{where}: step: found {step!r:.40}, wanted a whole number from 0")
        load = whole_numbers(f"{where}: expert_load", record.get("expert_load"), SLOTS)
        last_map = record.get("p2l_map", last_map)
        slots = whole_numbers(f"{where}: p2l_map", last_map, SLOTS, low=-1, high=(n_experts or 100_000) - 1)
        logical = to_logical(where, load, slots, n_experts)
        if counts and logical.shape[0] != counts[0].shape[0]:
            raise TraceError(f"{where}: found {logical.shape[0]} layers, wanted {counts[0].shape[0]} as before")
        redundant = max(redundant, slots.shape[1] - logical.shape[1])
        cells += logical.size
        if cells > MAX_CELLS:
            raise TraceError(f"{where}: more than {MAX_CELLS} counts so far; import fewer steps at a time")
        counts.append(logical)
        steps.append(step)
    if not counts:
        raise TraceError(f"{job.files[0]}: found no record of type {STATISTICS}, wanted one a step")
    width = max(each.shape[1] for each in counts)
    count = np.stack([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in counts])
    job.note("loads are of slots after EPLB; the p2l_map of each step gave their experts")
    if redundant > 0:
        job.note(f"{redundant} redundant slots a layer were added to their experts")
    job.note("layers are numbered among the MoE layers, from 0")
    others.pop("eplb_load_meta", None)
    if others:
        job.note(f"passed over {others.total()} records of other types ({', '.join(others)[:100]})")
    return counts_trace(count, job, step=np.array(steps, dtype=np.int64))


def _recognises(sample: Sample) -> bool:
    return "record_type" in sample.keys  # a line may be longer than the sample


def _read(job: ImportJob) -> CountsTrace:
    return load_dump(job, chain.from_iterable(json_objects(path, job.progress) for path in job.files))


LAYOUT = Layout(
    name="vllm-eplb-dump",
    summary="vLLM's dump of EPLB loads (JSON lines of record_type eplb_load_stats)",
    recognises=_recognises,
    read=_read,
    maps_slots=True,
)
