"""The fields of `workload` that say how its skew changes over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from moesim.scenario.schema.parts import Count, CountOrZero, Part, described, list_to_tuple

_Weights = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1e18)], ...],
    BeforeValidator(list_to_tuple, json_schema_input_type=list[float]),
]


class MixtureSpec(Part):
    """The weights of the topics among the sequences that begin at a step."""

    step: CountOrZero = described(..., "warm-up steps counted")
    weights: _Weights = described(..., "one for each topic, in any unit")


class TopicsSpec(Part):
    """Topics: the tokens of sequences of one topic prefer the same experts."""

    count: Annotated[int, Field(ge=0, le=10_000)] = described(0, "topics of the sequences; 0 = none")
    strength: float = described(0.0, "standard deviation of an affinity, in logits", ge=0, le=20)
    mixture: Annotated[
        tuple[MixtureSpec, ...], BeforeValidator(list_to_tuple, json_schema_input_type=list[MixtureSpec])
    ] = described(
        (),
        "how common topics are among the sequences that begin at some steps, linear between, constant before and "
        "after; empty = all alike",
    )


class DriftSpec(Part):
    """The popularity of the experts wanders; how unequal it is stays."""

    half_life_steps: float = described(
        ..., "steps after which the correlation of popularity with the start is 0.5", gt=0, le=1e9
    )


class BurstsSpec(Part):
    """Some steps in which a share of the tokens turn to a few experts."""

    share: float = described(..., "part of the tokens that turn, drawn at random in every step", gt=0, le=1)
    experts: Count = described(..., "of each layer, drawn anew for each burst; a token's choices are among them first")
    every_steps: Count = described(..., "of which one run is a burst, at a random place")
    duration_steps: Count = described(1, "of a burst")


PATTERN_FIELDS: Mapping[str, tuple[str, ...]] = {
    "balanced": (),
    "hot-experts": ("share", "experts"),
    "hot-rank": ("share", "rank"),
    "spread-hot-experts": ("share", "experts"),
    "ragged-sources": ("factor",),
    "idle-rank": ("rank",),
    "rotating-hot-spot": ("share", "every_steps"),
    "burst": ("share", "experts", "every_steps", "duration_steps"),
}
"""What each kind of pattern reads, besides its ranks."""


def kind_of_pattern(value: Any) -> Any:
    """A name alone is the kind."""
    return {"kind": value} if isinstance(value, str) else value


class PatternSpec(Part):
    """Choices that are dealt in exact numbers, instead of those of a router (moesim list patterns)."""

    kind: Literal[
        "balanced",
        "hot-experts",
        "hot-rank",
        "spread-hot-experts",
        "ragged-sources",
        "idle-rank",
        "rotating-hot-spot",
        "burst",
    ]
    share: float = described(0.5, "part of the tokens that go to hot experts", gt=0, le=1)
    experts: Count | None = described(
        None, "how many experts of each layer are hot; default: top_k, of spread-hot-experts as many on every rank"
    )
    rank: CountOrZero = described(0, "the hot rank of hot-rank, or that of idle-rank without tokens")
    ranks: Count | None = described(
        None, "into how many runs the experts of a layer are cut for it; default: parallelism.expert"
    )
    every_steps: Count = described(10, "of rotating-hot-spot: until the next rank; of burst: from one to the next")
    duration_steps: Count = described(2, "of burst")
    factor: float = described(
        1.5, "of ragged-sources: tokens of the fullest rank over those of an average one", ge=1, le=2
    )


TARGET_METRICS = ("max_violation", "balancedness", "entropy", "top_share")
"""What a target may be of."""


class TargetSpec(Part):
    """How uneven the requested load is to be; one of the first four is stated."""

    max_violation: float | None = described(None, "max / mean - 1 over the experts of a layer", gt=0, le=1e6)
    balancedness: float | None = described(None, "mean / max over ranks of consecutive experts", gt=0, le=1)
    entropy: float | None = described(None, "of the shares of the experts, over ln of their number", ge=0, le=1)
    top_share: float | None = described(None, "part of a layer's load that its most loaded experts have", gt=0, le=1)
    ranks: Count | None = described(None, "of balancedness: how many ranks; it needs them")
    experts: Count | None = described(None, "of top_share: how many experts; it needs them")
    reached: float | None = described(
        None, "what the solved field gives on the tokens that it was solved on; moesim writes it, none = to be solved"
    )
