"""The fields of a scenario, their units (in the names) and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from moesim.scenario.sweep_block import SWEEP_SCHEMA
from moesim.types import DTYPE_BYTES

_CONFIG = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _no_none_word(value: Any) -> Any:
    """`none` and null are the same."""
    return None if value == "none" else value


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_NoneWord = BeforeValidator(_no_none_word, json_schema_input_type=Any)
Dtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
assert set(Dtype.__args__) == set(DTYPE_BYTES)  # type: ignore[attr-defined]


_MAX_S = 9000.0
"""Of what goes wrong for a while, in picoseconds a float64 knows one by one."""
OVERLAP_SLOWDOWN = 0.31
"""Mean over four published deployments with even load: python -m tests.validation.overlap."""


class _Part(BaseModel):
    model_config = _CONFIG


def _described(default: Any, text: str, **bounds: Any) -> Any:
    return Field(default=default, description=text, **bounds)


_Attention = Literal["gqa", "mla", "linear"]


class LayersSpec(_Part):
    """Layers `first`, `first` + `every` and so on, and the fields of the model that are others in them."""

    first: CountOrZero = _described(0, "the first of these layers")
    every: Count = _described(1, "from each of these layers to the next")
    attention: _Attention | None = None
    n_heads: Count | None = None
    n_kv_heads: Count | None = None
    head_dim: Count | None = None
    window: CountOrZero | None = None
    chunk: CountOrZero | None = None
    index_top_k: CountOrZero | None = None
    intermediate_size: CountOrZero | None = None
    moe_intermediate_size: Count | None = None
    n_shared_experts: CountOrZero | None = None
    shared_intermediate_size: CountOrZero | None = None

    @model_serializer(mode="wrap")
    def _stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class ModelSpec(_Part):
    """A model's shape; every width in elements, every count per layer."""

    name: str = _described("inline", "shown in reports")
    hidden_size: Count
    n_layers: Annotated[int, Field(ge=1, le=10_000)]
    dense_layers: Annotated[tuple[CountOrZero, ...], BeforeValidator(_list_to_tuple)] = _described(
        (), "indices of the layers without experts"
    )
    n_experts: Annotated[int, Field(ge=1, le=100_000)]
    top_k: Count
    moe_intermediate_size: Count = _described(..., "intermediate size of one expert")
    n_shared_experts: CountOrZero = 0
    shared_intermediate_size: CountOrZero = _described(0, "of all shared experts together")
    intermediate_size: CountOrZero = _described(0, "of the dense layers")
    gated: bool = _described(True, "gate, up and down matrices (else up and down)")
    vocab_size: Count
    attention: _Attention = _described("gqa", "heads with keys and values, latent, or a state of fixed size")
    n_heads: Count
    n_kv_heads: Count
    head_dim: Count
    attention_gate: bool = _described(False, "the queries' projection also makes a gate for the output")
    window: CountOrZero = _described(0, "tokens that a token attends to at most, the nearest ones; 0 = all")
    chunk: CountOrZero = _described(0, "tokens of the chunks of a sequence that a token attends within; 0 = all")
    index_heads: CountOrZero = _described(0, "heads of the indexer that selects tokens")
    index_head_dim: CountOrZero = 0
    index_top_k: CountOrZero = _described(0, "tokens that it selects; 0 = all, without an indexer")
    linear_key_heads: CountOrZero = _described(0, "heads of keys and queries of linear attention")
    linear_value_heads: CountOrZero = _described(0, "its heads of values, each with a state")
    linear_key_dim: CountOrZero = 0
    linear_value_dim: CountOrZero = 0
    conv_kernel: CountOrZero = _described(0, "tokens that its convolution sees")
    q_lora_rank: CountOrZero = 0
    kv_lora_rank: CountOrZero = 0
    qk_nope_head_dim: CountOrZero = 0
    qk_rope_head_dim: CountOrZero = 0
    v_head_dim: CountOrZero = 0
    layers: Annotated[tuple[LayersSpec, ...], BeforeValidator(_list_to_tuple)] = _described(
        (), "layers that differ, by index, and the fields that are others in them; the last entry of a layer counts"
    )
    router: str = _described("softmax-top-k", "the strategy that the model was trained with")
    router_parameters: dict[str, Any] = Field(default_factory=dict)
    weights_dtype: Dtype = "bf16"
    dispatch_dtype: Dtype = "bf16"
    source: str = ""


