"""What a run does with loads, faults and results, as plain values: the parts of a scenario that are no shape."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CapacityPolicy:
    """How many assignments an expert takes and what happens to the others; arguments of `apply_capacity`.

    `evaluation_factor` replaces `factor` outside of training (None = the same factor).
    """

    factor: float
    evaluation_factor: float | None
    overflow: str
    scope: str
    minimum: int
    rounding: str
    tries: int
    fallback: str
    pad: bool


@dataclass(frozen=True, kw_only=True)
class SubstitutionPolicy:
    """What replaces some of a router's choices: `policy` is "least-loaded" or "node-limited".

    "least-loaded" trades experts whose score is at least `threshold` of the
    chosen one's; "node-limited" limits the choices of a token to `nodes` nodes.
    """

    policy: str
    threshold: float
    nodes: int


@dataclass(frozen=True, kw_only=True)
class TrainingBalance:
    """How routers change from step to step, and what balances them.

    `mechanism` ("none", "loss-free" or "aux-loss") acts from step `from_step`
    on. "loss-free" moves a selection bias by `step_size` with a `rule` ("sign"
    or "proportional"); "aux-loss" has a `coefficient` and the `scope` whose
    loads it compares. Popularity follows load by `feedback_gain`, a part
    `learning_rate` of the way in a step.
    """

    mechanism: str
    from_step: int
    step_size: float
    rule: str
    coefficient: float
    scope: str
    feedback_gain: float
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """How many tokens may wait at a slot (`room`, None = any number), and what a full one does with the others.

    `overflow` is "drop", "block" or "next".
    """

    room: int | None
    overflow: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong, as the scenario's `faults` describe it; times in seconds of the run."""

    kind: str
    gpu: int | None
    level: str | None
    factor: float | None
    start_s: float
    duration_s: float | None
    mean_time_between_s: float | None
    distribution: str | None
    cv: float | None
    detection_s: float
    recovery_s: float | None
    orphans: str


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a result keeps: `experts` ("steps" or "none"), `links` ("total" or "none"), steps of the timeline."""

    experts: str
    links: str
    timeline_steps: int


@dataclass(frozen=True, kw_only=True)
class SkewTarget:
    """How uneven requested loads are to be: `metric` is "max_violation", "balancedness", "entropy" or "top_share".

    balancedness is over `ranks` of consecutive experts, top_share of the
    `experts` most loaded ones. `reached` is the value on the tokens that it was
    solved on, None before.
    """

    metric: str
    value: float
    ranks: int
    experts: int
    reached: float | None
