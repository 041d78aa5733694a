"""What experts the tokens of a step want: the popularity and the affinities of a layer, as they are in that step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.workload.dynamics import (
    KEYFRAME_HALF_LIVES,
    TURNED_DOWN,
    Bursts,
    burst_at,
    burst_experts,
    burst_tokens,
    drift,
)
from moesim.workload.logits import popularity_of_layers, topic_affinities
from moesim.workload.solve import NEVER

STANDING = -1
"""Version of a law that does not depend on the step."""


class LayerLaw(NamedTuple):
    """Popularity [E] and affinities [rows, E] of a layer in a step; laws of one version of a layer are equal."""

    popularity: NDArray[np.float32]
    affinity: NDArray[np.float32]
    version: int


class Law:
    """The popularity and affinities of L layers, topics and E experts, with their drift and bursts.

    Args:
        seed: of the run.
        n_layers: L.
        n_experts: E.
        n_topics: topics; 1 = none.
        strength: standard deviation of a topic's affinity; 0 = no topics.
        popularity: an exponent of Zipf's law, or what gives popularities [L, E] for affinities [L, topics, E].
        n_zero_experts: see `SyntheticTokens`.
        half_life_steps: of the popularity's correlation with the start; None = no drift.
        bursts: None = none.
    """

    def __init__(
        self,
        *,
        seed: int,
        n_layers: int,
        n_experts: int,
        n_topics: int,
        strength: float,
        popularity: float | Callable[[NDArray[np.float32]], NDArray[np.float32]],
        n_zero_experts: int = 0,
        half_life_steps: float | None = None,
        bursts: Bursts | None = None,
    ) -> None:
        self._seed, self._n_topics, self._bursts = seed, n_topics, bursts
        self._n_experts = n_experts
        self._frame_steps = None if half_life_steps is None else half_life_steps * KEYFRAME_HALF_LIVES
        self.popularity = np.zeros((n_layers, n_experts), dtype=np.float32)
        self.affinity = np.zeros((n_layers, n_topics, n_experts), dtype=np.float32)
        if strength > 0:
            topic_affinities(seed, strength, self.affinity)
        if callable(popularity):
            self.popularity = popularity(self.affinity)
        else:
            popularity_of_layers(seed, popularity, self.popularity)
        self._loaded = [np.flatnonzero(of_layer > NEVER) for of_layer in self.popularity]
        if n_zero_experts:
            mean = self.popularity.mean(axis=1, keepdims=True, where=self.popularity > NEVER)
            mean = np.repeat(mean, n_zero_experts, axis=1)
            self.popularity = np.concatenate([self.popularity, mean], axis=1)
            self.affinity = np.pad(self.affinity, ((0, 0), (0, 0), (0, n_zero_experts)))

    def at(self, step: int, layer: int) -> LayerLaw:
        """The law of a layer in a step. In a burst rows `topics` to 2 `topics` - 1 are those of tokens that turn."""
        popularity, affinity, version = self.popularity[layer], self.affinity[layer], STANDING
        if self._frame_steps is not None:
            still, popularity = popularity, np.empty_like(popularity)
            drift(self._seed, layer, step / self._frame_steps, self._loaded[layer], still, popularity)
            version = step
        number = -1 if self._bursts is None else burst_at(self._seed, self._bursts, step)
        if self._bursts is not None and number >= 0:
            other = np.full(affinity.shape[1], TURNED_DOWN)
            other[burst_experts(self._seed, self._bursts, number, layer, self._n_experts)] = 0
            affinity, version = np.concatenate([affinity, affinity + other]), step
        return LayerLaw(popularity, affinity, version)

    def rows(self, step: int, first: int, topic: NDArray[np.int32]) -> NDArray[np.int32]:
        """The row of the affinities of tokens first, first + 1, ... of topics [T]."""
        if self._bursts is None or burst_at(self._seed, self._bursts, step) < 0:
            return topic
        turned = np.empty(len(topic), dtype=np.bool_)
        burst_tokens(self._seed, step, first, self._bursts.share, turned)
        return (topic + self._n_topics * turned).astype(np.int32)
