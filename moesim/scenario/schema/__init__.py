"""The fields of a scenario, their units (in the names) and defaults; one module a part of the file."""

from moesim.scenario.schema.cluster import (
    ClusterSpec,
    GpuPreset,
    KernelTables,
    LevelSpec,
    NetworkPreset,
    ParallelismSpec,
    PrecisionSpec,
)
from moesim.scenario.schema.editors import json_schema
from moesim.scenario.schema.model import LayersSpec, ModelSpec
from moesim.scenario.schema.routing import CapacitySpec, PlacementSpec, RoutingSpec, SubstitutionSpec, TrainingSpec
from moesim.scenario.schema.scenario import UNSUPPORTED, ScenarioSpec
from moesim.scenario.schema.simulation import OVERLAP_SLOWDOWN, FaultSpec, KeepSpec, SimulationSpec
from moesim.scenario.schema.skew import (
    PATTERN_FIELDS,
    TARGET_METRICS,
    BurstsSpec,
    DriftSpec,
    MixtureSpec,
    PatternSpec,
    TargetSpec,
    TopicsSpec,
)
from moesim.scenario.schema.workload import (
    LOAD_KINDS,
    POPULARITY_FIELDS,
    POPULARITY_KINDS,
    LoadRouterSpec,
    PopularitySpec,
    WorkloadSpec,
)

__all__ = [
    "LOAD_KINDS",
    "OVERLAP_SLOWDOWN",
    "PATTERN_FIELDS",
    "POPULARITY_FIELDS",
    "POPULARITY_KINDS",
    "TARGET_METRICS",
    "UNSUPPORTED",
    "BurstsSpec",
    "CapacitySpec",
    "ClusterSpec",
    "DriftSpec",
    "FaultSpec",
    "GpuPreset",
    "KeepSpec",
    "KernelTables",
    "LayersSpec",
    "LevelSpec",
    "LoadRouterSpec",
    "MixtureSpec",
    "ModelSpec",
    "NetworkPreset",
    "ParallelismSpec",
    "PatternSpec",
    "PlacementSpec",
    "PopularitySpec",
    "PrecisionSpec",
    "RoutingSpec",
    "ScenarioSpec",
    "SimulationSpec",
    "SubstitutionSpec",
    "TargetSpec",
    "TopicsSpec",
    "TrainingSpec",
    "WorkloadSpec",
    "json_schema",
]
