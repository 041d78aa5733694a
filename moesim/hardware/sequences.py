"""Sequences of several lengths as the kernels of attention take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.types import Sequences

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


def requests_of(decodes: Sequences) -> Requests:
    """What one kernel reads of the caches of all sequences that decode. A token reads itself at least."""
    read = np.maximum(decodes.cached_tokens, 1)
    count = decodes.count.sum(axis=0)
    present = decodes.count > 0
    mean = (decodes.count * read).sum(axis=0) / np.maximum(count, 1)
    longest = np.where(present, read, 0).max(axis=0, initial=0)
    alike = np.where(longest * count == (decodes.count * read).sum(axis=0), count, np.nan)
    return Requests(count.astype(np.float64), mean, longest.astype(np.float64), alike)


def lengths_of(prompts: Sequences) -> tuple[Numbers, Numbers]:
    """How many prompts, [A], of how many tokens, [A], where all are alike and nothing is cached; else NaN prompts."""
    present = prompts.count > 0
    alike = (present.sum(axis=0) <= 1) & ~(present & (prompts.cached_tokens > 0)).any(axis=0)
    lengths = np.where(present, prompts.new_tokens, 0).max(axis=0, initial=0)
    return np.where(alike, prompts.count.sum(axis=0), np.nan), lengths.astype(np.float64)
