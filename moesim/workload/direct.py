"""Expert ids of synthetic tokens without their logits: the same law, many times faster.

The k largest of popularity + affinity + Gumbel noise, in order, are a
Plackett-Luce draw: the first in proportion to exp(popularity + affinity), each
next one likewise among those that are left (see `logits`). Drawing with
replacement from that law and leaving out what was drawn before gives the same.
One alias table per layer and topic makes a draw a look-up.

Where one expert has nearly all of the probability the repeats would not end.
So after a number of them the rest of a token's choices are the largest of its
logits among the experts that are left. That is exact as well: what comes next
depends on the choices so far alone, and the logits' noise is of another stream.

The choices of a token for a smaller k are the first ones of those for a larger.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.alias import alias_draw, fill_alias_table
from moesim.compiled.jit import njit
from moesim.compiled.random import DIRECT, key, word64
from moesim.compiled.topk import top_k_of
from moesim.errors import InputError
from moesim.workload.law import LayerLaw
from moesim.workload.logits import fill_logits

MAX_REPEATS = 64
"""Repeats of a token after which its logits decide; at 256 experts they take a fifth of the time that these do."""


class DirectSampler:
    """Draws the top k of the synthetic logits of layers, topics and E experts.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._layers: dict[int, tuple[int, NDArray[np.uint64], int]] = {}
        """Of a layer the version of its law, its tables, and how many experts any topic wants."""

    def fill(
        self,
        step: int,
        layer: int,
        first: int,
        law: LayerLaw,
        topic: NDArray[np.int32],
        out: NDArray[np.int32],
    ) -> None:
        """Fill out [T, K] with the experts of tokens first, first + 1, ..., of topics [T], the best choice first.

        With affinities and popularity finite, or -inf for an expert that no token chooses.

        Raises:
            InputError: logits that are NaN or +inf, or a topic that wants fewer than K experts.
        """
        popularity, affinity, version = law
        if self._layers.get(layer, (None,))[0] != version:  # threads work on different layers
            wanted = int(np.isfinite(popularity + affinity).sum(axis=1).min())
            self._layers[layer] = version, alias_tables(popularity, affinity), wanted
        _, tables, wanted = self._layers[layer]
        if out.shape[1] > wanted:
            raise InputError(f"top_k: found {out.shape[1]}, wanted at most the {wanted} experts that a topic wants")
        fill_choices(self._seed, step, layer, first, popularity, affinity, tables, topic, MAX_REPEATS, out)


def alias_tables(popularity: NDArray[np.float32], affinity: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Alias tables uint64 [topics, E] of a layer's popularity [E] and affinity [topics, E].

    Raises:
        InputError: NaN or +inf among the logits, or a topic that wants no expert.
    """
    logits = (popularity + affinity).astype(np.float64)
    if np.isnan(logits).any() or np.isposinf(logits).any() or np.isneginf(logits).all(axis=1).any():
        raise InputError("popularity + affinity: found NaN, +inf or only -inf, wanted finite numbers (-inf = never)")
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    tables = np.empty(logits.shape, dtype=np.uint64)
    for own, table in zip(weight, tables, strict=True):
        fill_alias_table(own, table)
    return tables


@njit
def fill_choices(
    seed: int,
    step: int,
    layer: int,
    first: int,
    popularity: NDArray[np.float32],
    affinity: NDArray[np.float32],
    tables: NDArray[np.uint64],
    topic: NDArray[np.int32],
    max_repeats: int,
    out: NDArray[np.int32],
) -> None:
    """Fill out [T, K] from alias tables [topics, E] of popularity [E] + affinity [topics, E].

    Every topic has K experts at least whose logits are not -inf.
    """
    n_experts, top_k = tables.shape[1], out.shape[1]
    last_token = np.full(n_experts, -1, dtype=np.int64)  # which token of the block chose an expert last
    for t in range(out.shape[0]):
        word = key(seed, DIRECT, step, layer, first + t)
        table = tables[topic[t]]
        chosen, draw = 0, 0
        while chosen < top_k and draw - chosen < max_repeats:
            e = alias_draw(table, word64(word, draw))
            draw += 1
            out[t, chosen] = e
            if last_token[e] != t:
                last_token[e] = t
                chosen += 1
        if chosen < top_k:
            _choose_by_logits(
                seed, step, layer, first + t, popularity, affinity, topic[t : t + 1], out[t, :chosen], out[t, chosen:]
            )


@njit
def _choose_by_logits(
    seed: int,
    step: int,
    layer: int,
    token: int,
    popularity: NDArray[np.float32],
    affinity: NDArray[np.float32],
    topic: NDArray[np.int32],
    taken: NDArray[np.int32],
    rest: NDArray[np.int32],
) -> None:
    """Fill rest with the experts of the token's largest logits, in order, without those taken."""
    logits = np.empty((1, popularity.shape[0]), dtype=np.float32)
    fill_logits(seed, step, layer, token, popularity, affinity, topic, logits)
    for e in taken:
        logits[0, e] = -np.inf
    top_k_of(logits[0], rest, np.empty(rest.shape[0], dtype=np.float32))
