"""The tokens of a step: of which rank and sequence each is, how far along, and of what topic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.types import Batch, EqualSequences
from moesim.workload.dynamics import Mixture
from moesim.workload.logits import life_starts, segment_starts, topic_numbers, topics_of, uniforms_of


class StepSequences(NamedTuple):
    """Of each token [T] its sequence, its position in that, and the step in which the sequence began."""

    sequence: NDArray[np.int32]
    position: NDArray[np.int32]
    birth: NDArray[np.int64]


class Sequences:
    """Sequences of ranks with `counts` [G] tokens a step.

    Decode: each place of a rank holds a sequence, of which each step has a token.
    With `life` a sequence has so many tokens, and another one takes its place;
    in which step is random for each place. Else they stay.
    Prefill and train: each step brings new sequences of `sequence_tokens`, the
    last of a rank may be short.
    """

    def __init__(
        self,
        *,
        seed: int,
        counts: NDArray[np.int64],
        decodes: bool,
        sequence_tokens: int,
        life: int | None = None,
    ) -> None:
        token = np.arange(counts.sum())
        self._seed, self._decodes, self._life = seed, decodes, life
        self.source = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._new = 0
        if decodes:
            self._sequence = token.astype(np.int32)
            self._position = np.zeros(len(token), dtype=np.int32)
            if life is None:  # segments of sequences that stay do not all end in the same steps
                segment_starts(seed, self._sequence, self._position)
            else:
                life_starts(seed, life, self._position)
        else:
            per_rank = -(-int(counts.max()) // sequence_tokens)
            within = token - (np.cumsum(counts) - counts)[self.source]
            self._sequence = (self.source * per_rank + within // sequence_tokens).astype(np.int32)
            self._new = len(counts) * per_rank
            self._position = (within % sequence_tokens).astype(np.int32)

    @property
    def first_positions(self) -> NDArray[np.int32]:
        """Positions of the tokens of step 0, [T]; in prefill and train those of every step."""
        return self._position

    def at(self, step: int, tokens: slice = slice(None)) -> StepSequences:
        """Those of a step, or of some of its tokens."""
        sequence, position = self._sequence[tokens], self._position[tokens]
        if not self._decodes:
            birth = np.broadcast_to(np.int64(step), len(sequence))
            return StepSequences(sequence + np.int32(step * self._new), position, birth)
        position = position + np.int32(step)
        if self._life is None:
            return StepSequences(sequence, position, np.broadcast_to(np.int64(0), len(sequence)))
        number, position = np.divmod(position, np.int32(self._life))
        later = (sequence + number.astype(np.int64) * len(self._sequence)) % 2**31
        return StepSequences(later.astype(np.int32), position, step - position.astype(np.int64))

    def topics(self, of: StepSequences, n_topics: int, mixture: Mixture | None) -> NDArray[np.int32]:
        """The topic [T] of each token's sequence: drawn by a hash of it, from the mixture when it began."""
        topic = np.zeros(len(of.sequence), dtype=np.int32)
        if n_topics == 1:
            return topic
        if mixture is None:
            topics_of(self._seed, n_topics, of.sequence, topic)
            return topic
        number = np.empty(len(topic))
        topic_numbers(self._seed, of.sequence, number)
        births = np.unique(of.birth)
        for birth in births:
            own = slice(None) if len(births) == 1 else of.birth == birth
            topic[own] = np.minimum(np.searchsorted(mixture.at(int(birth)), number[own]), n_topics - 1)
        return topic


class Batches:
    """The batches of synthetic tokens.

    Args:
        seed: of the run.
        counts: tokens of each rank in a step, [G].
        decodes: whether each token is the next of its sequence, or part of a prompt.
        sequence_tokens: of a prompt.
        context_tokens: cached tokens of a sequence, in decode.
        generated_tokens: see `Sequences`, `life`.
        vocab_size: ids of the vocabulary; their frequencies are Zipf's law, 1 / rank.
        n_topics: topics of the sequences; 1 = none.
        mixture: of the topics; None = all alike.
    """

    def __init__(
        self,
        *,
        seed: int,
        counts: NDArray[np.int64],
        decodes: bool,
        sequence_tokens: int,
        context_tokens: int = 0,
        generated_tokens: int | None = None,
        vocab_size: int = 1,
        n_topics: int = 1,
        mixture: Mixture | None = None,
    ) -> None:
        self.tokens_per_step = int(counts.sum())
        self._seed, self._n_topics, self._mixture = seed, n_topics, mixture
        self.sequences = Sequences(
            seed=seed, counts=counts, decodes=decodes, sequence_tokens=sequence_tokens, life=generated_tokens
        )
        self._alike = EqualSequences(decodes=decodes, length=context_tokens if decodes else sequence_tokens)
        self._decodes = np.broadcast_to(np.bool_(decodes), self.tokens_per_step)
        self._context = self.sequences.first_positions
        if decodes:
            self._context = np.broadcast_to(np.int32(context_tokens), self.tokens_per_step)
        frequency = 1.0 / np.arange(1, vocab_size + 1)
        self._id_bounds = np.cumsum(frequency) / frequency.sum()

    def at(self, step: int) -> Batch:
        """The tokens of a step, in the order of their ranks."""
        sequences = self.sequences.at(step)
        return Batch(
            step=step,
            source=self.sequences.source,
            sequence=sequences.sequence,
            topic=self.sequences.topics(sequences, self._n_topics, self._mixture),
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
