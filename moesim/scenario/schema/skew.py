"""The fields of `workload` that say how its skew changes over the steps."""

from __future__ import annotations

from typing import Annotated

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
