"""A control with perfect balance: assignments are dealt to the experts in turn.

SGLang's `_simulate_balanced_routing_kernel`: assignment d = t * k + j goes to
rank d % R and there to local expert (d // R) % (E / R), so that ranks and
experts are even; each weighs 1 / k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class RoundRobinParameters:
    """`n_ranks`: deal over so many ranks of consecutive experts first; `offset`: of the first assignment."""

    n_ranks: int = 1
    offset: int = 0


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Deal the assignments of logits [T, E], whatever they say."""
    n_experts, n_ranks = logits.shape[1], parameters.n_ranks
    first = draw.first_token * top_k + parameters.offset
    d = first + np.arange(len(logits) * top_k).reshape(-1, top_k)
    per_rank = n_experts // n_ranks
    expert = (d % n_ranks) * per_rank + d // n_ranks % per_rank
    return Assignment.of(expert.astype(np.int32), np.full(expert.shape, 1.0 / top_k, dtype=np.float32))


def check(n_experts: int, top_k: int, parameters: Any) -> None:
    """Ranks must hold equal numbers of experts."""
    if parameters.n_ranks < 1 or n_experts % parameters.n_ranks:
        raise ParameterError("n_ranks", parameters.n_ranks, f"a number that divides the {n_experts} experts")
    if parameters.offset < 0:
        raise ParameterError("offset", parameters.offset, "0 or more")


STRATEGY = Strategy(name="round-robin", route=route, parameters=RoundRobinParameters, check=check, obeys_mask=False)
