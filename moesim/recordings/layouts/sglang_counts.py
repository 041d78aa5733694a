"""SGLang's expert distribution recorder, modes stat and stat_approx: counts of logical experts, summed over all ranks.

Facts: python/sglang/srt/eplb/expert_distribution.py of sgl-project/sglang (02295fe). `logical_count` is [steps, layers,
experts], or [layers, experts] of a whole run; layers are all of the model's, so that dense ones are rows of zeros, and
steps that the circular buffer never held are zeros. A CSV of an earlier version
is a plain table of counts.
"""

from __future__ import annotations

from functools import partial

from moesim.recordings.layout import Layout
from moesim.recordings.layouts.stated_counts import counts_of_files
from moesim.recordings.sample import Sample
from moesim.recordings.tensor_files import torch_names


def _recognises(sample: Sample) -> bool:
    return "logical_count" in sample.keys or b"logical_count" in torch_names(sample.path)


LAYOUT = Layout(
    name="sglang-counts",
    summary="SGLang's expert distribution recorder, stat and stat_approx (.pt or JSON)",
    recognises=_recognises,
    read=partial(counts_of_files, name="logical_count"),
)
