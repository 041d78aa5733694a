"""A control with perfect balance: assignments are dealt to the experts in turn.

The experts are dealt in a random order, a new one after every lcm(E, k) / k
tokens, in which each expert is chosen equally often. So loads are exactly even
while the choices of one token are spread over ranks and nodes as those of
`random` are: the k experts of a token are any k with the same probability, and
what is sent is what random routing sends.

`shuffled` false is SGLang's `_simulate_balanced_routing_kernel`, whose loads
are as even but whose traffic is of no router: assignment d = t * k + j goes to
rank d % R and there to local expert (d // R) % (E / R). With one rank a token's
choices are neighbours, which share a GPU. Each choice weighs 1 / k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import ROUTER, key, permutation
from moesim.errors import ParameterError
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class RoundRobinParameters:
    """`shuffled`: deal the experts in random orders; `offset`: of the first assignment.

    `n_ranks`, of `shuffled` false: deal over so many ranks of consecutive experts first.
    """

    shuffled: bool = True
    n_ranks: int = 1
    offset: int = 0


def route(
    logits: NDArray[np.float32],
    top_k: int,
    parameters: RoundRobinParameters,
    state: NDArray[np.float32] | None,
    draw: Draw,
) -> Assignment:
    """Deal the assignments of logits [T, E], whatever they say."""
    n_experts, n_ranks = logits.shape[1], parameters.n_ranks
    first = draw.first_token * top_k + parameters.offset
    d = first + np.arange(len(logits) * top_k).reshape(-1, top_k)
    if parameters.shuffled:
        expert = np.empty(d.shape, dtype=np.int32)
        _deal(draw.seed, draw.step, draw.layer, draw.first_token, d, n_experts, math.gcd(n_experts, top_k), expert)
    else:
        per_rank = n_experts // n_ranks
        expert = ((d % n_ranks) * per_rank + d // n_ranks % per_rank).astype(np.int32)
    return Assignment.of(expert, np.full(expert.shape, 1.0 / top_k, dtype=np.float32))


@njit
def _deal(
    seed: int,
    step: int,
    layer: int,
    first: int,
    d: NDArray[np.int64],
    n_experts: int,
    divisor: int,
    expert: NDArray[np.int32],
) -> None:
    """Fill expert [T, K] from assignments d [T, K]; n_experts / divisor tokens take whole turns of all experts."""
    order, known = np.empty(n_experts, dtype=np.int64), -1
    for t in range(d.shape[0]):
        block = (first + t) // (n_experts // divisor)
        if block != known:
            permutation(key(seed, ROUTER, step, layer, block), order)
            known = block
        for j in range(d.shape[1]):
            expert[t, j] = order[d[t, j] % n_experts]


def check(n_experts: int, top_k: int, parameters: RoundRobinParameters) -> None:
    """Ranks must hold equal numbers of experts."""
    if parameters.n_ranks < 1 or n_experts % parameters.n_ranks:
        raise ParameterError("n_ranks", parameters.n_ranks, f"a number that divides the {n_experts} experts")
    if parameters.offset < 0:
        raise ParameterError("offset", parameters.offset, "0 or more")


STRATEGY = Strategy(name="round-robin", route=route, parameters=RoundRobinParameters, check=check, obeys_mask=False)
