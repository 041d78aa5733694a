"""What a routing strategy is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError, ParameterError
from moesim.types import Assignment, Draw, Router

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True)
class NoParameters:
    """Of a strategy that has none."""


P = TypeVar("P", bound="DataclassInstance")


def _none(_: object) -> int:
    return 0


def _never(_: object) -> bool:
    return False


def _all_of_one(_: object) -> tuple[int, int]:
    return 1, 1


@dataclass(frozen=True, kw_only=True)
class Strategy(Generic[P]):
    """A router with the type P of its parameters, and what others may ask it.

    Attributes:
        name: by which scenarios and `route` find it.
        route: `(logits [T, E], top_k, parameters, state, draw) -> Assignment`.
        parameters: P, a frozen dataclass of numbers with defaults.
        defaults: replace those of P.
        at_inference: replace the defaults in a scenario whose phase is not train: what the router does in training
            only.
        scope: "token" may be given blocks of tokens, "batch" needs all of a layer.
        takes_bias: `state` may be a float32 [E] that is added to the scores for the selection only.
        obeys_mask: an expert whose logit is -inf is not chosen while there are others.
        check: `(n_experts, top_k, parameters)`, raises ParameterError with what would be right.
        zero_experts: how many of the last logits are experts that compute nothing.
        order_only: whether the choices are the `top_k` largest logits, in order.
        by_sigmoid: whether scores are sigmoids of the logits; else probabilities.
        groups: (kept, all): a token is limited to so many of all equal groups of consecutive experts.
        with_groups: `(parameters, kept, all)`, the parameters that limit a token to groups; None = the router cannot.
    """

    name: str
    route: Router[P]
    parameters: type[P]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    at_inference: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "token"
    takes_bias: bool = False
    obeys_mask: bool = True
    check: Callable[[int, int, P], None] | None = None
    zero_experts: Callable[[P], int] = _none
    order_only: Callable[[P], bool] = _never
    by_sigmoid: Callable[[P], bool] = _never
    groups: Callable[[P], tuple[int, int]] = _all_of_one
    with_groups: Callable[[P, int, int], P] | None = None

    def validate(self, n_experts: int, top_k: int, parameters: P) -> None:
        """Refuse sizes and parameters that this router cannot work with.

        Raises:
            ParameterError: what would be right.
        """
        if not 1 <= top_k <= n_experts:
            raise ParameterError("top_k", top_k, f"1 to the {n_experts} experts")
        if self.check is not None:
            self.check(n_experts, top_k, parameters)


def checked_router(name: str, function: Router[P]) -> Router[P]:
    """A router of the user's own whose assignments are checked and of the usual types: kernels trust their ids."""

    def route(
        logits: NDArray[np.float32], top_k: int, parameters: P, state: NDArray[np.float32] | None, draw: Draw
    ) -> Assignment:
        n_tokens, n_experts = logits.shape
        assignment = function(logits, top_k, parameters, state, draw)
        wrong = _wrong_with(assignment, n_tokens, n_experts)
        if wrong:
            raise InputError(f"strategy {name}: its router returned {wrong}")
        expert, weight = assignment.expert, assignment.weight
        if expert.dtype == np.int32 and weight.dtype == np.float32:
            return assignment
        return Assignment.of(expert.astype(np.int32), weight.astype(np.float32))

    return route


def _wrong_with(assignment: object, n_tokens: int, n_experts: int) -> str:
    """What was found and what would be right, "" where nothing is wrong."""
    if not isinstance(assignment, Assignment):
        return f"a {type(assignment).__name__}, wanted an Assignment"
    expert, weight = assignment.expert, assignment.weight
    if expert.dtype.kind not in "iu" or expert.ndim != 2 or len(expert) != n_tokens:
        return f"experts {expert.dtype} of shape {expert.shape}, wanted whole numbers of shape ({n_tokens}, choices)"
    if weight.dtype.kind != "f" or weight.shape != expert.shape:
        return f"weights {weight.dtype} of shape {weight.shape}, wanted numbers of shape {expert.shape}"
    if expert.size and not -1 <= expert.min() <= expert.max() < n_experts:
        odd = expert[(expert < -1) | (expert >= n_experts)][0]
        return f"expert {odd}, wanted 0 to {n_experts - 1}, or -1 for none"
    ordered = np.sort(expert, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        token = int(np.flatnonzero(twice.any(axis=1))[0])
        return f"an expert twice for token {token}, wanted each once"
    return ""