_Pair = Annotated[tuple[float, float], BeforeValidator(_list_to_tuple)]


class GpuPreset(_Part):
    """One GPU by its published dense peaks."""

    name: str = "inline"
    peak_tflops: dict[Dtype, Annotated[float, Field(ge=1e-6)]] = _described(..., "dense, by data type; bf16 is needed")
    memory_gb: float = _described(..., "1e9 bytes, as the driver reports it", gt=0)
    memory_bandwidth_gb_per_s: float = Field(ge=1e-3)
    n_sms: Count = 132
    l2_cache_mb: float = _described(50.0, "2^20 bytes", gt=0)
    clock_ghz: float = _described(1.83, "of the SMs at the peaks", ge=1e-3)
    network: str = _described("pcie4-ib200", "preset that a cluster of it uses by default")
    link_gb_per_s: _Pair | None = _described(
        None,
        "published, of a direction, [within a node, across nodes], by which networks measured on others are scaled; "
        "default: those of GPUs with the same network",
    )
    source: str = ""


class NetworkPreset(_Part):
    """Two levels, [within a node, across nodes], per GPU and direction; a fitted one need not state their rates."""

    name: str = "inline"
    copies: Literal["per-selection", "per-rank", "per-node", "all"] = "per-rank"
    fitted: Annotated[tuple[str, str] | None, BeforeValidator(_list_to_tuple)] = _described(
        None,
        "constants that were fitted to measurements, [of dispatch, of combine]; what is stated below replaces them",
    )
    measured_on: Annotated[tuple[str, ...], BeforeValidator(_list_to_tuple)] = _described(
        (), "GPUs of those measurements; on others the published links scale them"
    )
    measured_gpus: Annotated[tuple[Count, ...], BeforeValidator(_list_to_tuple)] = _described(
        (), "numbers of GPUs, in nodes of 8, of those measurements"
    )
    measured_dispatch: Annotated[tuple[Dtype, ...], BeforeValidator(_list_to_tuple)] = _described(
        (), "data types of dispatch of those measurements; none = any"
    )
    measured_tokens: Annotated[tuple[Count, Count] | None, BeforeValidator(_list_to_tuple)] = _described(
        None, "fewest and most tokens a GPU of those measurements"
    )
    dispatch_latency_us: _Pair | None = None
    combine_latency_us: _Pair | None = None
    dispatch_bandwidth_gb_per_s: _Pair | None = None
    combine_bandwidth_gb_per_s: _Pair | None = None
    port_bandwidth_factor: _Pair = _described(
        (1.0, 1.0),
        "of both stated bandwidths with simulation.network: port, where they hold the queueing of ports",
    )
    comm_sms: CountOrZero = _described(
        0, "SMs that its kernels run on; with simulation.overlap: two-batch all else is computed on the others"
    )
    provenance: Literal["measured", "estimated", "synthetic"] = "synthetic"
    source: str = ""


class PrecisionSpec(_Part):
    """Data types; the model's own by default."""

    weights: Dtype | None = _described(None, "as they are stored; narrow ones are widened where activations are wider")
    activations: Dtype | None = _described(
        None, "what is multiplied in; default: the type of the weights, bf16 where the GPU does not compute in that"
    )
    dispatch: Dtype | None = None
    combine: Dtype | None = None
    kv_cache: Dtype | None = None


class KernelTables(_Part):
    """Measured tables before the formulas of a family of kernels."""

    table: str = _described(
        ..., "a measured table (.parquet, .csv) or a folder of them, relative to this file; layouts as moesim validate"
    )
    family: Annotated[str | None, _NoneWord] = _described(
        None, "whose rows are taken, and whose formulas stand for the rest; default: as without tables"
    )


def _kernels_tag(value: Any) -> str:
    """In brackets, as parts of a path that are no fields."""
    return "[tables]" if isinstance(value, dict | KernelTables) else "[name]"


