"""Which links and defaults a GPU has, and what a network's label may say on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.scenario.presets import preset, presets
from moesim.scenario.schema import GpuPreset, ScenarioSpec

OF_UNKNOWN_GPU: str = GpuPreset.model_fields["network"].default
"""The network of a GPU that names none."""
_MEASURED_NODE = 8
_SHARE_OF_LINKS = 0.8
"""What estimated networks reach of their published links; those that reach another share come with a GPU."""


def links_of(network: str) -> list[float] | None:
    """Published GB/s of the links of a network, [within a node, across nodes]; None if only its fit knows them."""
    for gpu in presets("gpus").values():
        if network in (gpu["network"], f"{gpu['network']}-two-hop"):
            return list(gpu["link_gb_per_s"])
    rates = presets("networks").get(network, {}).get("dispatch_bandwidth_gb_per_s")
    return None if rates is None else [rate / _SHARE_OF_LINKS for rate in rates]


def with_defaults(gpu: dict[str, Any], written: Any) -> dict[str, Any]:
    """The fields of a GPU with `estimated`: of its preset but what is written over it; of an inline one its defaults.

    Args:
        gpu: its fields, those of its preset filled in.
        written: as the scenario writes it, a name or a mapping.
    """
    own = written if isinstance(written, dict) else {}
    if "estimated" in gpu:
        kept = gpu["estimated"] if "estimated" in own else [name for name in gpu["estimated"] if name not in own]
        return {**gpu, "estimated": kept}
    if "source" in gpu or not set(gpu) >= _STATED:
        return gpu
    return {**gpu, "estimated": [name for name in _DEFAULTS if name not in gpu]}


_STATED = {name for name, field in GpuPreset.model_fields.items() if field.is_required()}
_DEFAULTS = ("n_sms", "l2_cache_mb", "clock_ghz", "link_gb_per_s")
"""What a GPU has whether it is stated or not, and what its times follow from."""


def with_links(gpu: dict[str, Any], network: Any) -> dict[str, Any]:
    """The fields of a GPU with links, where they state none those of its network, else of the cluster's, else PCIe.

    Args:
        gpu: fields of the GPU, which may lack some.
        network: as the scenario writes it, a name or a mapping; None if it writes none.
    """
    if "link_gb_per_s" in gpu:
        return gpu
    known = (links_of(name) for name in (gpu.get("network"), _name(network), OF_UNKNOWN_GPU) if isinstance(name, str))
    return {**gpu, "link_gb_per_s": next(links for links in known if links is not None)}


def links_warning(cluster: Any) -> str:
    """The warning about a GPU that names neither links nor a network that has them; "" if it names either."""
    gpu = cluster.get("gpu") if isinstance(cluster, dict) else None
    if not isinstance(gpu, dict) or {"preset", "network", "link_gb_per_s"} & set(gpu):
        return ""
    network = cluster.get("network")
    if network is not None and "fitted" not in presets("networks").get(str(_name(network)), {}):
        return ""
    within, across = links_of(OF_UNKNOWN_GPU) or (0.0, 0.0)
    return (
        f"names neither network nor link_gb_per_s, so it has the links of {OF_UNKNOWN_GPU}: {within:g} GB/s within a "
        f"node and {across:g} across nodes"
    )


def _name(network: Any) -> Any:
    """The preset of a network as it is written, or its name."""
    return (network.get("preset") or network.get("name")) if isinstance(network, dict) else network


def network_provenance(spec: ScenarioSpec) -> str:
    """Where the times of exchanges come from; measured only on the GPUs and at the sizes that were measured."""
    network = spec.cluster.network
    label = "synthetic" if network.name.endswith("(changed)") else network.provenance
    reasons = _beyond(spec) if label == "measured" and network.fitted is not None else []
    if reasons:
        label = "estimated"
    return "; ".join([f"{label}: {network.name}" + (f", {network.source}" if network.source else ""), *reasons])


def _beyond(spec: ScenarioSpec) -> list[str]:
    """How a run goes beyond the measurements of its network."""
    network, cluster, gpu = spec.cluster.network, spec.cluster, spec.cluster.gpu
    reasons = []
    home: Mapping[str, Any] = preset("gpus", network.measured_on[0]) if network.measured_on else {}
    own, theirs = (tuple(links or (0.0, 0.0)) for links in (gpu.link_gb_per_s, home.get("link_gb_per_s")))
    if gpu.name not in network.measured_on or own != theirs:
        rates = f"{own[0]:g} instead of {theirs[0]:g} GB/s within a node"
        if cluster.nodes > 1:
            rates += f", {own[1]:g} instead of {theirs[1]:g} across nodes"
        reasons.append(f"scaled from {', '.join(network.measured_on)} to the published links of {gpu.name} ({rates})")
    if gpu.vendor:
        reasons.append(f"the software of {gpu.vendor} was not measured")
    n_gpus = (spec.parallelism.expert or 1) * spec.parallelism.expert_tp
    whole_nodes = n_gpus <= cluster.gpus_per_node or cluster.gpus_per_node == _MEASURED_NODE
    if n_gpus not in network.measured_gpus or not whole_nodes:
        reasons.append(f"{n_gpus} GPUs in nodes of {cluster.gpus_per_node} were not measured")
    if network.measured_dispatch and spec.precision.dispatch not in network.measured_dispatch:
        reasons.append(f"dispatch in {spec.precision.dispatch} was not measured")
    if network.measured_dispatch and spec.precision.combine != "bf16":
        reasons.append(f"combine in {spec.precision.combine} was not measured")
    if spec.simulation.experts == "queued":
        reasons.append("messages to queued experts were not measured")
    if spec.placement is not None and spec.placement.expert_gpus is not None:
        reasons.append("GPUs without experts were not measured")
    tokens = spec.workload.tokens_per_gpu
    if network.measured_tokens and tokens and not network.measured_tokens[0] <= tokens <= network.measured_tokens[1]:
        reasons.append(f"{tokens:,} tokens a GPU were not measured")
    return reasons
