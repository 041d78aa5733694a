"""The fields of `routing` and `placement`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from moesim.scenario.schema.parts import Count, CountOrZero, NoneWord, Part, described


class CapacitySpec(Part):
    """How many assignments an expert takes in a scope: ceil(tokens x top_k / experts x factor)."""

    factor: float = described(..., "of the even share; 0 and below as Tutel reads them", ge=-1e6, le=1e6)
    evaluation_factor: float | None = described(
        None, "instead of factor where workload.phase is not train", ge=-1e6, le=1e6
    )
    overflow: str = described("drop-by-position", "which assignments are refused, and whether these try other experts")
    scope: str = described("source-rank", "whose tokens, or which experts, share a capacity")
    minimum: CountOrZero = 0
    rounding: str = described("megatron", "the library whose capacity formula is used")
    tries: Count = described(1, "experts that reroute-to-next offers to a refused assignment")
    fallback: Literal["residual", "shared-expert"] = described("residual", "what a dropped assignment is left to")
    pad: bool = described(False, "compute and send rows that fill every expert up to its capacity")


class SubstitutionSpec(Part):
    """Substitution of experts at inference: a policy that replaces some of the router's choices."""

    policy: Literal["least-loaded", "node-limited"]
    threshold: float = described(0.9, "of least-loaded: what part of a score counts as near-equal", gt=0, le=1)
    nodes: Count = described(1, "of node-limited: nodes on which a token's experts are")


class TrainingSpec(Part):
    """A router that evolves over the steps: how popularity feeds on itself, and which mechanism balances it."""

    mechanism: Literal["none", "loss-free", "aux-loss"] = "none"
    from_step: CountOrZero = described(0, "the mechanism acts from this step on, warm-up steps counted")
    step_size: float = described(1e-3, "of loss-free: of the selection bias", gt=0, le=10)
    rule: Literal["sign", "proportional"] = described("sign", "of loss-free: how the bias moves")
    coefficient: float = described(1e-3, "of aux-loss", gt=0, le=10)
    scope: Literal["global-batch", "micro-batch"] = described("global-batch", "of aux-loss: whose loads it compares")
    feedback_gain: float = described(3.9, "how much an expert's popularity grows with its load; 0 = none", ge=0, le=100)
    learning_rate: float = described(1e-4, "part of the way that popularity goes in a step", ge=0, le=1)


class RoutingSpec(Part):
    """How the experts of each token are chosen."""

    strategy: Annotated[str | None, NoneWord] = described(None, "default: what the model uses")
    top_k: Count | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    training: Annotated[TrainingSpec | None, NoneWord] = described(None, "a router that evolves; none = it stays")
    substitution: Annotated[SubstitutionSpec | None, NoneWord] = None
    capacity: Annotated[CapacitySpec | None, NoneWord] = None


class PlacementSpec(Part):
    """Which GPUs hold which experts."""

    strategy: str = "contiguous"
    redundant_experts: CountOrZero = described(0, "copies beyond one of each expert, in every layer")
    expert_gpus: Count | None = described(
        None,
        "the last so many GPUs hold all experts and compute nothing else; default: every GPU does both",
    )
