"""SGLang's expert distribution recorder, modes per_pass and per_token: a `.pt` a rank, a record a forward pass.

Facts: python/sglang/srt/eplb/expert_distribution.py of sgl-project/sglang (dd780ab). Ids are physical (slots after
EPLB) and become logical through `last_physical_to_logical_map`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import check_shape, expert_ids, to_logical, whole_numbers
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout, blocks_of_tokens
from moesim.recordings.layouts.arrays import counts_trace
from moesim.recordings.sample import Sample
from moesim.recordings.tensor_files import load_torch, torch_names
from moesim.types import DECODE, PREFILL, UNKNOWN, CountsTrace

LOGICAL = "ids are slots after EPLB; the last map of slots gave their experts"
PHASE_OF_MODE = {1: PREFILL, 2: DECODE}
"""Of SGLang's ForwardMode; others (mixed, idle, verification of drafts) have tokens of several kinds."""


class RankFile(NamedTuple):
    """What one rank wrote: its records in order and the map of its slots [L, P]."""

    where: str
    records: list[dict[str, Any]]
    slots: NDArray[np.int64]


def rank_file(where: str, content: Any) -> RankFile:
    """Check what `load_torch` gave for one rank's file.

    Raises:
        TraceError: it is no such dictionary.
    """
    records = content.get("records") if isinstance(content, dict) else None
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise TraceError(f"{where}: records: wanted a list of at least one forward pass")
    slots = content.get("last_physical_to_logical_map")
    if slots is None:
        raise TraceError(f"{where}: last_physical_to_logical_map: missing, wanted the expert of every slot")
    name = f"{where}: last_physical_to_logical_map"
    return RankFile(where, records, expert_ids(name, slots, {2: "[layers, slots]"}).astype(np.int64))


def passes(job: ImportJob, files: Sequence[RankFile]) -> CountsTrace:
    """Sum the counts of all ranks for equal forward_pass_id and give them to the experts of the slots.

    Raises:
        TraceError: a record lacks its counts, or maps and counts differ in shape.
    """
    n_experts = job.options.n_experts or max(int(file.slots.max()) for file in files) + 1
    sums: dict[int, NDArray[np.int64]] = {}
    ranks: dict[int, int] = defaultdict(int)
    for file in files:
        for number, record in enumerate(file.records):
            where = f"{file.where}: records[{number}]"
            step = _whole(where, record, "forward_pass_id")
            name = f"{where}: global_physical_count"
            physical = whole_numbers(name, record.get("global_physical_count"), {2: "[layers, slots]"})
            logical = to_logical(where, physical, file.slots, n_experts)
            sums[step] = sums[step] + logical if step in sums else logical
            ranks[step] += 1
    steps = sorted(sums)
    job.note(LOGICAL)
    if len(files) > 1:
        job.note(f"summed {len(files)} ranks by forward_pass_id")
    uneven = sum(count != max(ranks.values()) for count in ranks.values())
    if uneven:
        job.note(f"{uneven} of {len(steps)} forward passes are missing in some ranks' files")
    return counts_trace(np.stack([sums[step] for step in steps]), job, step=np.array(steps, dtype=np.int64))


def tokens(job: ImportJob, files: Sequence[RankFile]) -> Iterator[ChoiceBlock]:
    """Lay the tokens of all passes and ranks out in order of forward_pass_id.

    Raises:
        TraceError: a record lacks its ids or positions, or names a slot that the map lacks.
    """
    by_pass: dict[int, list[tuple[RankFile, dict[str, Any], str]]] = defaultdict(list)
    for file in files:
        for number, record in enumerate(file.records):
            where = f"{file.where}: records[{number}]"
            by_pass[_whole(where, record, "forward_pass_id")].append((file, record, where))
    live = _Sequences()
    blocks, columns = [], defaultdict(list)
    repeated = False
    for step in sorted(by_pass):
        entries = by_pass[step]
        if len(entries) > 1 and all(_same_tokens(entries[0][1], record) for _, record, _ in entries[1:]):
            entries, repeated = entries[:1], True
        for rank, (file, record, where) in enumerate(entries):
            ids = _logical_ids(where, record, file.slots)
            position = whole_numbers(f"{where}: positions", record.get("positions"), {1: "one number a token"})
            if len(position) != ids.shape[1]:
                raise TraceError(f"{where}: positions: found {len(position)}, wanted {ids.shape[1]}, one a token")
            phase = PHASE_OF_MODE.get(record.get("forward_mode", 0), UNKNOWN)
            blocks.append(ids)
            columns["sequence"].append(live.of(rank, position, record.get("extend_seq_lens"), phase))
            columns["step"].append(np.full(len(position), step))
            columns["position"].append(position)
            columns["phase"].append(np.full(len(position), phase))
    if len({block.shape[0] for block in blocks}) > 1:
        raise TraceError(f"{files[0].where}: records have different numbers of layers")
    width = max(1, *(int((block >= 0).sum(axis=2).max()) for block in blocks))
    expert = np.concatenate([block[:, :, :width] for block in blocks], axis=1)
    job.note(LOGICAL)
    job.note("decode tokens were given to sequences by rank and position, as the recording names none")
    if repeated:
        job.note("ranks of one tensor-parallel group recorded the same tokens, which count once")
    known: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    moe = np.flatnonzero((expert >= 0).any(axis=(1, 2)))
    if len(moe) < len(expert):
        job.note(f"{len(expert) - len(moe)} layers chose no expert, as dense layers are recorded: left out")
    return blocks_of_tokens(expert[moe].transpose(1, 0, 2), moe, **known)


