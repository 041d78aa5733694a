"""Where fields of a scenario change nothing, and why: the table that `notices` looks up."""

from __future__ import annotations

from collections.abc import Mapping

from moesim.scenario.no_effect_rules import DEALT, RECORDED, Rule, is_, is_not
from moesim.scenario.no_effect_workload import WORKLOAD_RULES
from moesim.scenario.schema import FaultSpec

RANDOM_OVERFLOW = "drop-at-random"
# strategies of ours that have norm_topk_prob and its like
WEIGHS_BY_NAME = (
    *("deepseek-v2", "deepseek-v3", "gpt-oss", "llama4", "longcat"),
    *("mixtral", "moge", "softmax-top-k", "st-moe", "switch"),
)


def nothing_random(trace: str | None, overflow: str | None, faults: tuple[FaultSpec, ...]) -> bool:
    """Whether every seed gives the same run."""
    drawn = overflow == RANDOM_OVERFLOW or any(
        fault.cv is not None or fault.mean_time_between_s is not None for fault in faults
    )
    return trace is not None and not drawn


_RECORDED_CHOICES = Rule(
    ("workload.trace", "routing.strategy"),
    lambda trace, strategy: trace is not None and strategy in (None, "recorded"),  # a strategy routes recorded logits
    "the tokens and their choices are recorded",
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
_NO_MLA = is_not("model.attention", "mla", "only latent attention has this width")
_MLA = is_("model.attention", "mla", "latent attention has its own widths")
_QUEUED = is_("simulation.experts", "queued", "queued experts are sent one copy a selection")
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
_TWO_BATCH = is_not("simulation.overlap", "two-batch", "only two micro-batches compute while they exchange")

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
        RECORDED,
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
        is_not("parallelism.attention", "tensor", "only tensor-parallel attention has GPUs that share heads"),
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
        is_not("simulation.network", "port", "it belongs to the level of single messages"),
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
    **WORKLOAD_RULES,
    "routing.parameters": (_RECORDED_CHOICES, DEALT),
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
        is_("workload.phase", "train", "in training routing.capacity.factor counts"),
    ),
    "routing.capacity.tries": (
        is_not("routing.capacity.overflow", "reroute-to-next", "only reroute-to-next offers so many experts"),
    ),
    "routing.substitution.threshold": (
        is_not("routing.substitution.policy", "least-loaded", "only least-loaded has a threshold"),
    ),
    "routing.substitution.nodes": (
        is_not("routing.substitution.policy", "node-limited", "only node-limited counts nodes"),
    ),
    "routing.training.from_step": (
        is_("routing.training.mechanism", "none", "routing.training.mechanism none never acts"),
        Rule(
            ("routing.training.from_step", "workload.steps", "simulation.warmup_steps"),
            lambda first, steps, warmup: first >= steps + warmup,
            "the run ends before: it has {1} steps and {2} to warm up, counted from 0",
        ),
    ),
    **dict.fromkeys(
        ("routing.training.step_size", "routing.training.rule"),
        (is_not("routing.training.mechanism", "loss-free", "only loss-free moves a bias"),),
    ),
    "routing.training.coefficient": (
        is_not("routing.training.mechanism", "aux-loss", "only aux-loss weighs a loss"),
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
