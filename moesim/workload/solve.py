"""The popularity with which a router gives a stated load.

A token's choices are distinct, so the hottest experts get less than in
proportion to exp(popularity). Without groups of experts the top k of Gumbel
logits are the first k of E exponential clocks of the rates exp(popularity); in
the limit of many experts expert e is among them with probability
1 - exp(-t exp(popularity_e)), where t makes the sum k (Rosén 1997, asymptotic
theory for order sampling). That is where the search begins. What the router
does beyond that (few experts, best groups first) is found by trying it out: in
each round it routes drawn tokens, and the popularity moves against the
deviation of their load from the stated one, from round to round by less
(Robbins and Monro 1951).

A router of moesim's own treats the experts of a group alike, so what is
corrected is a parabola in the popularity per group, not every expert on its
own: a few thousand tokens then suffice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.workload.logits import fill_logits

ROUNDS, SETTLING = 12, 4
"""Rounds, and how many of them move by all of the deviation."""
TOKENS, TOKENS_ALONE = 512, 2048
"""Of a round: where groups of experts are corrected, and where every expert is corrected alone."""
NEVER = -50.0
"""Popularity of an expert without load."""
_DECIMALS = 4
"""Of a popularity, so that the last bits of a machine's linear algebra change no token."""
_STEP = 2**40
"""Tokens of the rounds are of steps from here on, which no run reaches."""
_DEVIATION, _DEVIATIONS = 0.15, 6.0
"""Part of a stated load, and standard deviations of it by chance, by which a load may miss it together."""

Choices = Callable[[NDArray[np.float32], int, int], NDArray[np.int32]]
"""(logits [T, E], round, layer) -> the experts [T, K] that the router chooses, -1 = none; in a thread of any layer."""


def solve_layer(
    seed: int,
    layer: int,
    share: NDArray[np.float64],
    top_k: int,
    affinity: NDArray[np.float32],
    choices: Choices,
    *,
    n_groups: int | None = 1,
    n_zero_experts: int = 0,
) -> NDArray[np.float32]:
    """Popularity [E], of mean exp(popularity) 1, with which a router gives the experts of a layer these shares [E].

    Args:
        seed: of the rounds' tokens.
        layer: its number among the MoE layers.
        share: of the layer's assignments, sum 1.
        top_k: K, choices of a token.
        affinity: of each topic [topics, E]; tokens are of all topics alike.
        choices: the router.
        n_groups: runs of equal length of experts that the router treats alike; None: every expert is one.
        n_zero_experts: logits behind those of the experts, each as popular as these are in the mean.

    Raises:
        ParameterError: a load that no router of K distinct choices gives, or that this one does not.
    """
    n_experts = len(share)
    hottest = int(share.argmax())
    if share[hottest] > (1 + 1e-9) / top_k:
        found = f"{share[hottest]:.3g} of the load of layer {layer} for expert {hottest}"
        raise ParameterError("load", found, f"at most 1 / top_k = {1 / top_k:.3g}, as choices of a token are distinct")
    chance = np.minimum(top_k * share, 1 - 1e-6)
    loaded = np.flatnonzero(share)
    popularity = np.full(n_experts, NEVER)
    popularity[loaded] = _start(chance[loaded], affinity[:, loaded].astype(np.float64))
    basis, response = _basis(popularity, loaded, n_groups), _response(chance[loaded])
    fit = np.sqrt(share[loaded]) * response  # one over the standard deviation of what is fitted
    correct = basis @ np.linalg.pinv(basis * fit[:, None])
    topic = np.arange(TOKENS_ALONE if n_groups is None else TOKENS, dtype=np.int32) % len(affinity)
    padded = np.pad(affinity, ((0, 0), (0, n_zero_experts)))
    logits = np.empty((len(topic), n_experts + n_zero_experts), dtype=np.float32)
    total = np.zeros(n_experts)
    for number in range(ROUNDS):
        given = np.pad(popularity, (0, n_zero_experts), constant_values=popularity[loaded].mean())
        fill_logits(seed, _STEP + number, layer, 0, given.astype(np.float32), padded, topic, logits)
        chosen = choices(logits, number, layer)
        load = np.bincount(chosen[(chosen >= 0) & (chosen < n_experts)], minlength=n_experts).astype(np.float64)
        deviation = load / max(1.0, load.sum()) / np.where(share > 0, share, 1) - 1
        moved = correct @ (fit * np.clip(deviation[loaded], -1, 2) / response)
        popularity[loaded] -= moved / max(1, number - SETTLING + 2)
        popularity[loaded] -= np.log(np.exp(popularity[loaded]).sum() / n_experts)
        popularity = np.round(popularity, _DECIMALS)
        if number >= SETTLING:
            total += load
    _check_reached(total, share, layer)
    return popularity.astype(np.float32)


def _start(chance: NDArray[np.float64], affinity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Popularity [E] with which experts are chosen with these chances [E] by tokens of all topics [topics, E] alike."""
    popularity = np.log(-np.log1p(-chance)) - np.log(np.exp(affinity).mean(axis=0))
    wanted, time = chance.sum(), np.zeros((len(affinity), 1))
    for _ in range(20 if affinity.any() else 0):
        for _ in range(5):  # the time by which so many have come, of each topic: Newton's method in its logarithm
            hazard = np.exp(popularity + affinity + time)
            late = np.exp(-hazard)
            missing = wanted - (1 - late).sum(axis=1, keepdims=True)
            time += np.clip(missing / np.maximum((hazard * late).sum(axis=1, keepdims=True), 1e-9), -1, 1)
        found = np.clip(1 - np.exp(-np.exp(popularity + affinity + time)).mean(axis=0), 1e-300, 1 - 1e-9)
        popularity += np.log(np.log1p(-chance) / np.log1p(-found))
    return np.asarray(popularity)


def _response(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """By what part of itself a chance grows where the popularity grows by one; not below 1/20, to keep steps short."""
    return np.maximum(-(1 - chance) * np.log1p(-chance) / np.maximum(chance, 1e-300), 0.05)


def _basis(popularity: NDArray[np.float64], loaded: NDArray[np.int64], n_groups: int | None) -> NDArray[np.float64]:
    """What may be corrected [loaded experts, terms]: a parabola in the popularity of each group, or each expert."""
    if n_groups is None:
        return np.eye(len(loaded))
    group = loaded * n_groups // len(popularity)
    centred = popularity[loaded] - popularity[loaded].mean()
    member = (group[:, None] == np.unique(group)).astype(np.float64)
    return np.concatenate([member * centred[:, None] ** power for power in range(3)], axis=1)


def _check_reached(load: NDArray[np.float64], share: NDArray[np.float64], layer: int) -> None:
    """Refuse a stated load that the router did not give, up to chance."""
    wanted = share * load.sum()
    missed = np.abs(load - wanted) - _DEVIATION * wanted - _DEVIATIONS * np.sqrt(wanted + 1)
    worst = int(missed.argmax())
    if missed[worst] > 0:
        found = f"{share[worst]:.3g} of the load of layer {layer} for expert {worst}"
        given = load[worst] / max(1.0, load.sum())
        raise ParameterError("load", found, f"a load that the router can give; it gives that expert {given:.3g}")
