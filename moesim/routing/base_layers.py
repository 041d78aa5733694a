"""BASE layers: one expert a token, the same number of tokens an expert, and the best such assignment.

Lewis et al. 2021, section 3.1: maximise the sum of the chosen logits while no
expert gets more than ceil(T / E) tokens; the weight is the sigmoid of the
logit. `training` false is the plain argmax, as the reference evaluates, and
the default of scenarios whose phase is not train.

Solved by an auction (Bertsekas 1988, with identical places per expert as in
Bertsekas and Castanon 1989): tokens bid for an expert what it is worth to them
beyond the next best, an expert keeps its highest bids. Increments shrink to
RESOLUTION times the range of the logits; the sum is then within that much per
token of the optimum. Fairseq's auction stops earlier, 0.1 to 0.9 % below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.errors import ParameterError
from moesim.routing.gate import GateParameters
from moesim.routing.gate import route as route_gate
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw

RESOLUTION = 1e-6
"""Of the last round's bids, as a part of the range of the logits."""
_BY_LOGIT = GateParameters(score="sigmoid-of-chosen")


@dataclass(frozen=True, kw_only=True)
class BaseParameters:
    """`training`: the balanced assignment; else the argmax."""

    training: bool = True


def route(
    logits: NDArray[np.float32], top_k: int, parameters: BaseParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """Assign all tokens of a batch, logits [T, E]."""
    plain = route_gate(logits, 1, _BY_LOGIT, None, draw)
    if not parameters.training or len(logits) == 0:
        return plain
    expert = balanced_assignment(logits)[:, None]
    with np.errstate(over="ignore"):
        weight = 1 / (1 + np.exp(-np.take_along_axis(logits, expert, axis=1).astype(np.float64)))
    return Assignment.of(expert, weight.astype(np.float32))


def balanced_assignment(logits: NDArray[np.float32]) -> NDArray[np.int32]:
    """An expert for each token, int32 [T], at most ceil(T / E) tokens each, with nearly the largest sum of logits.

    A logit of -inf counts as worse than all others by twice their range.
    """
    n_tokens, n_experts = logits.shape
    finite = logits[np.isfinite(logits)]
    if finite.size < logits.size:
        lowest = finite.min(initial=0) - 2 * np.ptp(finite) - 1 if finite.size else np.float32(0)
        logits = np.where(np.isfinite(logits), logits, np.float32(lowest))
    places = -(-n_tokens // n_experts)
    expert = np.empty(places * n_experts, dtype=np.int32)
    spread = float(logits.max()) - float(logits.min())
    if spread == 0.0 or n_experts == 1:
        return np.arange(n_tokens, dtype=np.int32) // np.int32(places)
    increments = spread * np.geomspace(0.1, RESOLUTION, 6)
    # places that are left over go to tokens that do not care
    padded = np.zeros((len(expert), n_experts), dtype=np.float32)
    padded[:n_tokens] = logits
    _auction(padded, places, increments, expert)
    return expert[:n_tokens]


@njit
def _auction(
    value: NDArray[np.float32], places: int, increments: NDArray[np.float64], expert: NDArray[np.int32]
) -> None:
    """Fill expert [N], N = places * E; prices are carried from one increment to the next smaller one."""
    n, n_experts = value.shape
    price = np.zeros(n_experts)
    bid = np.empty((n_experts, places))  # a heap for each expert, the lowest bid first
    bidder = np.empty((n_experts, places), dtype=np.int64)
    filled = np.zeros(n_experts, dtype=np.int64)
    waiting = np.empty(n, dtype=np.int64)
    for increment in increments:
        filled[:] = 0
        for i in range(n):
            waiting[i] = n - 1 - i  # the first token bids first
        left = n
        while left > 0:
            left -= 1
            t = int(waiting[left])
            best, most, second = 0, -np.inf, -np.inf
            for e in range(n_experts):
                gain = value[t, e] - price[e]
                if gain > most:
                    best, most, second = e, gain, most
                elif gain > second:
                    second = gain
            offer = price[best] + most - second + increment
            expert[t] = best
            if filled[best] < places:
                _push(bid[best], bidder[best], filled[best], offer, t)
                filled[best] += 1
            else:
                waiting[left] = bidder[best, 0]
                left += 1
                _replace(bid[best], bidder[best], offer, t)
            if filled[best] == places:
                price[best] = bid[best, 0]


@njit
def _push(bid: NDArray[np.float64], bidder: NDArray[np.int64], n: int, offer: float, t: int) -> None:
    i = n
    while i > 0 and bid[(i - 1) // 2] > offer:
        bid[i], bidder[i] = bid[(i - 1) // 2], bidder[(i - 1) // 2]
        i = (i - 1) // 2
    bid[i], bidder[i] = offer, t


@njit
def _replace(bid: NDArray[np.float64], bidder: NDArray[np.int64], offer: float, t: int) -> None:
    """Put an offer in the place of the lowest one."""
    n, i = bid.shape[0], 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and bid[child + 1] < bid[child]:
            child += 1
        if bid[child] >= offer:
            break
        bid[i], bidder[i] = bid[child], bidder[child]
        i = child
    bid[i], bidder[i] = offer, t


def check(n_experts: int, top_k: int, parameters: BaseParameters) -> None:
    """BASE is top-1."""
    if top_k != 1:
        raise ParameterError("top_k", top_k, "1, as base sends a token to one expert")


STRATEGY = Strategy(
    name="base",
    route=route,
    parameters=BaseParameters,
    at_inference={"training": False},
    scope="batch",
    check=check,
    obeys_mask=False,
)
