"""What stages hand to one another as callables."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.types.assignment import Assignment
from moesim.types.tokens import Batch, Draw

P_contra = TypeVar("P_contra", contravariant=True)


class Router(Protocol[P_contra]):
    """A routing strategy's function: logits in, choices out."""

    def __call__(
        self,
        logits: NDArray[np.float32],
        top_k: int,
        parameters: P_contra,
        state: NDArray[np.float32] | None,
        draw: Draw,
    ) -> Assignment:
        """Route logits [T, E] to at most `top_k` distinct experts a token; `state` [E] biases the selection."""


class TokenSource(Protocol):
    """Whose tokens: the batches of a run and their logits."""

    def batch(self, step: int) -> Batch:
        """The tokens of a step."""

    def logits(self, step: int, layer: int, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Fill out [last - first, E] with the logits of tokens first..last-1 in the layer-th MoE layer."""