class _Sequences:
    """Gives tokens their sequences: an extend starts them, a decode token continues the oldest that ends before it."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._count = 0

    def of(self, rank: int, position: NDArray[np.int64], lengths: Any, phase: int) -> NDArray[np.int64]:
        """The sequence of each token of a pass, in its order."""
        n_tokens = len(position)
        runs = lengths if isinstance(lengths, list) and phase != DECODE else None
        if runs is None or not all(type(run) is int and run > 0 for run in runs) or sum(runs) != n_tokens:
            runs = [1] * n_tokens
        numbers = np.empty(n_tokens, dtype=np.int64)
        start = 0
        later: list[tuple[tuple[int, int], int]] = []
        for run in runs:
            first, last = int(position[start]), int(position[start + run - 1])
            waiting = self._next.get((rank, first)) if first > 0 else None
            if waiting:
                sequence = waiting.pop(0)
            else:
                sequence, self._count = self._count, self._count + 1
            numbers[start : start + run] = sequence
            later.append(((rank, last + 1), sequence))
            start += run
        for key, sequence in later:
            self._next[key].append(sequence)
        return numbers


def _logical_ids(where: str, record: dict[str, Any], slots: NDArray[np.int64]) -> NDArray[np.int32]:
    """The ids of a record [L, T, K], by the map of its rank."""
    name = f"{where}: topk_ids_of_layer"
    value = np.asarray(record.get("topk_ids_of_layer"))
    check_shape(name, value.shape, {3: "[layers, tokens, k]"})
    physical = expert_ids(name, value, {3: "[layers, tokens, k]"}, n_experts=slots.shape[1])
    if physical.shape[0] != slots.shape[0]:
        raise TraceError(f"{name}: found {physical.shape[0]} layers, wanted the {slots.shape[0]} of the map")
    logical = np.take_along_axis(slots, np.maximum(physical, 0).reshape(len(slots), -1), axis=1).reshape(physical.shape)
    logical[physical < 0] = -1
    return logical.astype(np.int32)


def _same_tokens(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two ranks recorded the same tokens, as those of a tensor-parallel group do."""
    return all(first.get(name) == second.get(name) for name in ("input_ids", "positions")) and np.array_equal(
        np.asarray(first.get("topk_ids_of_layer")), np.asarray(second.get("topk_ids_of_layer"))
    )


def _whole(where: str, record: dict[str, Any], name: str) -> int:
    value = record.get(name)
    if type(value) is not int or not 0 <= value < 2**31:
        raise TraceError(f"{where}: {name}: found {value!r:.40}, wanted a whole number from 0")
    return value


def _recognises(sample: Sample) -> bool:
    return b"last_physical_to_logical_map" in torch_names(sample.path)


def _read(job: ImportJob) -> Iterator[ChoiceBlock] | CountsTrace:
    files = [rank_file(str(path), load_torch(path)) for path in job.files]
    per_token = "topk_ids_of_layer" in files[0].records[0]
    return tokens(job, files) if per_token else passes(job, files)


LAYOUT = Layout(
    name="sglang-passes",
    summary="SGLang's expert distribution recorder, per_pass and per_token (a .pt a rank)",
    recognises=_recognises,
    read=_read,
    maps_slots=True,
)
