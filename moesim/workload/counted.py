"""Replay of recorded counts: tokens whose choices give every expert its recorded load.

Which tokens share which experts was not recorded, so it is drawn: of all ways
to deal distinct experts to tokens with these loads, one at random (swaps of two
choices, as in the sampling of contingency tables with fixed margins, Diaconis
and Gangolli 1995). Loads and expert times are those of the recording, what is
sent between GPUs is an estimate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import RECORDED_COUNTS, key, permutation, word64
from moesim.errors import InputError
from moesim.types import Assignment, Batch, CountsTrace, EqualSequences
from moesim.workload.choices_alone import ChoicesAlone
from moesim.workload.recorded import no_choices, recorded_layers
from moesim.workload.trace_steps import contexts

_SWAPS = 3
"""Attempted swaps for each choice."""


class RecordedCounts(ChoicesAlone):
    """Tokens with the recorded loads of each step, from the first again after the last.

    With `tokens_per_rank` a step has tokens_per_rank x n_ranks tokens and the
    shares of the recorded loads; without, as many tokens as were counted.
    `rows` [L] as of `RecordedTokens`.
    """

    no_logits = "a recording of counts holds no logits"

    def __init__(
        self,
        trace: CountsTrace,
        *,
        seed: int,
        n_ranks: int,
        tokens_per_rank: int | None,
        top_k: int,
        alike: EqualSequences,
        rows: NDArray[np.int64],
    ) -> None:
        self.trace, self._seed, self._n_ranks, self._top_k = trace, seed, n_ranks, top_k
        self._alike, self._row_of_layer = alike, rows
        total = trace.count.sum(axis=2).max(axis=1)
        self._scaled = tokens_per_rank is not None
        counted = np.maximum(-(-total // top_k), trace.count.max(axis=(1, 2)))
        self._tokens = np.full(trace.n_steps, tokens_per_rank * n_ranks) if tokens_per_rank is not None else counted
        self.tokens_per_step = int(self._tokens.max())

    def batch(self, step: int) -> Batch:
        """The tokens of a step, dealt to the ranks in equal runs; each is a sequence of its own."""
        n_tokens = int(self._tokens[step % self.trace.n_steps])
        source = (np.arange(n_tokens) * self._n_ranks // n_tokens).astype(np.int32)
        return Batch(
            step=step,
            source=source,
            sequence=np.arange(n_tokens, dtype=np.int32),
            topic=np.broadcast_to(np.int32(0), source.shape),
            decodes=np.broadcast_to(np.bool_(self._alike.decodes), source.shape),
            context=contexts(source, self._alike),
            alike=self._alike,
        )

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """Choices that give each expert of the layer-th MoE layer its load; their weights are NaN."""
        row = self._row_of_layer[layer]
        if row < 0:
            return no_choices(batch.n_tokens, top_k)
        count = self.trace.count[batch.step % self.trace.n_steps, row]
        if self._scaled:
            count = scaled(count, batch.n_tokens * top_k, batch.n_tokens)
        expert = np.full((batch.n_tokens, top_k), -1, dtype=np.int32)
        deal(self._seed, batch.step, layer, count, expert)
        return Assignment.of(expert, np.full(expert.shape, np.nan, dtype=np.float32))

    def manifest(self, n_steps: int) -> dict[str, Any]:
        """How often the steps go through the trace, and what of the run is estimated."""
        said = {
            "trace_passes": n_steps / self.trace.n_steps,
            "bytes": "estimated: the recording holds counts, and which experts a token combines is drawn",
        }
        return said | recorded_layers(self.trace.n_layers, len(self._row_of_layer))


def scaled(count: NDArray[np.int64], total: int, limit: int) -> NDArray[np.int64]:
    """Counts in the same proportions that sum to `total`, by largest remainders, none above `limit`.

    Raises:
        InputError: an expert has more than `limit`, as no expert that a token chooses once can have.
    """
    share = count / max(1, int(count.sum())) * total
    out = np.floor(share).astype(np.int64)
    if len(out) and out.max() > limit:
        raise InputError(f"found an expert with {out.max() / limit:.2f} assignments a token, wanted at most 1")
    left = int(total - out.sum()) if count.any() else 0
    order = np.argsort(out - share, kind="stable")
    order = order[out[order] < limit]
    out[order[:left]] += 1
    return out


@njit
def deal(seed: int, step: int, layer: int, count: NDArray[np.int64], out: NDArray[np.int32]) -> None:
    """Deal experts to tokens: fill out [T, K], which is -1, so that each expert occurs count [E] times, once a token.

    No count may be above T, nor their sum above T K.
    """
    n_tokens, top_k = out.shape
    order = np.empty(len(count), dtype=np.int64)
    permutation(key(seed, RECORDED_COUNTS, step, layer, 0), order)
    place = 0
    for e in order:
        for _ in range(count[e]):  # at most T in a row, so no token gets one twice
            out[place % n_tokens, place // n_tokens] = e
            place += 1
    word = key(seed, RECORDED_COUNTS, step, layer, 1)
    cells = np.uint64(n_tokens * top_k)
    for swap in range(_SWAPS * n_tokens * top_k):
        draw = word64(word, swap)
        one = int((draw >> np.uint64(32)) % cells)
        other = int((draw & np.uint64(0xFFFFFFFF)) % cells)
        a, i, b, j = one // top_k, one % top_k, other // top_k, other % top_k
        mine, yours = out[a, i], out[b, j]
        if a == b or mine == yours:
            continue
        fits = True
        for k in range(top_k):
            if (yours >= 0 and out[a, k] == yours) or (mine >= 0 and out[b, k] == mine):
                fits = False
        if fits:
            out[a, i], out[b, j] = yours, mine
