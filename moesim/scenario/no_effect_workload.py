"""Where fields of `workload` change nothing, and why."""

from __future__ import annotations

from collections.abc import Mapping

from moesim.scenario.no_effect_rules import DEALT, RECORDED, UNREAD, Rule, is_, is_not
from moesim.scenario.schema import LOAD_KINDS, PATTERN_FIELDS, POPULARITY_FIELDS

LAWLESS = (RECORDED, DEALT, UNREAD)
"""Where the law of the logits counts for nothing."""
_SOLVED = Rule(
    ("workload.popularity.target",), lambda target: target is not None, "workload.popularity.target solves for it"
)
_ONE_GROUP = Rule(("workload.popularity.groups",), lambda groups: groups == 1, "workload.popularity.groups is 1")

WORKLOAD_RULES: Mapping[str, tuple[Rule, ...]] = {
    "workload.context_tokens": (is_not("workload.phase", "decode", "only decode reads cached tokens"),),
    "workload.sequence_tokens": (
        is_("workload.phase", "decode", "in decode a sequence has one token a step and context_tokens cached ones"),
    ),
    "workload.popularity.kind": LAWLESS,
    "workload.popularity.exponent": (
        *LAWLESS,
        is_not("workload.popularity.kind", "zipf", "it is the exponent of Zipf's law"),
        _SOLVED,
    ),
    "workload.popularity.router": (
        *LAWLESS,
        Rule(
            ("workload.popularity.kind", "workload.popularity.target"),
            lambda kind, target: kind not in LOAD_KINDS and target is None,
            "kind {0} states no load",
        ),
    ),
    "workload.popularity.target": LAWLESS,
    **{
        f"workload.popularity.{name}": (
            *LAWLESS,
            is_not("workload.popularity.kind", kind, f"it belongs to kind {kind}"),
            *((_SOLVED,) if name in ("sigma", "concentration") else ()),
            *((_ONE_GROUP,) if name in ("group_exponent", "group_sigma") else ()),
        )
        for kind in LOAD_KINDS
        for name in POPULARITY_FIELDS[kind]
    },
    "workload.topics.count": (
        *LAWLESS,
        Rule(("workload.topics.strength",), lambda strength: strength == 0, "workload.topics.strength is 0"),
    ),
    "workload.topics.strength": (
        *LAWLESS,
        Rule(("workload.topics.count",), lambda count: count == 0, "workload.topics.count is 0"),
    ),
    "workload.topics.mixture": (
        *LAWLESS,
        Rule(
            ("workload.topics.count", "workload.topics.strength"),
            lambda count, strength: count < 2 or strength == 0,
            "with workload.topics.count {0} and strength {1} all topics are one",
        ),
    ),
    "workload.locality": LAWLESS,
    "workload.generated_tokens": (
        is_not("workload.phase", "decode", "only sequences of decode end"),
        RECORDED,
        Rule(
            ("workload.topics.strength", "workload.topics.count", "workload.locality", "routing.capacity.scope"),
            lambda strength, count, locality, scope: (
                (strength == 0 or count < 2) and not any(locality) and scope != "sequence"
            ),
            "sequences differ by nothing without topics, locality and a capacity of scope sequence",
        ),
    ),
    "workload.drift": (
        *LAWLESS,
        Rule(
            ("workload.popularity.kind", "workload.popularity.exponent"),
            lambda kind, exponent: kind == "uniform" or (kind == "zipf" and exponent == 0),
            "all experts are equally popular",
        ),
    ),
    "workload.bursts": LAWLESS,
    "workload.sampling": (RECORDED, DEALT),
    "workload.trace_steps": (Rule(("workload.trace",), lambda trace: trace is None, "no trace is replayed"),),
    **{
        f"workload.pattern.{name}": (
            Rule(
                ("workload.pattern.kind",),
                lambda kind, name=name: name not in PATTERN_FIELDS.get(kind, ()),
                "workload.pattern.kind {0} does not read it",
            ),
        )
        for name in sorted({field for fields in PATTERN_FIELDS.values() for field in fields})
    },
    "routing.strategy": (DEALT,),
}
"""Field -> where it changes nothing; the first rule that holds is the reason."""
