"""What routing, capacity and placement made of the tokens of one step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.types.expert_queues import TokenGroups
from moesim.types.placement import Placement, Traffic
from moesim.types.router import RouterStep
from moesim.types.tokens import Batch


@dataclass(frozen=True, kw_only=True)
class RoutedStep:
    """What routing, capacity and placement made of one step; L MoE layers, E experts.

    The loads are int64 [L, E]; `lost_tokens` int64 [L] counts tokens that made
    a choice and lost every one of them, `unrouted_tokens` int64 [L] those that
    made none; `choices` int64 [L] counts choices that
    are not -1; `zero_choices` int64 [L] those of experts that compute nothing,
    which are not among the former; `slot_load` int64 [L, E] is what the slots of each expert got in
    all; `capacity` int64 [L, S] is what each slot admits (-1 = unlimited);
    `padding` int64 [L, S] are rows without a token that fill it; `causes` int64
    [L, causes] counts dropped and rerouted assignments by the number of CAUSES.
    """

    batch: Batch
    placement: Placement
    """The slots that the counts are of."""
    requested: NDArray[np.int64]
    processed: NDArray[np.int64]
    dropped: NDArray[np.int64]
    rerouted_in: NDArray[np.int64]
    rerouted_away: NDArray[np.int64]
    choices: NDArray[np.int64]
    zero_choices: NDArray[np.int64]
    lost_tokens: NDArray[np.int64]
    unrouted_tokens: NDArray[np.int64]
    slot_load: NDArray[np.int64]
    capacity: NDArray[np.int64]
    padding: NDArray[np.int64]
    causes: NDArray[np.int64]
    traffic: Traffic
    """Of every layer."""
    micro_traffic: Traffic
    """Of every layer and micro-batch; the same where there is one."""
    groups: tuple[TokenGroups, ...] = ()
    """Of every layer and micro-batch, where experts are queued; else empty."""
    recorded_tokens: NDArray[np.int64] | None = None
    """Of a recording, int64 [L]: tokens whose choices in the layer it holds; else None."""
    router: RouterStep | None = None
    """How the routers stand, where they evolve."""
