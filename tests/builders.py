"""Small models, clusters and programs for tests, with times that can be worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.engine import Collective, lay_out
from moesim.hardware import Durations
from moesim.placement import place
from moesim.types import ClusterShape, Exchange, GpuSpec, ModelShape, NetworkSpec, Program, Traffic

PICO = 1e-12


def model(**changes: Any) -> ModelShape:
    """Two MoE layers of four experts."""
    values: dict[str, Any] = {
        "name": "tiny",
        "hidden_size": 256,
        "n_layers": 2,
        "n_experts": 4,
        "top_k": 2,
        "moe_intermediate_size": 512,
        "vocab_size": 1000,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 64,
        "router": "mixtral",
    }
    return ModelShape(**{**values, **changes})


def gpu(**changes: Any) -> GpuSpec:
    """A GPU of round numbers: 1000 TFLOP/s, 1000 GB/s, 80 GB."""
    values: dict[str, Any] = {
        "name": "round",
        "peak_tflops": {"bf16": 1000.0, "fp8": 2000.0},
        "memory_gb": 80.0,
        "memory_bandwidth_gb_per_s": 1000.0,
        "n_sms": 100,
        "network": "round",
    }
    return GpuSpec(**{**values, **changes})


def network(**changes: Any) -> NetworkSpec:
    """1 and 2 us, 100 and 50 GB/s."""
    values: dict[str, Any] = {
        "name": "round",
        "copies": "per-rank",
        "dispatch_latency_us": (1.0, 2.0),
        "combine_latency_us": (1.0, 2.0),
        "dispatch_bandwidth_gb_per_s": (100.0, 50.0),
        "combine_bandwidth_gb_per_s": (100.0, 50.0),
    }
    return NetworkSpec(**{**values, **changes})


def cluster(n_nodes: int = 1, gpus_per_node: int = 2, **changes: Any) -> ClusterShape:
    """Nodes of round GPUs."""
    return ClusterShape(gpu=gpu(), network=network(**changes), n_nodes=n_nodes, gpus_per_node=gpus_per_node)


def exchange(n_gpus: int, *, copy_ps: tuple[int, int] = (3, 7), latency_ps: tuple[int, int] = (100, 1000)) -> Exchange:
    """Equal ports at both ends."""
    port = np.tile(np.array(copy_ps, dtype=np.int64)[:, None], (1, n_gpus))
    return Exchange(out_ps=port, in_ps=port, latency_ps=np.array(latency_ps, dtype=np.int64))


def program(
    copies: Any,
    *,
    experts_ps: Any,
    attention_ps: Any,
    head_ps: int = 0,
    router_ps: int = 0,
    gpus_per_node: int | None = None,
    copy_rule: str = "per-rank",
    node_copies: Any = None,
    slot_tokens: Any = None,
    capacity: Any = None,
    dispatch: Exchange | None = None,
    combine: Exchange | None = None,
    shared_ps: Any = None,
    overlap: str = "none",
    overlap_slowdown: float = 0.0,
    network: str = "closed-form",
) -> Program:
    """A program of MoE layers with times in ps: copies [L, G, G], experts_ps [L, G], attention_ps [G].

    With two micro-batches L counts both of each layer, and both take the same time in all parts but the experts.
    """
    matrix = np.array(copies, dtype=np.int64)
    n_rows, n_gpus, _ = matrix.shape
    batches = 2 if overlap.startswith("two-batch") else 1
    n_layers = n_rows // batches
    slots = np.zeros((n_rows, n_gpus), dtype=np.int64) if slot_tokens is None else np.array(slot_tokens, np.int64)
    nodes = np.zeros((0, 0, 0), dtype=np.int64) if node_copies is None else np.array(node_copies, dtype=np.int64)
    shared = np.zeros(n_gpus) if shared_ps is None else np.array(shared_ps) * PICO
    experts = np.array(experts_ps) * PICO
    seconds = {
        "attention": np.array([attention_ps]) * PICO,
        "attention_in": np.array([attention_ps]) // 4 * PICO,
        "router": np.full((1, n_gpus), router_ps * PICO),
        "dense": np.zeros((1, n_gpus)),
        "shared_experts": shared[None],
        "head": np.full(n_gpus, head_ps * PICO),
    }
    return lay_out(
        model(n_layers=n_layers, n_shared_experts=0 if shared_ps is None else 1),
        durations=[Durations(**seconds, experts=experts[b::batches]) for b in range(batches)],
        traffic=Traffic(slot_tokens=slots, copies=matrix, node_copies=nodes),
        placement=place("contiguous", n_experts=slots.shape[1], n_layers=n_layers, n_ranks=n_gpus),
        capacity=None if capacity is None else np.array(capacity, dtype=np.int64),
        collective=Collective(
            copy_rule=copy_rule,
            gpus_per_node=gpus_per_node or n_gpus,
            dispatch=dispatch or exchange(n_gpus),
            combine=combine or exchange(n_gpus, copy_ps=(5, 11)),
            network=network,
        ),
        overlap=overlap,
        overlap_slowdown=overlap_slowdown,
    )