_Kernels = Annotated[
    Annotated[str, Tag("[name]")] | Annotated[KernelTables, Tag("[tables]")], Discriminator(_kernels_tag)
]


class ClusterSpec(_Part):
    """Equal GPUs in equal nodes."""

    gpu: GpuPreset = _described(..., "preset or inline fields")
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    gpus_per_node: Annotated[int, Field(ge=1, le=1024)] = 8
    network: NetworkPreset = _described(..., "preset or inline fields; default: the GPU's own")
    kernels: Annotated[_Kernels | None, _NoneWord] = _described(
        None,
        "family of calibrated kernels (moesim list kernels), or a .yaml that moesim calibrate wrote, or {table: PATH}: "
        "measured tables instead of formulas where they reach; default: the family that suits data types and network",
    )


class ParallelismSpec(_Part):
    """How the model is cut over the GPUs; router, shared experts, dense layers and head are data parallel."""

    expert: Count | None = _described(
        None,
        "expert-parallel ranks of a group, which has all experts; the GPUs are as many groups as they make, and tokens "
        "stay in theirs; default: one group",
    )
    expert_tp: Count = _described(1, "GPUs of a node that are one rank and share the matrices of each expert")
    attention: Literal["data", "tensor"] = _described(
        "data", "every GPU computes the attention of its own tokens; or some share the heads of theirs"
    )
    attention_tp: Count | None = _described(
        None, "of attention tensor: GPUs of a node that share the heads of their tokens; default: all of a node"
    )


