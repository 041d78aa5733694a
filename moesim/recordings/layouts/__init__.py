"""The layouts that `moesim import` knows, one small module each, in the order in which they are tried.

Where a file could be read in two ways the more particular layout stands first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from moesim.errors import TraceError, did_you_mean
from moesim.recordings.layout import Layout
from moesim.recordings.layouts import (
    core12345,
    imp,
    llama_cpp,
    mindie,
    moe_balance,
    refused,
    regolith,
    response_routes,
    route_sim,
    routed_arrays,
    sglang_counts,
    sglang_passes,
    simllm,
    stated_counts,
    tensorrt_llm,
    training_csv,
    vllm_load_dump,
)
from moesim.recordings.layouts.arrays import COUNTS_ARRAY, IDS_ARRAY, LOGITS_ARRAY
from moesim.recordings.layouts.jsonl import JSON_LINES
from moesim.recordings.layouts.parquet import PARQUET_COUNTS, PARQUET_TRACE
from moesim.recordings.layouts.tables import CSV_COUNTS
from moesim.recordings.layouts.vllm_routes import VLLM_ROUTES
from moesim.recordings.sample import Sample

MAX_FILES = 100_000
"""In a folder, so that a wrong one is not searched for hours."""
_WANTED = "wanted a recording; `moesim list layouts` names those that are known"

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        PARQUET_TRACE,
        *refused.LAYOUTS,
        sglang_counts.LAYOUT,
        sglang_passes.LAYOUT,
        response_routes.LAYOUT,
        routed_arrays.LAYOUT,
        vllm_load_dump.LAYOUT,
        VLLM_ROUTES,
        tensorrt_llm.LAYOUT,
        simllm.LAYOUT,
        moe_balance.LAYOUT,
        core12345.LAYOUT,
        route_sim.LAYOUT,
        imp.LAYOUT,
        regolith.LAYOUT,
        *llama_cpp.LAYOUTS,
        training_csv.LAYOUT,
        mindie.LAYOUT,
        *stated_counts.LAYOUTS,
        JSON_LINES,
        CSV_COUNTS,
        PARQUET_COUNTS,
        IDS_ARRAY,
        LOGITS_ARRAY,
        COUNTS_ARRAY,
    )
}


def files_of(paths: Sequence[str | Path], name: str = "") -> tuple[Layout, tuple[Path, ...], int]:
    """The layout of the files of one import, these files, and how many others in folders were passed over.

    A folder that is no recording itself stands for the recordings in it and in its folders, ordered by their names with
    numbers by value.

    Args:
        paths: of files and folders, at least one.
        name: of the layout; "" = recognised by content.

    Raises:
        TraceError: there is no such layout, no layout is like a file, or the files are of several.
    """
    if name and name not in LAYOUTS:
        raise TraceError(f"layout: found {name!r:.40}, wanted one of {', '.join(LAYOUTS)}{did_you_mean(name, LAYOUTS)}")
    files: list[Path] = []
    first: Layout | None = LAYOUTS[name] if name else None
    passed_over = 0
    for path in map(Path, paths):
        sample = Sample(path)
        layout = LAYOUTS[name] if name and sample.kind != "folder" else recognised(sample)
        if layout is not None or sample.kind != "folder":
            first = _same(first, layout, sample, files)
            files.append(path)
            continue
        inside = _inside(path)
        for each in inside:
            sample = Sample(each)
            layout = LAYOUTS[name] if name else recognised(sample)
            if layout is None or layout in refused.LAYOUTS:
                passed_over += 1
                continue
            first = _same(first, layout, sample, files)
            files.append(each)
        if passed_over == len(inside) and not files:
            shown = ", ".join(each.name for each in inside[:3]) or "nothing in it"
            raise TraceError(f"{path}: found a folder with {shown}, {_WANTED}")
    assert first is not None
    return first, tuple(files), passed_over


def recognised(sample: Sample) -> Layout | None:
    """The layout that a file or folder is like, None if there is none."""
    return next((layout for layout in LAYOUTS.values() if layout.recognises(sample)), None)


def _same(first: Layout | None, found: Layout | None, sample: Sample, files: list[Path]) -> Layout:
    """The layout of a file, which must be that of the files before."""
    if found is None:
        raise TraceError(f"{sample.path}: found {_shown(sample)}, {_WANTED}")
    if first is not None and found is not first:
        as_what = f", as {files[0]} is" if files else ""
        raise TraceError(f"{sample.path}: found {found.name}, wanted {first.name}{as_what}: import each apart")
    return found


def _inside(folder: Path) -> list[Path]:
    """The files in a folder and its folders that are not hidden, ordered by name with numbers by value."""

    def order(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.relative_to(folder).as_posix())
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    try:
        found = list(islice((path for path in folder.rglob("*") if path.is_file()), MAX_FILES + 1))
    except OSError as error:
        raise TraceError(
            f"{error.filename or folder}: found what cannot be read ({error.strerror}), wanted recordings in {folder}"
        ) from None
    if len(found) > MAX_FILES:
        raise TraceError(f"{folder}: found above {MAX_FILES:,} files, wanted a folder of recordings alone")
    return sorted((path for path in found if not _hidden(path.relative_to(folder))), key=order)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _shown(sample: Sample) -> str:
    """What a file that is no recording seems to be."""
    if sample.kind == "text":
        return f"text that begins with {sample.text.lstrip()[:40]!r}"
    if sample.kind == "pickle":
        return "a pickle, which is never loaded, as it could run any program"
    return f"{sample.kind} data"
