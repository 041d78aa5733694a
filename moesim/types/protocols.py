"""What stages hand to one another as callables."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.types.assignment import Assignment
from moesim.types.placement import Placement, Topology
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
    """Where the tokens of a run come from: its batches, and their logits or choices.

    A source that gives logits is routed by the run's strategy. One that gives
    choices has a router of its own (a recording), or draws them by the law of
    the logits.
    """

    @property
    def tokens_per_step(self) -> int:
        """T, tokens of a step over all ranks."""

    def batch(self, step: int) -> Batch:
        """The tokens of a step."""

    def logits(self, batch: Batch, layer: int, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Fill out [last - first, E] with the logits of tokens first..last-1 of a batch in the layer-th MoE layer."""

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """The `top_k` choices of each token of a batch in the layer-th MoE layer."""

    def manifest(self, n_steps: int) -> dict[str, Any]:
        """What a manifest says of the tokens of so many steps, beyond the file that they rest on."""


class Planner(Protocol):
    """A planner of placements: which GPU holds which copy of which expert."""

    def __call__(self, load: NDArray[np.float64] | None, topology: Topology, current: Placement | None) -> Placement:
        """Place the experts of all MoE layers.

        Args:
            load: assignments of each expert in the past, [L, E]; None = nothing is known.
            topology: what there is to place, and where.
            current: the placement until now; None = there is none.
        """


class ReplicaChoice(Protocol):
    """The choice of the copy of an expert that serves an assignment."""

    def __call__(
        self,
        served: NDArray[np.int32],
        source: NDArray[np.int32],
        placement: Placement,
        layer: int,
        usable: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int32]:
        """The slot that serves each assignment, int32 [T, K], -1 where none does.

        Args:
            served: [T, K] expert or -1.
            source: [T] rank of each token.
            placement: where the copies are.
            layer: index among the MoE layers.
            usable: which slots take anything, [S]; None = all.
        """
