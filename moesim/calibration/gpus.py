"""The GPUs that measured tables name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from moesim.scenario.cluster_shape import gpu_spec
from moesim.scenario.presets import canonical, presets
from moesim.types import GpuSpec


def gpu_of(system: str, gpus: Mapping[str, GpuSpec] | None = None) -> GpuSpec | None:
    """The GPU that measured tables call their system, by any of its names: h100_sxm is h100-sxm; None if unknown."""
    known = published_gpus() if gpus is None else gpus
    plain = system.lower().replace("-", "_")
    preset = canonical("gpus", system).replace("-", "_")
    names = (system, plain, f"{plain}_sxm", plain.removesuffix("_sxm"), preset)
    return next((known[name] for name in names if name in known), None)


@cache
def published_gpus() -> Mapping[str, GpuSpec]:
    """The GPUs of the presets, by the names that tables give their systems: h100_sxm for the preset h100-sxm."""
    return {name.replace("-", "_"): gpu_spec({"name": name, **entry}) for name, entry in presets("gpus").items()}
