"""Synthetic tokens with a stated skew; every number can be recomputed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.types import Assignment, Batch, EqualSequences
from moesim.workload.direct import DirectSampler
from moesim.workload.logits import (
    fill_local_logits,
    fill_logits,
    popularity_of_layers,
    segment_starts,
    topic_affinities,
    topics_of,
    uniforms_of,
)
from moesim.workload.solve import NEVER


class SyntheticTokens:
    """Batches of G ranks of `tokens_per_rank` tokens, and their logits for E experts in L MoE layers.

    Decode: each rank holds `tokens_per_rank` sequences, one token of each a
    step, the same sequences in all steps. Prefill and train: each step brings
    new sequences of `sequence_tokens`, the last of a rank may be short.

    Args:
        zipf_exponent: popularity of the expert of order r is -exponent * ln r; 0 = uniform.
        topic_count: topics over which the sequences are hashed; 0 = none, as with a strength of 0.
        topic_strength: standard deviation of a topic's affinity to an expert, in logits.
        sequence_tokens: of a prompt, in prefill and train.
        context_tokens: cached tokens of a sequence, in decode.
        vocab_size: ids of the vocabulary; their frequencies are Zipf's law, 1 / rank.
        n_zero_experts: logits behind those of the experts, of experts that compute nothing; each is as popular as the
            experts with a load are in the mean, and the others' logits do not depend on them.
        locality: of each layer [L], the probability that a token takes its segment's noise (see `logits`); None = 0.
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
        n_zero_experts: int = 0,
        locality: NDArray[np.float64] | None = None,
        popularity: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    ) -> None:
        self.tokens_per_step = n_ranks * tokens_per_rank
        self._seed = seed
        if topic_count == 0:
            topic_strength = 0.0
        self._n_topics = topic_count if topic_strength > 0 else 1  # one row of zeros stands for no topic
        self._popularity = np.zeros((n_layers, n_experts), dtype=np.float32)
        self._affinity = np.zeros((n_layers, self._n_topics, n_experts), dtype=np.float32)
        if topic_strength > 0:
            topic_affinities(seed, topic_strength, self._affinity)
        if popularity is None:
            popularity_of_layers(seed, zipf_exponent, self._popularity)
        else:
            self._popularity = popularity(self._affinity)
        if n_zero_experts:
            mean = self._popularity.mean(axis=1, keepdims=True, where=self._popularity > NEVER)
            mean = np.repeat(mean, n_zero_experts, axis=1)
            self._popularity = np.concatenate([self._popularity, mean], axis=1)
            self._affinity = np.pad(self._affinity, ((0, 0), (0, 0), (0, n_zero_experts)))
        self._direct = DirectSampler(seed, self._popularity, self._affinity)
        token = np.arange(self.tokens_per_step)
        self._source = (token // tokens_per_rank).astype(np.int32)
        decodes = phase == "decode"
        self._alike = EqualSequences(decodes=decodes, length=context_tokens if decodes else sequence_tokens)
        self._decodes = np.broadcast_to(np.bool_(decodes), token.shape)
        if decodes:
            self._sequence, self._new_sequences = token.astype(np.int32), 0
            self._context = np.broadcast_to(np.int32(context_tokens), token.shape)
        else:
            per_rank = -(-tokens_per_rank // sequence_tokens)
            within = token % tokens_per_rank // sequence_tokens
            self._sequence = (self._source * per_rank + within).astype(np.int32)
            self._new_sequences = n_ranks * per_rank
            self._context = (token % tokens_per_rank % sequence_tokens).astype(np.int32)
        self._locality = np.zeros(n_layers) if locality is None else locality
        self._position = self._context  # in its sequence, of the tokens of step 0
        if decodes:
            self._position = np.zeros(len(token), dtype=np.int32)
            segment_starts(seed, self._sequence, self._position)  # else all sequences would turn in the same steps
        frequency = 1.0 / np.arange(1, vocab_size + 1)
        self._id_bounds = np.cumsum(frequency) / frequency.sum()

    def batch(self, step: int) -> Batch:
        """The tokens of a step, in the order of their ranks."""
        sequence = self._sequence + np.int32(step * self._new_sequences)
        topic = np.zeros(len(sequence), dtype=np.int32)
        if self._n_topics > 1:
            topics_of(self._seed, self._n_topics, sequence, topic)
        return Batch(
            step=step,
            source=self._source,
            sequence=sequence,
            topic=topic,
            decodes=self._decodes,
            context=self._context,
            token_ids=self.token_ids(step),
            alike=self._alike,
        )

    def token_ids(self, step: int) -> NDArray[np.int64]:
        """Vocabulary ids of the tokens of a step, [T], the most frequent first: 0, 1, 2, ..."""
        u = np.empty(self.tokens_per_step)
        uniforms_of(self._seed, step, u)
        return np.minimum(np.searchsorted(self._id_bounds, u), len(self._id_bounds) - 1).astype(np.int64)

    def logits(self, batch: Batch, layer: int, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Fill out [last - first, E] with the logits of tokens first..last-1 of a batch in the layer-th MoE layer."""
        popularity, affinity, topic = self._popularity[layer], self._affinity[layer], batch.topic[first:last]
        if self._locality[layer] == 0:
            fill_logits(self._seed, batch.step, layer, first, popularity, affinity, topic, out)
            return
        position = self._position[first:last] + np.int32(batch.step if self._alike.decodes else 0)
        locality, sequence = self._locality[layer], batch.sequence[first:last]
        fill_local_logits(
            self._seed, batch.step, layer, first, popularity, affinity, topic, locality, sequence, position, out
        )

    def experts(self, batch: Batch, layer: int, first: int, last: int, out: NDArray[np.int32]) -> None:
        """Fill out [last - first, K] with the top K of such logits, the best first, drawn directly.

        The law is that of `logits` without locality, the draws are others; see `direct`.
        """
        self._direct.fill(batch.step, layer, first, batch.topic[first:last], out)

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """The choices of all tokens of a batch, as `experts` draws them. Weights are NaN: no policy may read them."""
        expert = np.empty((batch.n_tokens, top_k), dtype=np.int32)
        self.experts(batch, layer, 0, len(expert), expert)
        return Assignment.of(expert, np.broadcast_to(np.float32(np.nan), expert.shape))

    def manifest(self, n_steps: int) -> dict[str, Any]:  # noqa: ARG002 - the Protocol's
        """Nothing: the scenario says all of synthetic tokens."""
        return {}
