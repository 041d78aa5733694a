"""The sequences that the tokens of a step are of: which, how far along, and of what topic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.workload.dynamics import Mixture
from moesim.workload.logits import life_starts, segment_starts, topic_numbers, topics_of


class StepSequences(NamedTuple):
    """Of each token [T] its sequence, its position in that, and the step in which the sequence began."""

    sequence: NDArray[np.int32]
    position: NDArray[np.int32]
    birth: NDArray[np.int64]


class Sequences:
    """Sequences of G ranks of `tokens_per_rank` tokens a step.

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
        n_ranks: int,
        tokens_per_rank: int,
        decodes: bool,
        sequence_tokens: int,
        life: int | None = None,
    ) -> None:
        token = np.arange(n_ranks * tokens_per_rank)
        self._seed, self._decodes, self._life = seed, decodes, life
        self.source = (token // tokens_per_rank).astype(np.int32)
        self._new = 0
        if decodes:
            self._sequence = token.astype(np.int32)
            self._position = np.zeros(len(token), dtype=np.int32)
            if life is None:  # segments of sequences that stay do not all end in the same steps
                segment_starts(seed, self._sequence, self._position)
            else:
                life_starts(seed, life, self._position)
        else:
            per_rank = -(-tokens_per_rank // sequence_tokens)
            within = token % tokens_per_rank
            self._sequence = (self.source * per_rank + within // sequence_tokens).astype(np.int32)
            self._new = n_ranks * per_rank
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
