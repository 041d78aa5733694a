"""What the fields of a scenario must agree on, where each of them alone is right."""

from __future__ import annotations

from typing import Any

from moesim.scenario.model_shape import model_rules
from moesim.scenario.network_levels import level_rules
from moesim.scenario.popularity import popularity_rules
from moesim.scenario.schema import ScenarioSpec
from moesim.scenario.skew import skew_rules
from moesim.scenario.source import Fail, FieldPath, shown
from moesim.types import DTYPE_BYTES

RATES = tuple(f"{way}_{rate}" for rate in ("latency_us", "bandwidth_gb_per_s") for way in ("dispatch", "combine"))
"""Fields of a network that a fitted one need not state."""


def check_agreement(spec: ScenarioSpec, fail: Fail) -> None:
    """Refuse fields that do not fit one another.

    Raises:
        ScenarioError: the first rule that does not hold.
    """
    model, gpu, network = spec.model, spec.cluster.gpu, spec.cluster.network
    n_gpus = spec.cluster.nodes * spec.cluster.gpus_per_node
    tokens = spec.workload.tokens_per_gpu
    stated = {name: getattr(network, name) for name in RATES}
    latencies = [x for name, rates in stated.items() if name.endswith("_us") for x in rates or ()]
    bandwidths = [x for name, rates in stated.items() if name.endswith("_per_s") for x in rates or ()]
    factors, network_path = network.port_bandwidth_factor, ("cluster", "network")
    rules: list[tuple[bool, FieldPath, Any, str]] = [
        *model_rules(model),
        ("bf16" in gpu.peak_tflops, ("cluster", "gpu", "peak_tflops"), [*gpu.peak_tflops], "bf16 among the types"),
        (
            all(x >= 1e-6 for x in gpu.link_gb_per_s or ()),
            ("cluster", "gpu", "link_gb_per_s"),
            gpu.link_gb_per_s,
            "bandwidths of 1e-6 GB/s or more",
        ),
        (
            all(1e-6 <= x <= 1e9 for x in latencies),
            network_path,
            latencies,
            "latencies of 1e-6 us (1 ps) or more, at most 1e9",
        ),
        (all(x >= 1e-6 for x in bandwidths), network_path, bandwidths, "bandwidths of 1e-6 GB/s or more"),
        (
            all(0 < x <= 100 for x in factors),
            (*network_path, "port_bandwidth_factor"),
            factors,
            "factors above 0, at most 100",
        ),
        (
            network.comm_sms < gpu.n_sms,
            (*network_path, "comm_sms"),
            network.comm_sms,
            f"fewer than the {gpu.n_sms} SMs of {gpu.name}",
        ),
        *_parallelism_rules(spec),
        *level_rules(spec),
        *popularity_rules(spec),
        *skew_rules(spec),
        (
            spec.routing.strategy != "",
            ("routing", "strategy"),
            spec.routing.strategy,
            "the name of a router, or none for the model's own",
        ),
        (
            spec.routing.top_k is not None and spec.routing.top_k <= model.n_experts,
            ("routing", "top_k"),
            spec.routing.top_k,
            f"at most the {model.n_experts} experts of {model.name}",
        ),
        (
            tokens is None or tokens * n_gpus < 2**31,
            ("workload", "tokens_per_gpu"),
            tokens,
            f"fewer than 2^31 tokens a step over {n_gpus} GPUs",
        ),
    ]
    weights, activations = spec.precision.weights or "", spec.precision.activations or ""
    computed = f"one of {', '.join(gpu.peak_tflops)}, which {gpu.name} computes in"
    rules += [
        (activations in gpu.peak_tflops, ("precision", "activations"), activations, computed),
        (
            weights in gpu.peak_tflops or DTYPE_BYTES[weights] < DTYPE_BYTES[activations],
            ("precision", "weights"),
            weights,
            f"{computed}, or one of fewer bits than the activations",
        ),
    ]
    for holds, path, found, wanted in rules:
        if not holds:
            raise fail(path, shown(found), wanted)


def _parallelism_rules(spec: ScenarioSpec) -> list[tuple[bool, FieldPath, Any, str]]:
    """How groups of GPUs must fit the nodes: within one, or made of whole ones."""
    parallel, a_node = spec.parallelism, spec.cluster.gpus_per_node
    n_gpus, expert, shared = spec.cluster.nodes * a_node, parallel.expert or 1, parallel.attention_tp or 1
    group, path = expert * parallel.expert_tp, ("parallelism", "expert")
    ranks = "ranks" if parallel.expert_tp == 1 else f"ranks of {parallel.expert_tp} GPUs"
    dividers = ", ".join(str(n) for n in range(1, a_node + 1) if a_node % n == 0)
    return [
        (
            a_node % parallel.expert_tp == 0,
            ("parallelism", "expert_tp"),
            parallel.expert_tp,
            f"one of {dividers}, which divide the {a_node} GPUs of a node",
        ),
        (n_gpus % group == 0, path, expert, f"{ranks} in groups that divide the {n_gpus} GPUs of the cluster"),
        (
            a_node % group == 0 or group % a_node == 0,
            path,
            expert,
            f"{ranks} in groups of whole nodes, or that divide the {a_node} GPUs of a node",
        ),
        (
            parallel.attention == "tensor" or shared == 1,
            ("parallelism", "attention_tp"),
            shared,
            "1, unless parallelism.attention is tensor",
        ),
        (
            a_node % shared == 0,
            ("parallelism", "attention_tp"),
            shared,
            f"one of {dividers}, which divide the {a_node} GPUs of a node",
        ),
        (
            shared <= spec.model.n_heads,
            ("parallelism", "attention_tp"),
            shared,
            f"at most the {spec.model.n_heads} heads of {spec.model.name}",
        ),
        (
            spec.placement.expert_gpus is None or (group == n_gpus and parallel.expert_tp == shared == 1),
            ("placement", "expert_gpus"),
            spec.placement.expert_gpus,
            "none, unless all GPUs are one group without tensor parallelism",
        ),
    ]
