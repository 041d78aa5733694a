"""Which experts tokens go to: routers and capacity policies.

In: logits [T, E] (or any scores) and a strategy's parameters. Out: an
Assignment, the experts and weights of every token. One router per file, its
parameters and its compiled body together; `registry` lists them without
importing them; `capacity` takes an Assignment and says which of its requests are served.
"""

from moesim.routing.capacity import apply_capacity
from moesim.routing.policies import FALLBACKS, OVERFLOWS, SCOPES, SUBSTITUTIONS
from moesim.routing.registry import STRATEGIES, parameters_for, register_strategy, strategy
from moesim.routing.rounding import ROUNDINGS, SIGNED
from moesim.routing.route import route
from moesim.routing.strategy import Strategy
from moesim.routing.substitution import group_mask, router_scores, substitute

__all__ = [
    "FALLBACKS",
    "OVERFLOWS",
    "ROUNDINGS",
    "SCOPES",
    "SIGNED",
    "STRATEGIES",
    "SUBSTITUTIONS",
    "Strategy",
    "apply_capacity",
    "group_mask",
    "parameters_for",
    "register_strategy",
    "route",
    "router_scores",
    "strategy",
    "substitute",
]
