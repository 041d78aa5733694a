"""Where fields of a scenario change nothing, and why: the table that `notices` looks up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moesim.scenario.schema import LOAD_KINDS, POPULARITY_FIELDS, FaultSpec


@dataclass(frozen=True)
class Rule:
    """A field changes nothing where `idle` holds of the values of the fields that it `reads`.

    `why` is formatted with these values. With the field `unless` in the same file the rule says nothing.
    """

    reads: tuple[str, ...]
    idle: Callable[..., bool]
    why: str
    unless: str = ""


def _is_not(field: str, wanted: str, why: str) -> Rule:
    """The field counts where another one has this value, and nowhere else."""
    return Rule((field,), lambda found: found != wanted, f"{why}, and {field} is {{0}}")


def _is(field: str, found: str, why: str) -> Rule:
    """The field counts everywhere but where another one has this value."""
    return Rule((field,), lambda value: value == found, why)


# these strategies read no logits; some policies read scores of any strategy
IGNORES_LOGITS = ("hash", "random", "round-robin")
READS_SCORES = ("drop-by-priority", "reroute-to-next", "reroute-to-best", "expanded-drop")
RANDOM_OVERFLOW = "drop-at-random"
# strategies of ours that have norm_topk_prob and its like
WEIGHS_BY_NAME = (
    *("deepseek-v2", "deepseek-v3", "gpt-oss", "llama4", "longcat"),
    *("mixtral", "moge", "softmax-top-k", "st-moe", "switch"),
)
_CHOICE = (
    "routing.strategy",
    "routing.capacity.overflow",
    "routing.substitution",
    "routing.training",
    "simulation.queue_overflow",
)


def _needs_no_logits(strategy: str, overflow: str | None, substitution: object, training: object, queues: str) -> bool:
    asked = overflow in READS_SCORES or substitution is not None or training is not None or queues == "next"
    return strategy in IGNORES_LOGITS and not asked


def nothing_random(trace: str | None, overflow: str | None, faults: tuple[FaultSpec, ...]) -> bool:
    """Whether every seed gives the same run."""
    drawn = overflow == RANDOM_OVERFLOW or any(
        fault.cv is not None or fault.mean_time_between_s is not None for fault in faults
    )
    return trace is not None and not drawn


_RECORDED = Rule(("workload.trace",), lambda trace: trace is not None, "the tokens and their choices are recorded")
_RECORDED_CHOICES = Rule(
    ("workload.trace", "routing.strategy"),
    lambda trace, strategy: trace is not None and strategy in (None, "recorded"),  # a strategy routes recorded logits
    "the tokens and their choices are recorded",
)
_UNREAD = Rule(
    (*_CHOICE, "model.router"),
    lambda *read: _needs_no_logits(*read[:5]),
    "routing.strategy {0} chooses without reading logits",
)
_UNWEIGHED = Rule(
    ("routing.strategy", "routing.capacity.overflow", "model.router"),
    lambda strategy, overflow, _: strategy in WEIGHS_BY_NAME and overflow != "drop-by-probability",
    "it changes weights of choices, which only routing.capacity.overflow drop-by-probability reads",
)
_UNGROUPED = Rule(
    ("routing.strategy", "routing.parameters", "routing.substitution.policy", "model.router"),
    lambda strategy, given, policy, _: (
        strategy in WEIGHS_BY_NAME and given.get("n_group", 1) == 1 and policy != "node-limited"
    ),
    "all experts are one group (routing.parameters.n_group)",
)
_NO_MLA = _is_not("model.attention", "mla", "only latent attention has this width")
_MLA = _is("model.attention", "mla", "latent attention has its own widths")
_QUEUED = _is("simulation.experts", "queued", "queued experts are sent one copy a selection")
# a factor other than 1 makes the rates of the two levels differ
_PORTS = Rule(
    ("simulation.experts", "cluster.network.port_bandwidth_factor", "cluster.gpu"),
    lambda experts, factor, _: experts == "queued" and factor == (1.0, 1.0),
    "messages to queued experts always queue at their ports",
)
_ALONE = Rule(
    ("parallelism.expert", "parallelism.expert_tp", "cluster.nodes", "cluster.gpus_per_node"),
    lambda ranks, sharing, *_: ranks == sharing == 1,
    "an expert-parallel group is one rank, which sends nothing",
)
_STILL = Rule(
    ("routing.training.learning_rate",),
    lambda rate: rate == 0,
    "popularity does not move with routing.training.learning_rate 0",
)
_ONE_GROUP = Rule(("workload.popularity.groups",), lambda groups: groups == 1, "workload.popularity.groups is 1")
_TWO_BATCH = _is_not("simulation.overlap", "two-batch", "only two micro-batches compute while they exchange")

RULES: Mapping[str, tuple[Rule, ...]] = {
    "seed": (
        Rule(
            ("workload.trace", "routing.capacity.overflow", "faults"),
            nothing_random,
            "the tokens are recorded and nothing else is random",
        ),
    ),
    "model.intermediate_size": (
        Rule(("model.dense_layers",), lambda layers: not layers, "it is the width of dense layers, and there are none"),
    ),
    "model.n_shared_experts": (
        Rule(
            ("model.n_shared_experts",),
            lambda n: n > 1,
            "any number above 0 is the same: the width of all shared experts together is "
            "model.shared_intermediate_size, which the file leaves as it is",
            unless="model.shared_intermediate_size",
        ),
    ),
    "model.n_kv_heads": (_MLA,),
    "model.head_dim": (_MLA,),
    **dict.fromkeys(
        (f"model.{name}" for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim")),
        (_NO_MLA,),
    ),
    "model.router": (
        _RECORDED,
        Rule(
            ("routing.strategy", "model.router"),
            lambda strategy, router: strategy != router,
            "the router is another, routing.strategy {0}",
        ),
    ),
    "model.weights_dtype": (
        Rule(
            ("precision.weights", "model.weights_dtype", "cluster.gpu"),
            lambda used, own, _: used != own,
            "weights are {0} (precision.weights)",
        ),
    ),
    "model.dispatch_dtype": (
        Rule(
            ("precision.dispatch", "model.dispatch_dtype", "cluster.gpu"),
            lambda used, own, _: used != own,
            "tokens are sent in {0} (precision.dispatch)",
        ),
    ),
    "precision.dispatch": (_ALONE,),
    "precision.combine": (_ALONE,),
    "parallelism.attention_tp": (
        _is_not("parallelism.attention", "tensor", "only tensor-parallel attention has GPUs that share heads"),
    ),
    "placement.strategy": (
        Rule(
            ("placement.redundant_experts", *_ALONE.reads),
            lambda copies, ranks, *_: ranks == 1 and copies == 0,
            "an expert-parallel group is one rank, which has every expert once",
        ),
    ),
    "cluster.network.copies": (_QUEUED,),
    "cluster.network.comm_sms": (
        Rule(
            ("simulation.overlap", "cluster.network.fitted", "cluster.network"),
            lambda overlap, fitted, _: overlap != "two-batch" and "/deepep-normal/" not in str(fitted),
            "only two micro-batches compute while they exchange, and only DeepEP's normal kernels send by SMs",
        ),
    ),
    "cluster.network.port_bandwidth_factor": (
        _is_not("simulation.network", "port", "it belongs to the level of single messages"),
        Rule(
            (
                "cluster.network.fitted",
                "cluster.network.dispatch_bandwidth_gb_per_s",
                "cluster.network.combine_bandwidth_gb_per_s",
                "cluster.network",
            ),
            lambda fitted, dispatch, combine, _: fitted is not None and dispatch is None and combine is None,
            "both levels of detail take what was fitted",
        ),
    ),
    "workload.context_tokens": (_is_not("workload.phase", "decode", "only decode reads cached tokens"),),
    "workload.sequence_tokens": (
        _is("workload.phase", "decode", "in decode a sequence has one token a step and context_tokens cached ones"),
    ),
    "workload.popularity.kind": (_RECORDED, _UNREAD),
    "workload.popularity.exponent": (
        _RECORDED,
        _UNREAD,
        _is_not("workload.popularity.kind", "zipf", "it is the exponent of Zipf's law"),
    ),
    "workload.popularity.router": (
        _RECORDED,
        _UNREAD,
        Rule(("workload.popularity.kind",), lambda kind: kind not in LOAD_KINDS, "kind {0} states no load"),
    ),
    **{
        f"workload.popularity.{name}": (
            _RECORDED,
            _UNREAD,
            _is_not("workload.popularity.kind", kind, f"it belongs to kind {kind}"),
            *((_ONE_GROUP,) if name in ("group_exponent", "group_sigma") else ()),
        )
        for kind in LOAD_KINDS
        for name in POPULARITY_FIELDS[kind]
    },
    "workload.topics.count": (
        _RECORDED,
        _UNREAD,
        Rule(("workload.topics.strength",), lambda strength: strength == 0, "workload.topics.strength is 0"),
    ),
    "workload.topics.strength": (
        _RECORDED,
        _UNREAD,
        Rule(("workload.topics.count",), lambda count: count == 0, "workload.topics.count is 0"),
    ),
    "workload.topics.mixture": (
        _RECORDED,
        _UNREAD,
        Rule(
            ("workload.topics.count", "workload.topics.strength"),
            lambda count, strength: count < 2 or strength == 0,
            "with workload.topics.count {0} and strength {1} all topics are one",
        ),
    ),
    "workload.locality": (_RECORDED, _UNREAD),
    "workload.generated_tokens": (
        _is_not("workload.phase", "decode", "only sequences of decode end"),
        _RECORDED,
        Rule(
            ("workload.topics.strength", "workload.topics.count", "workload.locality", "routing.capacity.scope"),
            lambda strength, count, locality, scope: (
                (strength == 0 or count < 2) and not any(locality) and scope != "sequence"
            ),
            "sequences differ by nothing without topics, locality and a capacity of scope sequence",
        ),
    ),
    "workload.drift": (
        _RECORDED,
        _UNREAD,
        Rule(
            ("workload.popularity.kind", "workload.popularity.exponent"),
            lambda kind, exponent: kind == "uniform" or (kind == "zipf" and exponent == 0),
            "all experts are equally popular",
        ),
    ),
    "workload.bursts": (_RECORDED, _UNREAD),
    "workload.sampling": (_RECORDED,),
    "routing.parameters": (_RECORDED_CHOICES,),
    **dict.fromkeys(
        (f"routing.parameters.{name}" for name in ("norm_topk_prob", "norm_epsilon", "routed_scaling_factor")),
        (_UNWEIGHED,),
    ),
    **dict.fromkeys(
        (f"routing.parameters.{name}" for name in ("group_score", "masked_score")),
        (_UNGROUPED,),
    ),
    "routing.parameters.n_ranks": (
        Rule(
            ("routing.strategy", "routing.parameters"),
            lambda strategy, given: strategy == "round-robin" and given.get("shuffled", True),
            "round-robin deals experts in random orders; with shuffled: false it deals over ranks",
        ),
    ),
    "routing.capacity.evaluation_factor": (
        _is("workload.phase", "train", "in training routing.capacity.factor counts"),
    ),
    "routing.capacity.tries": (
        _is_not("routing.capacity.overflow", "reroute-to-next", "only reroute-to-next offers so many experts"),
    ),
    "routing.substitution.threshold": (
        _is_not("routing.substitution.policy", "least-loaded", "only least-loaded has a threshold"),
    ),
    "routing.substitution.nodes": (
        _is_not("routing.substitution.policy", "node-limited", "only node-limited counts nodes"),
    ),
    "routing.training.from_step": (
        _is("routing.training.mechanism", "none", "routing.training.mechanism none never acts"),
        Rule(
            ("routing.training.from_step", "workload.steps", "simulation.warmup_steps"),
            lambda first, steps, warmup: first >= steps + warmup,
            "the run ends before: it has {1} steps and {2} to warm up, counted from 0",
        ),
    ),
    **dict.fromkeys(
        ("routing.training.step_size", "routing.training.rule"),
        (_is_not("routing.training.mechanism", "loss-free", "only loss-free moves a bias"),),
    ),
    "routing.training.coefficient": (
        _is_not("routing.training.mechanism", "aux-loss", "only aux-loss weighs a loss"),
        _STILL,
    ),
    "routing.training.feedback_gain": (_STILL,),
    "routing.training.learning_rate": (
        Rule(
            ("routing.training.feedback_gain", "routing.training.mechanism"),
            lambda gain, mechanism: gain == 0 and mechanism != "aux-loss",
            "nothing moves popularity with routing.training.feedback_gain 0 and mechanism {1}",
        ),
    ),
    "simulation.network": (_PORTS, _ALONE),
    "simulation.overlap": (
        Rule(
            ("simulation.overlap", "model.n_shared_experts"),
            lambda overlap, shared: overlap == "shared-expert" and not shared,
            "the model has no shared experts to compute during dispatch",
        ),
    ),
    "simulation.overlap_slowdown": (_TWO_BATCH,),
    "simulation.queue_overflow": (
        Rule(
            ("simulation.experts", "simulation.queue_tokens"),
            lambda experts, room: experts == "queued" and room is None,
            "a queue without simulation.queue_tokens is never full",
        ),
    ),
}
"""Field -> where it changes nothing; the first rule that holds is the reason."""


def level_rule(i: int) -> Rule:
    """Of `level` of the i-th fault."""
    return Rule(
        (f"faults.{i}.level", "cluster.nodes", "cluster.gpus_per_node"),
        lambda level, nodes, a_node: {"across_nodes": nodes, "within_node": a_node}.get(level, 0) == 1,
        "no message goes {0} with nodes {1} and gpus_per_node {2}",
    )
