"""Reading the tables of an installed aiconfigurator-core, which has those of many GPUs.

Its layout is systems/data/<system>/<operation>/<framework>/<version>/<table>_perf.parquet, without the columns that
the folders tell, and with `latency` in milliseconds. Source: github.com/ai-dynamo/aiconfigurator, collectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim.calibration.layout import LAYOUTS, load_layout
from moesim.calibration.reading import Reading, read_frame
from moesim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = "aiconfigurator_core"

# these collectors write fixed labels: fp8 for the cache that is bfloat16, and none for weights in fp8_block
_WIDEEP_MLA = {"kv_cache_dtype": "bfloat16", "mla_dtype": "bfloat16", "gemm_type": "fp8_block"}

FILES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "moe_perf": ("moe", {}),
    "wideep_context_moe_perf": ("wideep_context", {}),
    "wideep_generation_moe_perf": ("wideep_generation", {}),
    "wideep_moe_perf": ("wideep_trtllm_eplb", {}),
    "wideep_deepep_ll_perf": ("deepep_ll", {}),
    "wideep_deepep_normal_perf": ("deepep_normal", {}),
    "moe_a2a_perf": ("moe_a2a", {}),
    "nccl_perf": ("nccl", {}),
    "gemm_perf": ("gemm", {}),
    "context_attention_perf": ("attention_context", {"past_kv_tokens": 0, "window_size": 0}),
    "generation_attention_perf": ("attention_generation", {"window_size": 0}),
    "context_mla_perf": ("mla_context", {"scope": "kernel", "gemm_type": "", "past_kv_tokens": 0}),
    "mla_context_module_perf": ("mla_context", {"scope": "module", "past_kv_tokens": 0}),
    "wideep_context_mla_perf": ("mla_context", {"scope": "wideep_module", "past_kv_tokens": 0, **_WIDEEP_MLA}),
    "generation_mla_perf": ("mla_generation", {"scope": "kernel", "gemm_type": ""}),
    "mla_generation_module_perf": ("mla_generation", {"scope": "module"}),
    "wideep_generation_mla_perf": ("mla_generation", {"scope": "wideep_module", **_WIDEEP_MLA}),
    "mla_bmm_perf": ("mla_bmm", {}),
    "custom_allreduce_perf": ("allreduce", {}),
    "scale_matrix_perf": ("elementwise", {}),
    "computescale_perf": ("elementwise", {}),
    "wideep_context_mlp_perf": ("mlp", {"phase": "context"}),
    "wideep_generation_mlp_perf": ("mlp", {"phase": "generation"}),
}
"""Name of a file -> its layout, and the columns that its name tells."""

_NAMES: Mapping[str, tuple[str, ...]] = {
    "latency_ms": ("latency", "avg_ms"),
    "num_tokens": ("num_token",),
    "message_size_elements": ("message_size",),
    "past_kv_tokens": ("step",),
}
"""Our name of a column -> what it may be called there."""


def read_installed(system: str) -> Reading:
    """The tables of a system in the installed package.

    Raises:
        InputError: the package is not installed, or has no such system.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "--data aiconfigurator: aiconfigurator-core is not installed; pip install 'moesim[measured]' brings it"
        )
    data = Path(next(iter(spec.submodule_search_locations))) / "systems" / "data"
    folder = data / system
    systems = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    if system not in systems:
        raise InputError(f"--data aiconfigurator: found system {system!r:.60}, wanted one of {', '.join(systems)}")
    reading = Reading()
    for path in sorted(folder.glob("**/*_perf.parquet")):
        if path.stem not in FILES or FILES[path.stem][0] not in LAYOUTS:
            reading.skipped.append(str(path))
            continue
        try:
            frame = with_our_names(read_frame(path), path.stem, system)
        except InputError as error:
            reading.problems.append(str(error))
            continue
        layout = FILES[path.stem][0]
        words = path.relative_to(folder).parent.as_posix().replace("/", "_")
        reading.add(str(path), f"{layout}_{system}_{words}_{path.stem.removesuffix('_perf')}", frame)
    return reading


def with_our_names(frame: pd.DataFrame, stem: str, system: str) -> pd.DataFrame:
    """The table with the columns of our layouts: those that its name and folder tell, and others by our names."""
    name, told = FILES[stem]
    wanted = load_layout(name).columns
    frame = frame.assign(system=system)
    if stem == "wideep_generation_mla_perf":  # there isl is the length of the cache
        frame = frame.assign(past_kv_tokens=frame["isl"], isl=1)
    for column, others in _NAMES.items():
        there = next((other for other in others if other in frame), None)
        if column in wanted and column not in frame and there:
            frame = frame.rename(columns={there: column})
    for column, value in told.items():
        if column not in frame or column in _WIDEEP_MLA:
            frame = frame.assign(**{column: value})
    if "message_bytes" in wanted and "message_bytes" not in frame:
        frame = frame.assign(message_bytes=2 * frame["message_size_elements"])
    return frame