def _scalar_to_tuple(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("a number, or a list of numbers")  # noqa: TRY004 - pydantic shows ValueErrors
    return tuple(value)


_ByDepth = Annotated[
    tuple[Annotated[float, Field(ge=-20, le=20)], ...],
    BeforeValidator(_scalar_to_tuple, json_schema_input_type=float | list[float]),
]
_BY_DEPTH = "; one number, or some from the first MoE layer to the last at equal distances, linear between"


class LoadRouterSpec(_Part):
    """A router, as in `routing`."""

    strategy: Annotated[str | None, _NoneWord] = None
    top_k: Count | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class PopularitySpec(_Part):
    """How unequally experts are wanted: by an exponent, or by the load that comes out (lognormal, hot, counts).

    Such a load is that of the topics together, before balancers and capacity.
    """

    name: str = _described("inline", "shown in reports")
    kind: Literal["zipf", "uniform", "lognormal", "hot", "counts"] = _described(
        "zipf",
        "zipf: popularity by rank; uniform; lognormal: ln of the load is normal; hot: some experts have a share "
        "of the load; counts: the load of a file. Default: what the fields below say, else zipf",
    )
    exponent: float = _described(0.0, "of zipf: popularity of the expert of order r is r^-exponent", ge=0, le=20)
    sigma: _ByDepth = _described((), "of lognormal: standard deviation of ln load within a group" + _BY_DEPTH)
    groups: Annotated[int, Field(ge=1, le=100_000)] = _described(1, "of lognormal: runs of consecutive experts")
    group_exponent: _ByDepth = _described(
        (0.0,), "of lognormal: the group of number r (from 1) has load r^-exponent" + _BY_DEPTH
    )
    group_sigma: _ByDepth = _described((0.0,), "of lognormal: standard deviation of ln load of a group" + _BY_DEPTH)
    share: float | None = _described(None, "of hot: part of a layer's load that the hot experts have", gt=0, le=1)
    experts: Count | None = _described(None, "of hot: how many they are, drawn at random in every layer")
    counts: str | None = _described(
        None,
        "assignments by layer and expert, a file relative to this one: .json (logical_count [layers][experts] or "
        "[steps][layers][experts]), .npy, .csv (layer,expert,count or a matrix), JSON and CSV also .gz",
    )
    router: LoadRouterSpec | None = _described(
        None,
        "of lognormal, hot and counts: the router that gives this load; default: routing without variants and sweeps, "
        "or the model's own where that router does not follow popularity",
    )
    source: str = ""


POPULARITY_FIELDS: Mapping[str, tuple[str, ...]] = {
    "zipf": ("exponent",),
    "uniform": (),
    "lognormal": ("sigma", "groups", "group_exponent", "group_sigma"),
    "hot": ("share", "experts"),
    "counts": ("counts",),
}
"""What each kind of popularity reads; the first that is named tells the kind where none is written."""
LOAD_KINDS = ("lognormal", "hot", "counts")
"""Kinds that state the load that comes out."""


class TopicsSpec(_Part):
    """Tokens of a topic share expert affinities."""

    count: Annotated[int, Field(ge=0, le=10_000)] = _described(0, "topics of the sequences; 0 = none")
    strength: float = _described(0.0, "standard deviation of an affinity, in logits", ge=0, le=20)


class WorkloadSpec(_Part):
    """Whose tokens."""

    kind: Literal["steps"] = "steps"
    phase: Literal["decode", "prefill", "train"] = "decode"
    steps: Annotated[int, Field(ge=1, le=10**7)] = 20
    tokens_per_gpu: Count | None = _described(None, "a step; 128 in decode, 4096 otherwise; a whole trace with one")
    context_tokens: CountOrZero = _described(2048, "cached tokens of a sequence in decode")
    sequence_tokens: Count = _described(4096, "tokens of a sequence in prefill and train")
    popularity: Annotated[PopularitySpec, Field(default_factory=PopularitySpec)]
    topics: Annotated[TopicsSpec, Field(default_factory=TopicsSpec)]
    sampling: Literal["logits", "direct", "auto"] = _described(
        "logits",
        "how the choices of synthetic tokens are drawn: from logits; directly, which is many times faster and exact "
        "where no weight is needed; auto = directly where that is exact for all variants",
    )
    trace: str | None = _described(None, "recorded routing to replay (moesim import), relative to this file")


class CapacitySpec(_Part):
    """How many assignments an expert takes in a scope: ceil(tokens x top_k / experts x factor)."""

    factor: float = _described(..., "of the even share; 0 and below as Tutel reads them", ge=-1e6, le=1e6)
    evaluation_factor: float | None = _described(
        None, "instead of factor where workload.phase is not train", ge=-1e6, le=1e6
    )
    overflow: str = _described("drop-by-position", "who is refused, and whether the refused try other experts")
    scope: str = _described("source-rank", "whose tokens, or which experts, share a capacity")
    minimum: CountOrZero = 0
    rounding: str = _described("megatron", "the library whose capacity formula is used")
    tries: Count = _described(1, "experts that reroute-to-next offers to a refused assignment")
    fallback: Literal["residual", "shared-expert"] = _described("residual", "what a dropped assignment is left to")
    pad: bool = _described(False, "compute and send rows that fill every expert up to its capacity")


class SubstitutionSpec(_Part):
    """An inference-time balancer that changes the router's choices."""

    policy: Literal["least-loaded", "node-limited"]
    threshold: float = _described(0.9, "of least-loaded: what part of a score counts as near-equal", gt=0, le=1)
    nodes: Count = _described(1, "of node-limited: nodes on which a token's experts are")


class TrainingSpec(_Part):
    """A router that evolves over the steps: what it does to itself, and what balances it (`training_balance`)."""

    mechanism: Literal["none", "loss-free", "aux-loss"] = "none"
    from_step: CountOrZero = _described(0, "the mechanism acts from this step on, warm-up steps counted")
    step_size: float = _described(1e-3, "of loss-free: of the selection bias", gt=0, le=10)
    rule: Literal["sign", "proportional"] = _described("sign", "of loss-free: how the bias moves")
    coefficient: float = _described(1e-3, "of aux-loss", gt=0, le=10)
    scope: Literal["global-batch", "micro-batch"] = _described("global-batch", "of aux-loss: whose loads it compares")
    feedback_gain: float = _described(
        3.9, "how much an expert's popularity grows with its load; 0 = none", ge=0, le=100
    )
    learning_rate: float = _described(1e-4, "part of the way that popularity goes in a step", ge=0, le=1)


class RoutingSpec(_Part):
    """Who goes where."""

    strategy: Annotated[str | None, _NoneWord] = _described(None, "default: what the model uses")
    top_k: Count | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    training: Annotated[TrainingSpec | None, _NoneWord] = _described(None, "a router that evolves; none = it stays")
    substitution: Annotated[SubstitutionSpec | None, _NoneWord] = None
    capacity: Annotated[CapacitySpec | None, _NoneWord] = None


class PlacementSpec(_Part):
    """Where experts live."""

    strategy: str = "contiguous"
    redundant_experts: CountOrZero = _described(0, "copies beyond one of each expert, in every layer")
    expert_gpus: Count | None = _described(
        None,
        "the last so many GPUs hold all experts and compute nothing else; default: every GPU does both",
    )


class SimulationSpec(_Part):
    """How it is simulated."""

    engine: Literal["auto", "simpy", "compiled"] = _described(
        "auto",
        "simpy, the reference, or one compiled sweep that agrees exactly; auto = compiled where valid",
    )
    network: Literal["closed-form", "port"] = _described(
        "closed-form",
        "closed-form: last entry + latency + a GPU's busiest port; port: every message queues at its two ports",
    )
    overlap: Annotated[Literal["shared-expert", "two-batch"] | None, _NoneWord] = _described(
        None, "none; shared experts during dispatch; two micro-batches that alternate computing and exchanging"
    )
    overlap_slowdown: float = _described(
        OVERLAP_SLOWDOWN,
        "of two-batch: part of the time of an exchange that what is computed beside it takes longer, as both share "
        "memory and links; fitted on published steps",
        ge=0,
        le=1,
    )
    experts: Literal["grouped", "queued"] = _described(
        "grouped",
        "grouped: one kernel a layer and GPU, after everything has arrived; queued: every slot serves what has arrived "
        "in its queue, no GPU waits for another but for its own tokens (engine simpy, one copy per selected expert)",
    )
    queue_tokens: Count | None = _described(None, "of queued: tokens that may wait at a slot; default: any number")
    queue_overflow: Literal["drop", "block", "next"] = _described(
        "drop", "of a full queue: drop; block the port until there is room; hand on to the token's next choice, once"
    )
    warmup_steps: Annotated[int, Field(ge=0, le=10**6)] = _described(0, "run before the steps that are measured")


class FaultSpec(_Part):
    """Something that goes wrong, at a time of the simulation or again and again."""

    kind: Literal["slow-gpu", "gpu-pause", "gpu-failure", "slow-link", "compute-jitter", "message-jitter"] = _described(
        ...,
        "a GPU computes slower; stops and goes on later, while all wait; is lost, until it is replaced if ever; its "
        "ports are slower; every task, or the latency of every sender in every exchange, takes a random time",
    )
    gpu: CountOrZero | None = _described(None, "which; default: every GPU, each on its own with mean_time_between_s")
    level: Literal["within_node", "across_nodes"] | None = _described(None, "of slow-link: which ports")
    factor: float | None = _described(None, "of slow-*: how many times as long it takes", ge=1, le=1e3)
    start_s: float = _described(0.0, "simulated time at which it begins", ge=0, le=1e6)
    duration_s: float | None = _described(None, "how long it lasts; default: to the end", gt=0, le=_MAX_S)
    mean_time_between_s: float | None = _described(
        None, "it happens to a GPU again, this long after it was last over, on average (exponential)", ge=1e-6, le=1e9
    )
    distribution: Literal["lognormal", "exponential"] | None = _described(
        None, "of *-jitter; exponential: a part 1 - cv is certain, the rest is exponential"
    )
    cv: float | None = _described(None, "of *-jitter: standard deviation / mean", gt=0, le=3)
    detection_s: float = _described(0.0, "of gpu-failure: how long the others wait for it", ge=0, le=_MAX_S)
    recovery_s: float | None = _described(
        None, "of gpu-failure: after this long a replacement takes its place; default: never", gt=0, le=_MAX_S
    )
    orphans: Literal["drop", "stall"] = _described(
        "drop",
        "of gpu-failure, where an expert has no copy elsewhere: drop its assignments, or stall all until replaced",
    )


class KeepSpec(_Part):
    """Which large frames to keep."""

    experts: Literal["steps", "none"] = _described(
        "steps", "loads of every expert, layer and step, the largest frame of a long run; none: those of layers remain"
    )
    links: Literal["total", "none"] = "total"
    timeline_steps: Annotated[int, Field(ge=0, le=10**6)] = 1


class ScenarioSpec(_Part):
    """A scenario with all presets and defaults filled in."""

    scenario_version: Literal[1] = 1
    name: str = _described("scenario", "shown in reports; default: the file's name", min_length=1, max_length=200)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelSpec = _described(..., "preset, path of a Hugging Face config.json, or inline fields")
    precision: Annotated[PrecisionSpec, Field(default_factory=PrecisionSpec)]
    cluster: ClusterSpec
    parallelism: Annotated[ParallelismSpec, Field(default_factory=ParallelismSpec)]
    workload: Annotated[WorkloadSpec, Field(default_factory=WorkloadSpec)]
    routing: Annotated[RoutingSpec, Field(default_factory=RoutingSpec)]
    placement: Annotated[PlacementSpec, Field(default_factory=PlacementSpec)]
    simulation: Annotated[SimulationSpec, Field(default_factory=SimulationSpec)]
    faults: Annotated[tuple[FaultSpec, ...], BeforeValidator(_list_to_tuple)] = _described(
        (), "what goes wrong; empty = nothing"
    )
    keep: Annotated[KeepSpec, Field(default_factory=KeepSpec)]


UNSUPPORTED: Mapping[str, str] = {
    "workload.locality": "locality of sequences",
    "workload.drift": "drift of popularity",
    "workload.popularity.target": "a target of skew",
    "workload.arrivals": "open-loop serving",
}
"""Fields of the design that this version does not read; a user who writes one is told so, not that it is a typo."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of scenario files, for editors.

    What a preset name may replace is offered as text too, and the parts of a
    file that are merged before checking (extends, compare, sweep) are added.
    """
    schema = ScenarioSpec.model_json_schema()
    definitions = schema["$defs"]
    for owner, name in (
        (schema, "model"),
        (definitions["ClusterSpec"], "gpu"),
        (definitions["ClusterSpec"], "network"),
        (definitions["WorkloadSpec"], "popularity"),
    ):
        own = owner["properties"][name]
        reference = {"$ref": own.pop("$ref")} if "$ref" in own else {"allOf": own.pop("allOf")}
        own["anyOf"] = [{"type": "string"}, reference]
    for name in ("ModelSpec", "GpuPreset", "NetworkPreset", "PopularitySpec"):
        definitions[name]["properties"]["preset"] = {"type": "string", "description": "base of the other fields"}
        definitions[name].pop("required", None)
    definitions["ClusterSpec"]["required"] = ["gpu"]
    definitions["RoutingSpec"]["properties"]["strategy"] = {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "default": None,
    }
    definitions["ClusterSpec"]["properties"]["kernels"]["anyOf"] = [
        {"type": "string"},
        {"$ref": "#/$defs/KernelTables"},
        {"type": "null"},
    ]
    overlap = definitions["SimulationSpec"]["properties"]["overlap"]
    overlap["anyOf"] = [{"enum": ["none", "shared-expert", "two-batch"]}, {"type": "null"}]
    for name, part in (
        ("capacity", "CapacitySpec"),
        ("substitution", "SubstitutionSpec"),
        ("training", "TrainingSpec"),
    ):
        definitions["RoutingSpec"]["properties"][name] = {
            "anyOf": [{"$ref": f"#/$defs/{part}"}, {"const": "none"}, {"type": "null"}],
            "default": None,
        }
    for optional in (CapacitySpec, SubstitutionSpec, TrainingSpec, KernelTables):  # not there yet, as they may be none
        definitions[optional.__name__] = optional.model_json_schema()
    overrides = {"type": "object", "description": "dotted field: value"}
    schema["properties"] |= {
        "extends": {"type": "string", "description": "another scenario file that this one changes"},
        "compare": {"type": "object", "additionalProperties": {"anyOf": [overrides, {"type": "null"}]}},
        "sweep": SWEEP_SCHEMA,
    }
    schema["required"] = []
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "moesim scenario"
    return schema
