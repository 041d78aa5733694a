"""The GPUs and the network of a scenario, as engines and durations know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from moesim.scenario.schema import ScenarioSpec
from moesim.types import ClusterShape, GpuSpec, Level, NetworkSpec


def cluster_shape(spec: ScenarioSpec) -> ClusterShape:
    """The GPUs and their network, whose rates belong to the level of detail that the simulation uses."""
    apart = {name for name in type(spec.cluster.network).model_fields if name.startswith("measured_")}
    network = spec.cluster.network.model_dump(exclude=apart | {"provenance", "port_bandwidth_factor", "levels"})
    if spec.simulation.network == "port":
        within, across = spec.cluster.network.port_bandwidth_factor
        for field in ("dispatch_bandwidth_gb_per_s", "combine_bandwidth_gb_per_s"):
            if network[field] is not None:
                network[field] = (network[field][0] * within, network[field][1] * across)
    return ClusterShape(
        gpu=gpu_spec(spec.cluster.gpu.model_dump()),
        network=NetworkSpec(**network, levels=_levels(spec)),
        n_nodes=spec.cluster.nodes,
        gpus_per_node=spec.cluster.gpus_per_node,
    )


def gpu_spec(preset: Mapping[str, Any]) -> GpuSpec:
    """A GPU by the fields of its preset and its name, without those that tell of clusters and sources."""
    known = {each.name for each in fields(GpuSpec)}
    return GpuSpec(**{name: value for name, value in preset.items() if name in known})


def _levels(spec: ScenarioSpec) -> tuple[Level, ...]:
    """The levels that the network states, with the sizes and ports that they have by default."""
    cluster = spec.cluster
    within, across = cluster.network.port_bandwidth_factor if spec.simulation.network == "port" else (1.0, 1.0)
    stated = cluster.network.levels
    sizes = [level.size or 0 for level in stated]
    if sizes:
        sizes[0], sizes[-1] = cluster.gpus_per_node, max(sizes[-1], cluster.nodes * cluster.gpus_per_node)
    found = []
    for i, (level, size) in enumerate(zip(stated, sizes, strict=True)):
        bandwidth, shares = level.bandwidth_gb_per_s, level.shares_port
        found.append(
            Level(
                name=level.name,
                size=size,
                bandwidth_gb_per_s=bandwidth and bandwidth * (across if i else within),
                latency_us=level.latency_us,
                shares_port=(i > 1 and bandwidth is None) if shares is None else shares,
                oversubscription=level.oversubscription,
            )
        )
    return tuple(found)
