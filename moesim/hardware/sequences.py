"""Sequences of several lengths as the kernels of attention take them, and the tokens that each sees of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.types import AttentionWork, LayerShape, Sequences

Numbers = NDArray[np.float64]


class Requests(NamedTuple):
    """The sequences of each attention group that decode, float64 [A] each.

    `number` of them; the tokens that they read in the `mean`, and those of the
    `longest`; `alike` is the number where all read equally many, else NaN.
    """

    number: Numbers
    mean: Numbers
    longest: Numbers
    alike: Numbers


def requests_of(decodes: Sequences, most_tokens: float = np.inf) -> Requests:
    """What one kernel reads of the caches of all sequences that decode.

    A token reads itself at least, and at most `most_tokens`.
    """
    read = np.minimum(np.maximum(decodes.cached_tokens, 1), most_tokens)
    number, total = decodes.count.sum(axis=0), (decodes.count * read).sum(axis=0)
    longest = np.where(decodes.count > 0, read, 0).max(axis=0, initial=0)
    return Requests(
        number=number.astype(np.float64),
        mean=total / np.maximum(number, 1),
        longest=longest.astype(np.float64),
        alike=np.where(longest * number == total, number, np.nan),
    )


def lengths_of(prompts: Sequences) -> tuple[Numbers, Numbers]:
    """How many prompts, [A], of how many tokens, [A], where all are alike and nothing is cached; else NaN prompts."""
    present = prompts.count > 0
    alike = (present.sum(axis=0) <= 1) & ~(present & (prompts.cached_tokens > 0)).any(axis=0)
    lengths = np.where(present, prompts.new_tokens, 0).max(axis=0, initial=0)
    return np.where(alike, prompts.count.sum(axis=0), np.nan), lengths.astype(np.float64)


def seen_by(layer: LayerShape, work: AttentionWork) -> AttentionWork:
    """The step as the layer's attention sees it: of sequences cut into chunks, each chunk is one of its own."""
    if not layer.chunk:
        return work
    prompts, decodes = (_in_chunks(own, layer.chunk) for own in (work.prompts, work.decodes))
    return replace(work, prompts=prompts, decodes=decodes)


def limit_of(layer: LayerShape, lengths: NDArray[np.float64] | NDArray[np.int64]) -> float:
    """Tokens that a new token attends to at most, in its window or as an indexer selects; 0 where no length is more."""
    limit = min((n for n in (layer.window, layer.index_top_k) if n), default=0)
    return float(limit) if limit < lengths.max(initial=0) else 0.0


def pairs_of(own: Sequences) -> Numbers:
    """Pairs of a new token and one that it may attend to, itself included, of each attention group, float64 [A]."""
    new = own.new_tokens.astype(np.float64)
    return np.asarray((own.count * new * (own.cached_tokens + (new + 1.0) / 2.0)).sum(axis=0))


def _in_chunks(own: Sequences, chunk: int) -> Sequences:
    """The rest of the chunk that a sequence stands in, whole chunks after it, and what is left."""
    start = own.cached_tokens % chunk
    first = np.minimum(own.new_tokens, chunk - start)
    whole, last = np.divmod(own.new_tokens - first, chunk)
    nothing = np.zeros_like(start)
    made = Sequences(
        count=np.concatenate([own.count, own.count * whole, own.count * (last > 0)]),
        new_tokens=np.concatenate([first, np.full_like(first, chunk), last]),
        cached_tokens=np.concatenate([start, nothing, nothing]),
    )
    rows = made.count.any(axis=1)
    return Sequences(count=made.count[rows], new_tokens=made.new_tokens[rows], cached_tokens=made.cached_tokens[rows])
