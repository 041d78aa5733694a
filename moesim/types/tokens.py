"""Which tokens a router sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Draw:
    """All that a random or hashing router may use, so that any token can be recomputed alone."""

    seed: int = 0
    step: int = 0
    layer: int = 0
    first_token: int = 0
    token_ids: NDArray[np.int64] | None = None
    """Vocabulary id of each token of the block, [T], or None."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Who the tokens of one step are: source rank and sequence of each, int32 [T], and vocabulary id, int64 [T]."""

    step: int
    source: NDArray[np.int32]
    sequence: NDArray[np.int32]
    token_ids: NDArray[np.int64] | None = None

    @property
    def n_tokens(self) -> int:
        """T, tokens of the step over all ranks."""
        return len(self.source)
