"""The layouts that `moesim import` knows, one small module each, in the order in which they are tried.

Where a file could be read in two ways the more particular layout stands first.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def layout_of(samples: Sequence[Sample], name: str = "") -> Layout:
    """The layout of the files of one import.

    Args:
        samples: of its files, at least one.
        name: of the layout; "" = recognised by content.

    Raises:
        TraceError: there is no such layout, no layout is like a file, or the files are of several.
    """
    if name:
        if name not in LAYOUTS:
            raise TraceError(
                f"layout: found {name!r:.40}, wanted one of {', '.join(LAYOUTS)}{did_you_mean(name, LAYOUTS)}"
            )
        return LAYOUTS[name]
    found = [_recognised(sample) for sample in samples]
    for sample, layout in zip(samples, found, strict=True):
        if layout is not found[0]:
            raise TraceError(
                f"{sample.path}: found {layout.name}, wanted {found[0].name}, as {samples[0].path} is: "
                "import each apart"
            )
    return found[0]


def _recognised(sample: Sample) -> Layout:
    for layout in LAYOUTS.values():
        if layout.recognises(sample):
            return layout
    if sample.kind == "text":
        shown = f"text that begins with {sample.text.lstrip()[:40]!r}"
    elif sample.kind == "folder":
        shown = f"a folder with {', '.join(sample.names[:3]) or 'nothing in it'}"
    elif sample.kind == "pickle":
        shown = "a pickle, which is never loaded, as it could run any program"
    else:
        shown = f"{sample.kind} data"
    raise TraceError(
        f"{sample.path}: found {shown}, wanted a recording; `moesim list layouts` names those that are known"
    )
