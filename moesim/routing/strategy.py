"""What a routing strategy is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError, ParameterError
from moesim.types import Assignment, Draw, Router


@dataclass(frozen=True, kw_only=True)
class NoParameters:
    """Of a strategy that has none."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A router with the type of its parameters and what it asks of them.

    `route(logits [T, E], top_k, parameters, state, draw)` gives an Assignment.
    `defaults` replace those of the parameters' type, and in a scenario whose phase is not train
    `at_inference` replace these: what the router does in training only. `scope` "token" may be
    given blocks of tokens, "batch" needs all of a layer. `takes_bias`: `state`
    may be a float32 [E] that is added to the scores for the selection only.
    `check(n_experts, top_k, parameters)` raises ParameterError with what would be right.
    `zero_experts(parameters)`: how many of the last logits are experts that compute nothing (None = none).
    `obeys_mask`: an expert whose logit is -inf is not chosen while there are others.
    `order_only(parameters)` says whether the choices are the `top_k` largest logits, in order (None = never).
    """

    name: str
    route: Router
    parameters: type[Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    at_inference: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "token"
    takes_bias: bool = False
    obeys_mask: bool = True
    zero_experts: Callable[[Any], int] | None = None
    order_only: Callable[[Any], bool] | None = None
    check: Callable[[int, int, Any], None] | None = None

    def validate(self, n_experts: int, top_k: int, parameters: Any) -> None:
        """Refuse sizes and parameters that this router cannot work with.

        Raises:
            ParameterError: what would be right.
        """
        if not 1 <= top_k <= n_experts:
            raise ParameterError("top_k", top_k, f"1 to the {n_experts} experts")
        if self.check is not None:
            self.check(n_experts, top_k, parameters)


def checked_router(name: str, function: Router) -> Router:
    """A router of the user's own whose assignments are checked and of the usual types: kernels trust their ids."""

    def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
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
