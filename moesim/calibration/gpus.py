"""The GPUs that measured tables name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from moesim.scenario.cluster_shape import gpu_spec
from moesim.scenario.presets import presets
from moesim.types import GpuSpec


def gpu_of(system: str, gpus: Mapping[str, GpuSpec] | None = None) -> GpuSpec | None:
    """The specification of a system of measured tables: h100_sxm is the preset h100-sxm; None if unknown."""
    known = published_gpus() if gpus is None else gpus
    plain = system.lower().replace("-", "_")
    return next(
        (known[name] for name in (system, plain, f"{plain}_sxm", plain.removesuffix("_sxm")) if name in known), None
    )


@cache
def published_gpus() -> Mapping[str, GpuSpec]:
    """The GPUs of the presets, by the names that tables give their systems: h100_sxm for the preset h100-sxm."""
    return {name.replace("-", "_"): gpu_spec({"name": name, **entry}) for name, entry in presets("gpus").items()}
