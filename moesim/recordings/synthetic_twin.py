"""Tokens that moesim's generator draws from a fit, to be held beside the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.workload import SyntheticTokens, solve_layer


def draw_choices(
    shares: NDArray[np.float64],
    top_k: int,
    *,
    seed: int,
    n_sequences: int,
    sequence_tokens: int,
    topic_count: int = 0,
    topic_strength: float = 0.0,
    locality: Sequence[float] | None = None,
    popularity: dict[float, NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Choices int32 [L, T, K], the sequence [T] and the topic [T] of T tokens in whole sequences, one after another.

    Args:
        shares: of each expert in its layer's load, [L, E].
        top_k: K; the K largest logits are chosen.
        seed: of the draws.
        n_sequences: how many sequences.
        sequence_tokens: tokens of each.
        topic_count: topics of the sequences, as in `SyntheticTokens`.
        topic_strength: of the topics.
        locality: of each layer.
        popularity: what was solved, by topic strength, for further calls with the same shares, seed and topics.
    """
    n_layers, n_experts = shares.shape
    solved = {} if popularity is None else popularity

    def solve(affinity: NDArray[np.float32]) -> NDArray[np.float32]:
        if topic_strength not in solved:
            layers = [solve_layer(0, i, shares[i], top_k, affinity[i], _choices(top_k)) for i in range(n_layers)]
            solved[topic_strength] = np.stack(layers)
        return solved[topic_strength]

    source = SyntheticTokens(
        seed=seed,
        n_layers=n_layers,
        n_experts=n_experts,
        n_ranks=1,
        tokens_per_rank=n_sequences * sequence_tokens,
        phase="prefill",
        sequence_tokens=sequence_tokens,
        topic_count=topic_count,
        topic_strength=topic_strength,
        locality=None if locality is None else np.asarray(locality, dtype=np.float64),
        popularity=solve,
    )
    batch = source.batch(0)
    logits = np.empty((batch.n_tokens, n_experts), dtype=np.float32)
    expert = np.empty((n_layers, batch.n_tokens, top_k), dtype=np.int32)
    for layer in range(n_layers):
        source.logits(batch, layer, 0, batch.n_tokens, logits)
        expert[layer] = _largest(logits, top_k)
    return expert, batch.sequence, batch.topic


def _choices(top_k: int) -> Callable[[NDArray[np.float32], int, int], NDArray[np.int32]]:
    """The router of a plain top k, as `solve_layer` asks for it."""
    return lambda logits, _round, _layer: _largest(logits, top_k)


def _largest(logits: NDArray[np.float32], top_k: int) -> NDArray[np.int32]:
    """The columns of the K largest, the largest first, [T, K]."""
    n_experts = logits.shape[1]
    found = np.argpartition(logits, n_experts - top_k, axis=1)[:, n_experts - top_k :]
    order = np.argsort(-np.take_along_axis(logits, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1).astype(np.int32)
