"""The fields of `cluster`, `parallelism` and `precision`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from moesim.scenario.schema.parts import Count, CountOrZero, Dtype, NoneWord, Pair, Part, described, list_to_tuple


def _bf16_alone(value: Any) -> Any:
    """One number is the peak of bf16."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"bf16": value}
    if not isinstance(value, dict):  # pydantic takes no TypeError for a finding
        raise ValueError("a number, the peak of bf16 in TFLOP/s, or a mapping of data types to such peaks")  # noqa: TRY004
    return value


_Peak = Annotated[float, Field(ge=1e-6)]
_Peaks = Annotated[dict[Dtype, _Peak], BeforeValidator(_bf16_alone, json_schema_input_type=_Peak | dict[Dtype, _Peak])]


class GpuPreset(Part):
    """One GPU by its published dense peaks; the first four numbers suffice."""

    name: str = "inline"
    peak_tflops: _Peaks = described(..., "dense, by data type, of which bf16 is needed; one number is that of bf16")
    memory_gb: float = described(..., "1e9 bytes, as the driver reports it", gt=0)
    memory_bandwidth_gb_per_s: float = Field(ge=1e-3)
    n_sms: Count = 132
    l2_cache_mb: float = described(50.0, "2^20 bytes", gt=0)
    clock_ghz: float = described(1.83, "of the SMs at the peaks", ge=1e-3)
    network: str = described("pcie4-ib200", "preset that a cluster of it uses by default")
    link_gb_per_s: Pair | None = described(
        None,
        "published, of a direction, [within a node, across nodes], by which networks measured on others are scaled; "
        "default: those of GPUs with the same network",
    )
    gpus_per_node: Count | None = described(None, "that a cluster of it has by default; default: 8")
    estimated: Annotated[tuple[str, ...], BeforeValidator(list_to_tuple)] = described(
        (), "fields whose values no one published or stated"
    )
    vendor: str = described("", "its maker, if that is not NVIDIA, whose kernels and collectives were measured")
    source: str = ""


class LevelSpec(Part):
    """One level of a network: GPUs that stand together in its units, such as nodes, racks and pods."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_ -]{0,39}$")]
    size: Annotated[int, Field(ge=1, le=10**7)] | None = described(
        None, "GPUs of a unit; default: of the first level gpus_per_node, of the last all of the cluster"
    )
    bandwidth_gb_per_s: float | None = described(
        None,
        "of a GPU's own port of this level, each way; default: of the first two levels what the network says within a "
        "node and across nodes, of others that of the level below, whose port they share",
        ge=1e-6,
        le=1e9,
    )
    latency_us: float | None = described(
        None, "default: as the network says of the first two levels, of others that of the level below", ge=1e-6, le=1e9
    )
    shares_port: bool | None = described(
        None,
        "copies of this level go through a GPU's port of the level below; default: above the second level unless "
        "a bandwidth is stated",
    )
    oversubscription: float = described(
        1.0,
        "of the uplink that the GPUs of a unit share, and of its downlink: the bandwidth of their ports at the next "
        "level, all together, over that of the uplink; 1 = it is never full",
        ge=1,
        le=1000,
    )


class NetworkPreset(Part):
    """Two levels, [within a node, across nodes], per GPU and direction; a fitted network need not state their rates."""

    name: str = "inline"
    copies: Literal["per-selection", "per-rank", "per-node", "all"] = "per-rank"
    fitted: Annotated[tuple[str, str] | None, BeforeValidator(list_to_tuple)] = described(
        None,
        "constants that were fitted to measurements, [of dispatch, of combine]; what is stated below replaces them",
    )
    measured_on: Annotated[tuple[str, ...], BeforeValidator(list_to_tuple)] = described(
        (), "GPUs of those measurements; on others the published links scale them"
    )
    measured_gpus: Annotated[tuple[Count, ...], BeforeValidator(list_to_tuple)] = described(
        (), "numbers of GPUs, in nodes of 8, of those measurements"
    )
    measured_dispatch: Annotated[tuple[Dtype, ...], BeforeValidator(list_to_tuple)] = described(
        (), "data types of dispatch of those measurements; none = any"
    )
    measured_tokens: Annotated[tuple[Count, Count] | None, BeforeValidator(list_to_tuple)] = described(
        None, "fewest and most tokens a GPU of those measurements"
    )
    dispatch_latency_us: Pair | None = None
    combine_latency_us: Pair | None = None
    dispatch_bandwidth_gb_per_s: Pair | None = None
    combine_bandwidth_gb_per_s: Pair | None = None
    port_bandwidth_factor: Pair = described(
        (1.0, 1.0),
        "of both stated bandwidths with simulation.network: port, where they hold the queueing of ports",
    )
    levels: Annotated[tuple[LevelSpec, ...], BeforeValidator(list_to_tuple)] = described(
        (), "from the node up, two or more; none = within a node and across nodes"
    )
    comm_sms: CountOrZero = described(
        0, "SMs that its kernels run on; with simulation.overlap: two-batch all else is computed on the others"
    )
    provenance: Literal["measured", "estimated", "synthetic"] = "synthetic"
    source: str = ""


class PrecisionSpec(Part):
    """Data types; the model's own by default."""

    weights: Dtype | None = described(None, "as they are stored; narrow ones are widened where activations are wider")
    activations: Dtype | None = described(
        None, "what is multiplied in; default: the type of the weights, bf16 where the GPU does not compute in that"
    )
    dispatch: Dtype | None = None
    combine: Dtype | None = None
    kv_cache: Dtype | None = None


class KernelTables(Part):
    """Measured tables before the formulas of a family of kernels."""

    table: str = described(
        ..., "a measured table (.parquet, .csv) or a folder of them, relative to this file; layouts as moesim validate"
    )
    family: Annotated[str | None, NoneWord] = described(
        None, "whose rows are taken, and whose formulas stand for the rest; default: as without tables"
    )


def _kernels_tag(value: Any) -> str:
    """Names in brackets do not count as fields in the path of an error."""
    return "[tables]" if isinstance(value, dict | KernelTables) else "[name]"


_Kernels = Annotated[
    Annotated[str, Tag("[name]")] | Annotated[KernelTables, Tag("[tables]")], Discriminator(_kernels_tag)
]


class ClusterSpec(Part):
    """Equal GPUs in equal nodes."""

    gpu: GpuPreset = described(..., "preset or inline fields")
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    gpus_per_node: Annotated[int, Field(ge=1, le=1024)] = described(8, "default: as the GPU's preset says, else 8")
    network: NetworkPreset = described(..., "preset or inline fields; default: the GPU's own")
    kernels: Annotated[_Kernels | None, NoneWord] = described(
        None,
        "family of calibrated kernels (moesim list kernels), or a .yaml that moesim calibrate wrote, or {table: PATH}: "
        "measured tables instead of formulas where they reach; default: the family that suits data types and network",
    )


class ParallelismSpec(Part):
    """How the model is cut over the GPUs; router, shared experts, dense layers and head are data parallel."""

    expert: Count | None = described(
        None,
        "expert-parallel ranks of a group, which has all experts; the GPUs are as many groups as they make, and tokens "
        "stay in theirs; default: one group",
    )
    expert_tp: Count = described(1, "GPUs of a node that are one rank and share the matrices of each expert")
    attention: Literal["data", "tensor"] = described(
        "data", "every GPU computes the attention of its own tokens; or some share the heads of theirs"
    )
    attention_tp: Count | None = described(
        None, "of attention tensor: GPUs of a node that share the heads of their tokens; default: all of a node"
    )
