"""Who goes where: routers and capacity policies.

In: logits [T, E] (or any scores) and a strategy's parameters. Out: an
Assignment, the experts and weights of every token. One router per file, its
parameters and its compiled body together; `registry` lists them without
importing them; `capacity` takes an Assignment and says who is served.
"""

from moesim.routing.balancers import group_mask, rebalance, scores_of
from moesim.routing.capacity import apply_capacity
from moesim.routing.policies import BALANCERS, FALLBACKS, OVERFLOWS, SCOPES
from moesim.routing.registry import STRATEGIES, parameters_for, register_strategy, strategy
from moesim.routing.rounding import ROUNDINGS, SIGNED
from moesim.routing.route import route
from moesim.routing.strategy import Strategy

__all__ = [
    "BALANCERS",
    "FALLBACKS",
    "OVERFLOWS",
    "ROUNDINGS",
    "SCOPES",
    "SIGNED",
    "STRATEGIES",
    "Strategy",
    "apply_capacity",
    "group_mask",
    "parameters_for",
    "rebalance",
    "register_strategy",
    "route",
    "scores_of",
    "strategy",
]
