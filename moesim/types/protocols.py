"""What stages hand to one another as callables."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moesim.types.assignment import Assignment
from moesim.types.tokens import Batch, Draw


class Router(Protocol):
    """A routing strategy: logits in, choices out."""

    def __call__(
        self,
        logits: NDArray[np.float32],
        top_k: int,
        parameters: Any,
        state: Any,
        draw: Draw,
    ) -> Assignment:
        """Route logits [T, E] to at most `top_k` distinct experts a token."""


class TokenSource(Protocol):
    """Whose tokens: the batches of a run and their logits."""

    def batch(self, step: int) -> Batch:
        """The tokens of a step."""

    def logits(self, step: int, layer: int, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Fill out [last - first, E] with the logits of tokens first..last-1 in the layer-th MoE layer."""
