"""A whole scenario, and the fields that this version does not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from moesim.scenario.schema.cluster import ClusterSpec, ParallelismSpec, PrecisionSpec
from moesim.scenario.schema.model import ModelSpec
from moesim.scenario.schema.parts import Part, described, list_to_tuple
from moesim.scenario.schema.routing import PlacementSpec, RoutingSpec
from moesim.scenario.schema.simulation import FaultSpec, KeepSpec, SimulationSpec
from moesim.scenario.schema.workload import WorkloadSpec


class ScenarioSpec(Part):
    """A scenario with all presets and defaults filled in."""

    scenario_version: Literal[1] = 1
    name: str = described("scenario", "shown in reports; default: the file's name", min_length=1, max_length=200)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelSpec = described(..., "preset, path of a Hugging Face config.json, or inline fields")
    precision: Annotated[PrecisionSpec, Field(default_factory=PrecisionSpec)]
    cluster: ClusterSpec
    parallelism: Annotated[ParallelismSpec, Field(default_factory=ParallelismSpec)]
    workload: Annotated[WorkloadSpec, Field(default_factory=WorkloadSpec)]
    routing: Annotated[RoutingSpec, Field(default_factory=RoutingSpec)]
    placement: Annotated[PlacementSpec, Field(default_factory=PlacementSpec)]
    simulation: Annotated[SimulationSpec, Field(default_factory=SimulationSpec)]
    faults: Annotated[tuple[FaultSpec, ...], BeforeValidator(list_to_tuple)] = described(
        (), "what goes wrong; empty = nothing"
    )
    keep: Annotated[KeepSpec, Field(default_factory=KeepSpec)]


UNSUPPORTED: Mapping[str, str] = {
    "workload.arrivals": "open-loop serving",
}
"""Planned fields that this version does not read; the error of one says so instead of calling it unknown."""
