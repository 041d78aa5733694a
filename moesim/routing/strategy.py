"""What a routing strategy is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moesim.errors import ParameterError
from moesim.types import Router


@dataclass(frozen=True, kw_only=True)
class NoParameters:
    """Of a strategy that has none."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A router with the type of its parameters and what it asks of them.

    `route(logits [T, E], top_k, parameters, state, draw)` gives an Assignment.
    `defaults` replace those of the parameters' type. `scope` "token" may be
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
