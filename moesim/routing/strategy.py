"""What a routing strategy is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moesim.errors import InputError
from moesim.types import Router


@dataclass(frozen=True, kw_only=True)
class NoParameters:
    """Of a strategy that has none."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A router with the type of its parameters and what it asks of them.

    `route(logits [T, E], top_k, parameters, state, draw)` gives an Assignment.
    `scope` "token" may be given blocks of tokens, "batch" needs all of a layer.
    `check(n_experts, top_k, parameters)` raises InputError with what would be right.
    `order_only` says that the choices are the `top_k` largest logits, in order.
    """

    name: str
    route: Router
    parameters: type[Any]
    scope: str = "token"
    order_only: bool = False
    check: Callable[[int, int, Any], None] | None = None

    def validate(self, n_experts: int, top_k: int, parameters: Any) -> None:
        """Refuse sizes and parameters that this router cannot work with.

        Raises:
            InputError: what would be right.
        """
        if not 1 <= top_k <= n_experts:
            raise InputError(f"top_k from 1 to the {n_experts} experts")
        if self.check is not None:
            self.check(n_experts, top_k, parameters)
