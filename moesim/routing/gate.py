"""The top-k gate of which most published routers are settings.

One row after the other: scores of all experts; the best groups of experts, if
they are limited; the k best of what is left; their weights. A named strategy
is a set of defaults of `GateParameters` (deepseek_v3.py, mixtral.py, ...), so
that a mixture which nobody published can be studied too, for instance
`strategy="mixtral", n_group=8, topk_group=4`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.exponential import OUT_OF_REACH, largest, sigmoid, softmax
from moesim.compiled.jit import njit
from moesim.compiled.topk import BLOCK, load, load_groups, room_for_keys, take
from moesim.errors import ParameterError
from moesim.routing.groups import list_groups, rank_groups
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw

SCORES = ("softmax", "softmax-of-chosen", "sigmoid", "sigmoid-of-chosen")
GROUP_SCORES = ("max", "top-2-sum", "top-k-sum")
MASKED_SCORES = ("-inf", "0")


@dataclass(frozen=True, kw_only=True)
class GateParameters:
    """What distinguishes the gates; names as in the models' configurations where these have one.

    score: what is compared and what weighs. "softmax" and "sigmoid": of all logits; "softmax-of-chosen" and
        "sigmoid-of-chosen": logits are compared, the function is taken of the chosen ones.
    norm_topk_prob: divide the weights of a token by their sum + norm_epsilon.
    routed_scaling_factor: multiplies the weights last.
    n_group, topk_group: consecutive equal groups of experts, and how many of them a token may use.
    group_score: a group's score: "max" of its experts', sum of its two best ("top-2-sum", DeepSeek-V3) or of its
        top_k / topk_group best ("top-k-sum", Megatron).
    masked_score: of an expert whose group is out: "-inf", or "0", which lets it win where the others' are negative
        (transformers 4.57 to 5.2).
    """

    score: str = "softmax"
    norm_topk_prob: bool = False
    norm_epsilon: float = 0.0
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    group_score: str = "max"
    masked_score: str = "-inf"


G = TypeVar("G", bound=GateParameters)


def gate(
    name: str, check: Callable[[int, int, GateParameters], None] | None = None, **defaults: Any
) -> Strategy[GateParameters]:
    """A strategy that is this gate with other defaults, and with a rule of its own besides the gate's."""

    def check_both(n_experts: int, top_k: int, parameters: GateParameters) -> None:
        check_gate(n_experts, top_k, parameters)
        if check is not None:
            check(n_experts, top_k, parameters)

    return Strategy(
        name=name,
        route=route,
        parameters=GateParameters,
        defaults=defaults,
        check=check_both,
        takes_bias=True,
        order_only=compares_logits,
        by_sigmoid=scores_by_sigmoid,
        groups=kept_groups,
        with_groups=limited_to_groups,
    )


def compares_logits(parameters: GateParameters) -> bool:
    """Whether the chosen are the largest logits: no groups, and no sigmoids, which are equal where they saturate."""
    return parameters.score != "sigmoid" and parameters.topk_group == parameters.n_group


def scores_by_sigmoid(parameters: GateParameters) -> bool:
    """Whether scores and weights are sigmoids; else probabilities."""
    return parameters.score in {"sigmoid", "sigmoid-of-chosen"}


def kept_groups(parameters: GateParameters) -> tuple[int, int]:
    """How many groups a token may use, of how many."""
    return parameters.topk_group, parameters.n_group


def limited_to_groups(parameters: G, kept: int, n_groups: int) -> G:
    """The parameters that limit a token to `kept` groups of so many, by the best sums of top_k / kept scores."""
    return dataclasses.replace(parameters, n_group=n_groups, topk_group=kept, group_score="top-k-sum")


