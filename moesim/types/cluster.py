"""GPUs, the network between them, and the data types they work in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moesim.types.levels import TWO_LEVELS, NetworkLevels

DTYPE_BYTES: Mapping[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "int4": 0.5,
}
"""Bytes of one element of each data type, without scales."""


@dataclass(frozen=True, kw_only=True)
class GpuSpec:
    """One GPU: published dense peaks (TFLOP/s by data type), memory (GB = 1e9 bytes), bandwidths (GB/s), L2 (MiB).

    `clock_ghz` is that of the peaks, at which SMs load from the L2 cache;
    `link_gb_per_s` of each direction of its links, (within a node, across
    nodes), by default of PCIe 4.0 x16 and HDR. `vendor` is "" where it is
    NVIDIA, whose kernels were measured, or not known.
    """

    name: str
    peak_tflops: Mapping[str, float] = field(hash=False)
    memory_gb: float
    memory_bandwidth_gb_per_s: float
    n_sms: int
    network: str
    l2_cache_mb: float = 50.0
    clock_ghz: float = 1.83
    link_gb_per_s: Sequence[float] = field(default=(32.0, 25.0), hash=False)
    vendor: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a network: GPUs that stand together in a unit of it, and what copies between them go through.

    Attributes:
        name: as results call it.
        size: GPUs of a unit; of the last level at least all of the cluster.
        bandwidth_gb_per_s: GB/s of a GPU's own port of this level and direction; None = what the network says of
            it, or the port that it shares.
        latency_us: microseconds; None = what the network says of it, else that of the level below.
        shares_port: whether it goes through the port of the level below.
        oversubscription: by how much the ports of its GPUs at the level above carry more than the uplink of a unit,
            which all that leaves it goes through, and all that enters it the other way; 1 = it is never full.
    """

    name: str
    size: int
    bandwidth_gb_per_s: float | None = None
    latency_us: float | None = None
    shares_port: bool = False
    oversubscription: float = 1.0


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A network, of two levels unless it states others, and the collective that runs on it.

    `copies`: "per-selection" (one copy per selected expert), "per-rank" (one
    per distinct destination rank), "per-node" (one per distinct node,
    forwarded inside it) or "all" (all-gather and reduce-scatter: every GPU of
    the expert-parallel group has all tokens, one copy a node forwarded inside).
    `fitted` names the constants of dispatch and of combine that measurements
    of it were fitted with, "{dtype}" standing for the payload's data type.
    Without them, or instead of what they say: latencies in microseconds,
    bandwidths in GB/s per GPU and direction, as (within node, across nodes).
    `comm_sms`: SMs of a GPU that its kernels run on, which others cannot use
    where they are to run beside them. `levels` are those of the network, from
    the node up; () = two. The first two have the latencies and bandwidths
    within a node and across nodes, unless they state others.
    """

    name: str
    copies: str
    fitted: tuple[str, str] | None = None
    dispatch_latency_us: tuple[float, float] | None = None
    combine_latency_us: tuple[float, float] | None = None
    dispatch_bandwidth_gb_per_s: tuple[float, float] | None = None
    combine_bandwidth_gb_per_s: tuple[float, float] | None = None
    comm_sms: int = 0
    levels: tuple[Level, ...] = ()
    source: str = ""

    @property
    def deepep(self) -> str:
        """Which of DeepEP's exchanges it is, by the preset that it was made from: "low-latency", "normal" or ""."""
        preset = self.name.removesuffix(" (changed)")
        return next((kind for kind in ("low-latency", "normal") if preset.endswith(f"deepep-{kind}")), "")


@dataclass(frozen=True, kw_only=True)
class ClusterShape:
    """`n_nodes` nodes of `gpus_per_node` equal GPUs; node of rank r = r // gpus_per_node."""

    gpu: GpuSpec
    network: NetworkSpec
    n_nodes: int
    gpus_per_node: int

    @property
    def n_gpus(self) -> int:
        """Number of GPUs (= EP ranks)."""
        return self.n_nodes * self.gpus_per_node

    @property
    def levels(self) -> NetworkLevels:
        """The levels of its network."""
        stated = self.network.levels
        if not stated:
            return TWO_LEVELS
        ports = [0]
        for level in stated[1:]:
            ports.append(ports[-1] + (not level.shares_port))
        return NetworkLevels(
            units=tuple(level.size for level in stated[1:-1]),
            ports=tuple(ports),
            names=tuple(level.name for level in stated),
        )


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """How a model is cut over the GPUs of a cluster; consecutive GPUs stand together.

    `expert` ranks of `expert_tp` GPUs each are an expert-parallel group: it
    has all experts, and its tokens go nowhere else. `attention_tp` GPUs of a
    node share the heads of their tokens.
    """

    expert: int
    expert_tp: int = 1
    attention_tp: int = 1

    @property
    def group_gpus(self) -> int:
        """GPUs of an expert-parallel group."""
        return self.expert * self.expert_tp


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Data types (keys of DTYPE_BYTES) of weights, activations, payloads and KV cache."""

    weights: str
    activations: str
    dispatch: str
    combine: str
    kv_cache: str
