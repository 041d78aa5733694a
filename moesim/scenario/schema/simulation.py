"""The fields of `simulation`, `faults` and `keep`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moesim.scenario.schema.parts import Count, CountOrZero, NoneWord, Part, described

_MAX_S = 9000.0
"""Longest time of a fault: up to it a float64 tells all whole picoseconds apart."""


OVERLAP_SLOWDOWN = 0.31
"""Mean over four published deployments with even load: python -m tests.validation.overlap."""


class SimulationSpec(Part):
    """Which engine simulates a step, in which detail, and what runs at the same time."""

    engine: Literal["auto", "simpy", "compiled"] = described(
        "auto",
        "simpy, the reference, or one compiled sweep that agrees exactly; auto = compiled where valid",
    )
    network: Literal["closed-form", "port"] = described(
        "closed-form",
        "closed-form: last entry + latency + a GPU's busiest port; port: every message queues at its two ports",
    )
    overlap: Annotated[Literal["shared-expert", "two-batch"] | None, NoneWord] = described(
        None, "none; shared experts during dispatch; two micro-batches that alternate computing and exchanging"
    )
    overlap_slowdown: float = described(
        OVERLAP_SLOWDOWN,
        "of two-batch: how much longer computing takes during an exchange, in parts of its time, since both share "
        "memory and links; fitted on published steps",
        ge=0,
        le=1,
    )
    experts: Literal["grouped", "queued"] = described(
        "grouped",
        "grouped: one kernel a layer and GPU, after everything has arrived; queued: every slot serves what has arrived "
        "in its queue, a GPU waits for its own tokens only (engine simpy, one copy per selected expert)",
    )
    queue_tokens: Count | None = described(None, "of queued: tokens that may wait at a slot; default: any number")
    queue_overflow: Literal["drop", "block", "next"] = described(
        "drop", "of a full queue: drop; block the port until there is room; hand on to the token's next choice, once"
    )
    warmup_steps: Annotated[int, Field(ge=0, le=10**6)] = described(0, "run before the steps that are measured")


class FaultSpec(Part):
    """A fault that happens once, at a time of the simulation, or again and again."""

    kind: Literal["slow-gpu", "gpu-pause", "gpu-failure", "slow-link", "compute-jitter", "message-jitter"] = described(
        ...,
        "a GPU computes slower; stops and goes on later, while all wait; is lost, until it is replaced if ever; its "
        "ports are slower; every task, or the latency of every sender in every exchange, takes a random time",
    )
    gpu: CountOrZero | None = described(None, "which; default: every GPU, each on its own with mean_time_between_s")
    level: str | None = described(
        None, "of slow-link: whose ports; within_node, across_nodes, or the name of one of cluster.network.levels"
    )
    factor: float | None = described(None, "of slow-*: how many times as long it takes", ge=1, le=1e3)
    start_s: float = described(0.0, "simulated time at which it begins", ge=0, le=1e6)
    duration_s: float | None = described(None, "how long it lasts; default: to the end", gt=0, le=_MAX_S)
    mean_time_between_s: float | None = described(
        None, "it happens to a GPU again, this long after it was last over, on average (exponential)", ge=1e-6, le=1e9
    )
    distribution: Literal["lognormal", "exponential"] | None = described(
        None, "of *-jitter; exponential: a part 1 - cv is certain, the rest is exponential"
    )
    cv: float | None = described(None, "of *-jitter: standard deviation / mean", gt=0, le=3)
    detection_s: float = described(0.0, "of gpu-failure: how long the others wait for it", ge=0, le=_MAX_S)
    recovery_s: float | None = described(
        None, "of gpu-failure: after this long a replacement takes its place; default: never", gt=0, le=_MAX_S
    )
    orphans: Literal["drop", "stall"] = described(
        "drop",
        "of gpu-failure, where an expert has no copy elsewhere: drop its assignments, or stall all until replaced",
    )


class KeepSpec(Part):
    """Which large frames to keep."""

    experts: Literal["steps", "none"] = described(
        "steps", "loads of every expert, layer and step, the largest frame of a long run; none: those of layers remain"
    )
    links: Literal["total", "none"] = "total"
    timeline_steps: Annotated[int, Field(ge=0, le=10**6)] = 1