def route(
    logits: NDArray[np.float32], top_k: int, parameters: GateParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """Route logits [T, E]; `state` is a float32 [E] added to the scores that are compared, or None."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    summed = {"max": 1, "top-2-sum": 2, "top-k-sum": top_k // parameters.topk_group}[parameters.group_score]
    settings = _Gate(
        kind=SCORES.index(parameters.score),
        biased=state is not None,
        normalise=parameters.norm_topk_prob,
        epsilon=np.float32(parameters.norm_epsilon),
        scaling=np.float32(parameters.routed_scaling_factor),
        n_group=parameters.n_group,
        topk_group=parameters.topk_group,
        summed=summed,
        masked_is_zero=parameters.masked_score == "0",
    )
    bias = np.zeros(logits.shape[1], dtype=np.float32) if state is None else state
    _route(logits, bias, settings, expert, weight)
    return Assignment.of(expert, weight)


def top_k_softmax(logits: NDArray[np.float32], top_k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Experts int32 and probabilities float32 [T, top_k] of the k most probable of logits [T, E], for other routers."""
    chosen = route(logits, top_k, GateParameters(), None, Draw())
    return chosen.expert, chosen.weight


def check_gate(n_experts: int, top_k: int, parameters: GateParameters) -> None:
    """Groups must be equal, and the kept ones must hold top_k experts.

    Raises:
        ParameterError: what would be right.
    """
    for name, known in (("score", SCORES), ("group_score", GROUP_SCORES), ("masked_score", MASKED_SCORES)):
        found = getattr(parameters, name)
        if found not in known:
            raise ParameterError(name, found, "one of " + ", ".join(known))
    if parameters.norm_epsilon < 0:
        raise ParameterError("norm_epsilon", parameters.norm_epsilon, "0 or more")
    n_group, topk_group = parameters.n_group, parameters.topk_group
    if n_group < 1 or n_experts % n_group:
        raise ParameterError("n_group", n_group, f"a number that divides the {n_experts} experts")
    if not 1 <= topk_group <= n_group:
        raise ParameterError("topk_group", topk_group, f"1 to n_group ({n_group})")
    size = n_experts // n_group
    if top_k > topk_group * size:
        raise ParameterError(
            "top_k", top_k, f"at most the {topk_group * size} experts of {topk_group} groups of {size}"
        )
    if topk_group < n_group and parameters.group_score == "top-k-sum" and not 1 <= top_k // topk_group <= size:
        raise ParameterError(
            "topk_group", topk_group, f"at most top_k ({top_k}), for a sum of the top_k / topk_group best"
        )


_SOFTMAX, _SOFTMAX_OF_CHOSEN, _SIGMOID, _SIGMOID_OF_CHOSEN = range(4)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


class _Gate(NamedTuple):
    """GateParameters as compiled code takes them; `kind` numbers SCORES, `summed` scores of a group make its own."""

    kind: int
    biased: bool
    normalise: bool
    epsilon: np.float32
    scaling: np.float32
    n_group: int
    topk_group: int
    summed: int
    masked_is_zero: bool


@njit
def _route(
    logits: NDArray[np.float32],
    bias: NDArray[np.float32],
    gate: _Gate,
    expert: NDArray[np.int32],
    weight: NDArray[np.float32],
) -> None:
    kind, biased, normalise, epsilon, scaling, n_group, topk_group, summed, masked_is_zero = gate
    n_experts = logits.shape[1]
    keys, power = room_for_keys(n_experts), np.empty(n_experts, dtype=np.int32)
    block_best = np.empty(keys.shape[0] // BLOCK, dtype=np.int64)
    score, compared = np.empty(n_experts, dtype=np.float32), np.empty((1, n_experts), dtype=np.float32)
    group_score, kept = np.empty(n_group, dtype=np.float32), np.ones(n_group, dtype=np.bool_)
    groups, size = np.empty(n_group + 1, dtype=np.int32), n_experts // n_group
    limited = topk_group < n_group
    # probabilities order as logits do, but underflow: they are compared only where something is added to them
    scored = kind == _SIGMOID or (kind == _SOFTMAX and (biased or (limited and (summed > 1 or masked_is_zero))))
    # views are made once: their references would be counted for every token
    scale, own = power.view(np.float32), compared[0]
    logit_bits, own_bits = logits.view(np.int32), compared.view(np.int32)
    by_logits = not scored and not biased
    ranked, bits = (logits, logit_bits) if by_logits else (compared, own_bits)
    for t in range(logits.shape[0]):
        if kind == _SIGMOID:
            sigmoid(logits, t, bias, score, own, power, scale)
        elif scored:
            _probabilities(logits, t, bias, score, own, power, scale)
        elif biased:
            for e in range(n_experts):
                own[e] = logits[t, e] + bias[e]
        row = t if by_logits else 0
        if limited:
            rank_groups(ranked, row, summed, group_score, topk_group, kept)
        if limited and not masked_is_zero:
            list_groups(kept, groups)
            take(keys, load_groups(bits, row, groups, topk_group, size, power, keys), block_best, expert, t)
            for j in range(expert.shape[1]):
                expert[t, j] = power[expert[t, j]]
        else:
            if limited:
                _fill_masked(ranked, row, kept, own)
            load(own_bits if limited else bits, 0 if limited else row, power, keys)
            take(keys, n_experts, block_best, expert, t)
        if scored:
            for j in range(expert.shape[1]):
                weight[t, j] = score[expert[t, j]]
        else:
            _weigh(logits, t, expert, kind, normalise, score, power, scale, weight)
        _finish(weight, t, normalise, epsilon, scaling)


@njit
def _probabilities(
    logits: NDArray[np.float32],
    t: int,
    bias: NDArray[np.float32],
    score: NDArray[np.float32],
    biased: NDArray[np.float32],
    power: NDArray[np.int32],
    scale: NDArray[np.float32],
) -> None:
    """Fill score [E] with the softmax of row t, and biased with score + bias, -inf where the logit is."""
    total = softmax(logits, t, largest(logits, t), score, power, scale)
    for e in range(logits.shape[1]):
        score[e] /= total
        biased[e] = score[e] + bias[e] if logits[t, e] > OUT_OF_REACH else OUT_OF_REACH


@njit
def _finish(weight: NDArray[np.float32], t: int, normalise: bool, epsilon: np.float32, scaling: np.float32) -> None:
    if normalise:
        _normalise(weight, t, epsilon)
    for j in range(weight.shape[1]):
        weight[t, j] *= scaling


@njit
def _weigh(
    logits: NDArray[np.float32],
    t: int,
    expert: NDArray[np.int32],
    kind: int,
    normalise: bool,
    scratch: NDArray[np.float32],
    power: NDArray[np.int32],
    scale: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    """Fill row t of weight [T, K] for the chosen experts, whose logits were compared."""
    if kind == _SIGMOID_OF_CHOSEN:
        for j in range(expert.shape[1]):
            x = logits[t, expert[t, j]]
            z = np.exp(-abs(x))
            weight[t, j] = (_ONE if x >= _ZERO else z) / (_ONE + z)
        return
    over_all = kind == _SOFTMAX and not normalise  # normalised, both have the same sum
    peak = logits[t, expert[t, 0]]
    if over_all:
        peak = largest(logits, t)
    else:
        for j in range(expert.shape[1]):
            peak = max(peak, logits[t, expert[t, j]])
    for j in range(expert.shape[1]):
        weight[t, j] = np.exp(logits[t, expert[t, j]] - peak)
    if over_all:
        total = softmax(logits, t, peak, scratch, power, scale)
        for j in range(expert.shape[1]):
            weight[t, j] /= total
    else:
        _normalise(weight, t, _ZERO)


@njit
def _normalise(weight: NDArray[np.float32], t: int, epsilon: np.float32) -> None:
    total = _ZERO
    for j in range(weight.shape[1]):
        total += weight[t, j]
    for j in range(weight.shape[1]):
        weight[t, j] /= total + epsilon


@njit
def _fill_masked(score: NDArray[np.float32], t: int, kept: NDArray[np.bool_], out: NDArray[np.float32]) -> None:
    """Copy row t of score [T, E] to out [E], 0 where the expert's group is not kept; they may be the same memory.

    What is out of reach stays so.
    """
    size = score.shape[1] // kept.shape[0]
    for g in range(kept.shape[0]):
        for e in range(g * size, (g + 1) * size):
            out[e] = score[t, e] if kept[g] or score[t, e] == OUT_OF_REACH else _ZERO
