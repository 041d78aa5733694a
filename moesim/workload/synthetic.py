"""Synthetic tokens with a stated skew; every number can be recomputed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.types import Assignment, Batch
from moesim.workload.direct import DirectSampler
from moesim.workload.dynamics import Bursts, Mixture
from moesim.workload.law import Law
from moesim.workload.logits import fill_local_logits, fill_logits
from moesim.workload.sequences import Batches


class SyntheticTokens:
    """Batches of G ranks of `tokens_per_rank` tokens, and their logits for E experts in L MoE layers.

    Decode: each rank holds `tokens_per_rank` sequences, one token of each a
    step, the same sequences in all steps unless they end after
    `generated_tokens`. Prefill and train: each step brings
    new sequences of `sequence_tokens`, the last of a rank may be short.

    Args:
        zipf_exponent: popularity of the expert of order r is -exponent * ln r; 0 = uniform.
        topic_count: topics over which the sequences are hashed; 0 = none, as with a strength of 0.
        topic_strength: standard deviation of a topic's affinity to an expert, in logits.
        sequence_tokens: of a prompt, in prefill and train.
        context_tokens: cached tokens of a sequence, in decode.
        generated_tokens: in decode, tokens of a sequence, after which another takes its place; None = it stays.
        vocab_size: ids of the vocabulary; their frequencies are Zipf's law, 1 / rank.
        n_zero_experts: logits behind those of the experts, of experts that compute nothing; each is as popular as the
            experts with a load are in the mean, and the others' logits do not depend on them.
        locality: of each layer [L], the probability that a token takes its segment's noise (see `logits`); None = 0.
        mixture: of the topics over the steps in which sequences begin; None = all topics alike.
        half_life_steps: steps after which the popularity's correlation with the start is 0.5; None = it stays.
        bursts: of tokens that turn to few experts; None = none.
        popularity: gives popularities [L, E] for topics of affinities [L, topics, E]; None = by zipf_exponent.
    """

    def __init__(
        self,
        *,
        seed: int,
        n_layers: int,
        n_experts: int,
        n_ranks: int,
        tokens_per_rank: int,
        phase: str,
        sequence_tokens: int,
        zipf_exponent: float = 0.0,
        topic_count: int = 0,
        topic_strength: float = 0.0,
        vocab_size: int = 1,
        context_tokens: int = 0,
        generated_tokens: int | None = None,
        n_zero_experts: int = 0,
        locality: NDArray[np.float64] | None = None,
        mixture: Mixture | None = None,
        half_life_steps: float | None = None,
        bursts: Bursts | None = None,
        popularity: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    ) -> None:
        topics = topic_count > 0 and topic_strength > 0
        n_topics = topic_count if topics else 1  # one row of zeros stands for no topic
        self._seed = seed
        self._batches = Batches(
            seed=seed,
            counts=np.full(n_ranks, tokens_per_rank),
            decodes=phase == "decode",
            sequence_tokens=sequence_tokens,
            context_tokens=context_tokens,
            generated_tokens=generated_tokens,
            vocab_size=vocab_size,
            n_topics=n_topics,
            mixture=mixture,
        )
        self.tokens_per_step = self._batches.tokens_per_step
        self._law = Law(
            seed=seed,
            n_layers=n_layers,
            n_experts=n_experts,
            n_topics=n_topics,
            strength=topic_strength if topics else 0.0,
            popularity=zipf_exponent if popularity is None else popularity,
            n_zero_experts=n_zero_experts,
            half_life_steps=half_life_steps,
            bursts=bursts,
        )
        self._direct = DirectSampler(seed)
        self._locality = np.zeros(n_layers) if locality is None else locality

    def batch(self, step: int) -> Batch:
        """The tokens of a step, in the order of their ranks."""
        return self._batches.at(step)

    def logits(self, batch: Batch, layer: int, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Fill out [last - first, E] with the logits of tokens first..last-1 of a batch in the layer-th MoE layer."""
        popularity, affinity, _ = self._law.at(batch.step, layer)
        row = self._law.rows(batch.step, first, batch.topic[first:last])
        if self._locality[layer] == 0:
            fill_logits(self._seed, batch.step, layer, first, popularity, affinity, row, out)
            return
        sequence, position, _ = self._batches.sequences.at(batch.step, slice(first, last))
        fill_local_logits(
            self._seed,
            batch.step,
            layer,
            first,
            popularity,
            affinity,
            row,
            self._locality[layer],
            sequence,
            position,
            out,
        )

    def experts(self, batch: Batch, layer: int, first: int, last: int, out: NDArray[np.int32]) -> None:
        """Fill out [last - first, K] with the top K of such logits, the best first, drawn directly.

        The law is that of `logits` without locality, the draws are others; see `direct`.
        """
        row = self._law.rows(batch.step, first, batch.topic[first:last])
        self._direct.fill(batch.step, layer, first, self._law.at(batch.step, layer), row, out)

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """The choices of all tokens of a batch, as `experts` draws them. Weights are NaN: no policy may read them."""
        expert = np.empty((batch.n_tokens, top_k), dtype=np.int32)
        self.experts(batch, layer, 0, len(expert), expert)
        return Assignment.of(expert, np.broadcast_to(np.float32(np.nan), expert.shape))

    def manifest(self, n_steps: int) -> dict[str, Any]:  # noqa: ARG002 - the Protocol's
        """Nothing: the scenario says all of synthetic tokens."""
        return {}
