"""TensorRT-LLM's expert statistics: a folder with `meta_info.json` and one `rank*.safetensors` a rank.

Facts: tensorrt_llm/_torch/expert_statistic.py and examples/wide_ep/ep_load_balancer of NVIDIA/TensorRT-LLM. A key
"{iteration}_{layer}" has the int64 [experts] counts of that rank's tokens; layers are those of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, MAX_EXPERTS, MAX_LAYERS, expert_ids, whole_numbers
from moesim.recordings.layout import TOKEN_BITS, ChoiceBlock, ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace
from moesim.recordings.records import json_document
from moesim.recordings.sample import Sample
from moesim.recordings.tensor_files import safetensors_arrays
from moesim.types import CountsTrace

FILE = re.compile(r"rank(\d{1,6})\.safetensors")
RAW_FILE = re.compile(r"rank(\d{1,6})_raw\.safetensors")
_RANK_BITS = 22
"""A rank has fewer than four million tokens in an iteration."""
KEY = re.compile(r"(\d{1,9})_(\d{1,5})")


def experts_of(where: str, meta: Any) -> int:
    """The number of experts that meta_info.json states.

    Raises:
        TraceError: it states none.
    """
    number = meta.get("num_experts") if isinstance(meta, dict) else None
    if type(number) is not int or not 1 <= number <= MAX_EXPERTS:
        raise TraceError(f"{where}: num_experts: found {number!r:.40}, wanted a whole number from 1 to {MAX_EXPERTS}")
    return number


def statistics(job: ImportJob, n_experts: int, ranks: Mapping[str, Iterable[tuple[str, NDArray[Any]]]]) -> CountsTrace:
    """Sum the tensors of all ranks' files by iteration and layer.

    Raises:
        TraceError: a key is no "{iteration}_{layer}", a tensor has another length, or there is none.
    """
    sums: dict[tuple[int, int], NDArray[np.int64]] = {}
    seen: dict[tuple[int, int], int] = {}
    for path, tensors in ranks.items():
        for key, tensor in tensors:
            where = f"{path}: {key}"
            place = _place(path, key)
            count = whole_numbers(where, tensor, {1: "one count an expert"})
            if len(count) != n_experts:
                raise TraceError(f"{where}: found {len(count)} counts, wanted {n_experts} as meta_info.json states")
            sums[place] = sums[place] + count if place in sums else count
            seen[place] = seen.get(place, 0) + 1
    if not sums:
        raise TraceError(f"{', '.join(ranks)[:200]}: found no tensor, wanted one for each iteration and layer")
    steps = sorted({step for step, _ in sums})
    layers = sorted({layer for _, layer in sums})
    if len(steps) * len(layers) * n_experts > MAX_CELLS:
        raise TraceError(f"{len(steps)} iterations x {len(layers)} layers x {n_experts} experts are too many")
    count = np.zeros((len(steps), len(layers), n_experts), dtype=np.int64)
    at_step, at_layer = {step: i for i, step in enumerate(steps)}, {layer: i for i, layer in enumerate(layers)}
    for (step, layer), value in sums.items():
        count[at_step[step], at_layer[layer]] = value
    if len(ranks) > 1:
        job.note(f"summed the counts of {len(ranks)} ranks")
    missing = len(steps) * len(layers) - len(sums)
    if missing:
        job.note(f"{missing} of {len(steps) * len(layers)} (iteration, layer) pairs were not recorded: counted as 0")
    uneven = sum(number != max(seen.values()) for number in seen.values())
    if uneven:
        job.note(f"{uneven} (iteration, layer) pairs are missing in some ranks' files")
    return counts_trace(count, job, step=np.array(steps, dtype=np.int64), layer_ids=tuple(layers))


def choices(job: ImportJob, ranks: Mapping[str, Iterable[tuple[str, NDArray[Any]]]]) -> Iterator[ChoiceBlock]:
    """The ids [tokens, k] of all ranks' raw files, which a later version writes; tokens of a rank follow one another.

    Raises:
        TraceError: a key is no "{iteration}_{layer}", or a tensor holds no ids.
    """
    job.note("ids of rank*_raw.safetensors were read: their form is not that of a release of TensorRT-LLM")
    for rank, (path, tensors) in enumerate(ranks.items()):
        for key, tensor in tensors:
            step, layer = _place(path, key)
            expert = expert_ids(f"{path}: {key}", tensor, {2: "[tokens, k]"}, n_experts=job.n_experts)
            row = np.arange(len(expert))
            yield ChoiceBlock(
                token=(step << TOKEN_BITS) + (rank << _RANK_BITS) + row,
                layer=np.full(len(row), layer),
                expert=expert,
                step=np.full(len(row), step),
                where=lambda row, place=f"{path}: {key}": f"{place}[{row}]",  # type: ignore[misc]
            )


def _place(path: str, key: str) -> tuple[int, int]:
    """Iteration and layer of a tensor."""
    match = KEY.fullmatch(key)
    if match is None or int(match[2]) >= MAX_LAYERS:
        raise TraceError(f"{path}: found the key {key!r:.40}, wanted ITERATION_LAYER such as '100_3'")
    return int(match[1]), int(match[2])


def _recognises(sample: Sample) -> bool:
    return (
        sample.kind == "folder"
        and "meta_info.json" in sample.names
        and bool(_ranks(sample.names) or _ranks(sample.names, RAW_FILE))
    )


def _read(job: ImportJob) -> CountsTrace | Iterator[ChoiceBlock]:
    if len(job.files) > 1:
        raise TraceError(f"{job.files[1]}: found a second folder of statistics, wanted one at a time")
    folder = job.files[0]
    names = Sample(folder).names
    n_experts = experts_of(str(folder / "meta_info.json"), json_document(folder / "meta_info.json"))
    job.n_experts = n_experts
    ranks = {str(folder / name): safetensors_arrays(folder / name) for name in _ranks(names)}
    raw = {str(folder / name): safetensors_arrays(folder / name) for name in _ranks(names, RAW_FILE)}
    if not ranks:
        return choices(job, raw)
    if raw:
        job.note("rank*_raw.safetensors beside the counts were not read")
    return statistics(job, n_experts, ranks)


def _ranks(names: Iterable[str], pattern: re.Pattern[str] = FILE) -> list[str]:
    """The files of counts, or of another pattern, by rank."""
    found = [(int(match[1]), name) for name in names if (match := pattern.fullmatch(name))]
    return [name for _, name in sorted(found)]


LAYOUT = Layout(
    name="tensorrt-llm-statistics",
    summary="TensorRT-LLM's expert statistics (a folder of meta_info.json and rank*.safetensors)",
    recognises=_recognises,
    read=_read,
)
