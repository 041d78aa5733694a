"""The capacity policies, their scopes and the substitutions by name; tables only, so that a list compiles nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moesim.types import (
    NOT_DROPPED,
    OVER_CAPACITY,
    TO_BEST_WITH_ROOM,
    TO_LOCAL_EXPERT,
    TO_NEXT_CHOICE,
    TO_SHARED_EXPERT,
)


@dataclass(frozen=True, kw_only=True)
class Overflow:
    """A policy: in which order assignments are admitted, and to which experts the refused are offered."""

    summary: str
    order: str = "position"
    reroutes_as: int = NOT_DROPPED
    """Cause of assignments that found another expert; NOT_DROPPED = the refused are not offered to others."""

    @property
    def reads_scores(self) -> bool:
        """Whether weights or scores decide anything."""
        return self.order in {"score", "priority"} or self.reroutes_as != NOT_DROPPED


OVERFLOWS: Mapping[str, Overflow] = {
    "drop-by-position": Overflow(
        summary="the earliest token is served, all its choices before those of the next (DeepSpeed, Megatron)"
    ),
    "drop-by-choice": Overflow(
        summary="all first choices are served before any second one, the earliest token first (GShard, V-MoE)",
        order="choice",
    ),
    "drop-by-priority": Overflow(
        summary="the token with the largest score is served, choice by choice (batch-prioritised, V-MoE)",
        order="priority",
    ),
    "drop-by-probability": Overflow(
        summary="the largest weight is served, the earliest token among equals (Megatron)",
        order="score",
    ),
    "drop-at-random": Overflow(
        summary="assignments are served in a random order (DeepSpeed's random token selection); needs a seed",
        order="draw",
    ),
    "reroute-to-next": Overflow(
        summary="the refused try the next `tries` experts by score, round by round (Mesh, no token left behind)",
        reroutes_as=TO_NEXT_CHOICE,
    ),
    "reroute-to-best": Overflow(
        summary="the refused go to the expert with the best score that has room, one after the other",
        reroutes_as=TO_BEST_WITH_ROOM,
    ),
    "expanded-drop": Overflow(
        summary="the smallest weights are refused and offered to experts of the token's own device (He et al. 2025)",
        order="score",
        reroutes_as=TO_LOCAL_EXPERT,
    ),
}
SCOPES: Mapping[str, str] = {
    "global": "all tokens of the step share an expert's capacity",
    "source-rank": "the tokens of each source rank have a share of their own (Megatron, DeepSpeed)",
    "sequence": "the tokens of each sequence have a share of their own (HF Switch)",
    "device": "all tokens of the step share the capacity of a device, which its experts share (DeepSeek-V2)",
}
FALLBACKS: Mapping[str, int] = {"residual": OVER_CAPACITY, "shared-expert": TO_SHARED_EXPERT}
"""What a dropped assignment's token is left with, and the cause that says so."""
SUBSTITUTIONS: Mapping[str, str] = {
    "least-loaded": "near-equal scores (threshold) are traded for the least loaded expert so far",
    "node-limited": "a token's experts are on its best `nodes` nodes, by the sum of their top_k / nodes best scores",
}
