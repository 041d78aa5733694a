"""Tokens whose choices a pattern deals."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.types import Assignment, Batch
from moesim.workload.choices_alone import ChoicesAlone
from moesim.workload.patterns import Dealer
from moesim.workload.sequences import Batches


class DealtTokens(ChoicesAlone):
    """Batches whose choices a pattern deals; see `patterns`.

    Args:
        dealer: of the pattern.
        batches: the tokens of a step, whose ranks have as many as the pattern says.
        n_groups: expert-parallel groups, of equally many ranks in their order.
        n_ranks: source ranks in all.
    """

    no_logits = "a pattern deals choices, and has no logits"

    def __init__(self, dealer: Dealer, batches: Batches, *, n_groups: int, n_ranks: int) -> None:
        self.tokens_per_step = batches.tokens_per_step
        self._dealer, self._batches = dealer, batches
        first_rank = np.arange(n_groups + 1) * (n_ranks // n_groups)
        self._bounds = np.searchsorted(batches.sequences.source, first_rank)

    def batch(self, step: int) -> Batch:
        """The tokens of a step, in the order of their ranks."""
        return self._batches.at(step)

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """The experts of all tokens of a batch. Weights are NaN: no policy may read them."""
        expert = np.empty((batch.n_tokens, top_k), dtype=np.int32)
        for group, (first, last) in enumerate(zip(self._bounds[:-1], self._bounds[1:], strict=True)):
            self._dealer.fill(batch.step, layer, group, expert[first:last])
        return Assignment.of(expert, np.broadcast_to(np.float32(np.nan), expert.shape))

    def manifest(self, n_steps: int) -> dict[str, Any]:  # noqa: ARG002 - the Protocol's
        """Nothing: the scenario says all of a pattern."""
        return {}
