"""Which experts the tokens asked for, and which served them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

NOT_DROPPED, OVER_CAPACITY, TO_SHARED_EXPERT = 0, 1, 2
TO_NEXT_CHOICE, TO_BEST_WITH_ROOM, TO_LOCAL_EXPERT = 3, 4, 5
QUEUE_FULL, LOST_GPU = 6, 7
CAUSES: Mapping[int, str] = {
    NOT_DROPPED: "",
    OVER_CAPACITY: "over_capacity",
    TO_SHARED_EXPERT: "to_shared_expert",
    TO_NEXT_CHOICE: "to_next_choice",
    TO_BEST_WITH_ROOM: "to_best_with_room",
    TO_LOCAL_EXPERT: "to_local_expert",
    QUEUE_FULL: "queue_full",
    LOST_GPU: "lost_gpu",
}
"""Why an assignment was dropped, or where it was rerouted (to_next_choice, to_best_with_room, to_local_expert)."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The (token, choice) pairs of T tokens and K choices.

    `expert` int32 [T, K] is the request, -1 = no choice; `weight` float32
    [T, K], 0 where there is no choice. After a capacity policy `served` int32
    [T, K] is the expert that takes the assignment or -1, `dropped` and
    `rerouted` are bool [T, K], `cause` int8 [T, K] is a key of CAUSES and
    `capacity` int64 [n_scopes] the assignments an expert takes per scope (-1 = unlimited). `padding` int64
    [n_scopes, E], or [n_scopes, devices], are the rows that fill experts up to it, None = not padded.
    """

    expert: NDArray[np.int32]
    weight: NDArray[np.float32]
    served: NDArray[np.int32]
    dropped: NDArray[np.bool_]
    rerouted: NDArray[np.bool_]
    cause: NDArray[np.int8]
    capacity: NDArray[np.int64]
    padding: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, expert: NDArray[np.int32], weight: NDArray[np.float32]) -> Assignment:
        """A request before any capacity: everything is served as asked."""
        none = np.zeros(expert.shape, dtype=np.bool_)
        return cls(
            expert=expert,
            weight=weight,
            served=expert,
            dropped=none,
            rerouted=none,
            cause=np.zeros(expert.shape, dtype=np.int8),
            capacity=np.full(1, -1, dtype=np.int64),
        )

    def requested_load(self, n_experts: int) -> NDArray[np.int64]:
        """Assignments asked of each expert, before any capacity, [E]."""
        return _count(self.expert, n_experts)

    def processed_load(self, n_experts: int) -> NDArray[np.int64]:
        """Assignments that each expert serves, [E]."""
        return _count(self.served, n_experts)

    def by_cause(self) -> dict[str, int]:
        """Assignments that were dropped or rerouted, for each cause of CAUSES."""
        count = np.bincount(self.cause.ravel() if self.cause.any() else [], minlength=len(CAUSES))
        return {text: int(count[cause]) for cause, text in CAUSES.items() if cause}

    def unrouted_tokens(self) -> int:
        """Tokens without any choice: no expert takes them, whatever its capacity."""
        chose = np.count_nonzero(self.expert >= 0)
        return 0 if chose == self.expert.size else int(np.count_nonzero(~_any_choice(self.expert)))

    def lost_tokens(self, elsewhere: NDArray[np.bool_] | None = None) -> int:
        """Tokens that made a choice and that no expert serves; tokens `elsewhere` [T] are served without an expert."""
        if self.served is self.expert:
            return 0
        lost = _any_choice(self.expert) & ~_any_choice(self.served)
        return int(np.count_nonzero(lost if elsewhere is None else lost & ~elsewhere))


def _any_choice(choices: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether any of a token's choices is not -1, [T]."""
    # choice by choice: NumPy is slow where the last axis is short
    return np.asarray(reduce(np.logical_or, (choices >= 0).T))


def _count(expert: NDArray[np.int32], n_experts: int) -> NDArray[np.int64]:
    flat = expert.ravel()
    return np.bincount(flat[flat >= 0], minlength=n_experts).astype(np.int64)
