"""Popularities that are stated by how uneven the load is to be: what is solved for, and how.

A target is solved once, for the base scenario before variants and sweeps, on the
tokens of its first measured steps, in all layers, or in some where all have too
many tokens for that, and then written into the scenario: variants see the same
tokens, whatever their routers are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.count import count
from moesim.errors import InputError, ScenarioError
from moesim.metrics import metric_of_target
from moesim.scenario import Scenario
from moesim.scenario.popularity import SOLVED_FIELDS
from moesim.scenario.schema import TARGET_METRICS, PopularitySpec
from moesim.simulation.made_tokens import synthetic_tokens
from moesim.simulation.popularity import Popularity, popularity_of, router_of_load
from moesim.types import Draw
from moesim.types.policies import SkewTarget
from moesim.workload import SyntheticTokens

_LAYERS, _STEPS, _ASSIGNMENTS = 4, 8, 2**18
"""Layers that are tried out at least, steps at most, and assignments of all layers that are enough."""
_LOGITS = 2**23
"""More layers are tried out where all of their logits in a step are not more than these."""
_BLOCK = 1024
_BISECTIONS = 20
_NEAR, _NEAR_ENOUGH = 0.002, 0.01
"""Part of a target by which a value may miss it: that ends the search, and that is still a solution."""
_MAX_KNOWN = 64
_known: dict[str, tuple[Any, float]] = {}
"""Solutions by what they depend on; variants and points share them."""


@dataclass(frozen=True)
class Knob:
    """The value of the field that is solved for, for a spread from 0 (even) to `most`."""

    most: float
    value: Callable[[float], Any]


KNOBS: Mapping[str, Knob] = {
    "zipf": Knob(20.0, lambda spread: round(spread, 6)),
    "lognormal": Knob(5.0, lambda spread: (round(spread, 6),)),
    "dirichlet": Knob(30.0, lambda spread: float(f"{min(1e9, max(spread, 1e-9) ** -2):.6g}")),
}
"""By the kind of popularity."""


def skew_target(popularity: PopularitySpec) -> SkewTarget | None:
    """The target of a popularity; None where there is none."""
    stated = popularity.target
    if stated is None:
        return None
    metric = next(name for name in TARGET_METRICS if getattr(stated, name) is not None)
    return SkewTarget(
        metric=metric,
        value=getattr(stated, metric),
        ranks=stated.ranks or 1,
        experts=stated.experts or 1,
        reached=stated.reached,
    )


def with_solved_target(scenario: Scenario) -> Scenario:
    """The scenario with what its target is solved by; as it is where there is no target, or a solved one.

    Raises:
        ScenarioError: no value reaches the target to 1 %; with the range that can be reached.
    """
    popularity = scenario.spec.workload.popularity
    target = skew_target(popularity)
    made = scenario.spec.workload.trace is None and scenario.spec.workload.pattern is None
    if target is None or target.reached is not None or not made:
        return scenario
    base = _base(scenario)
    key = json.dumps(base.resolved(), sort_keys=True)
    if key not in _known:
        while len(_known) >= _MAX_KNOWN:
            _known.pop(next(iter(_known)))
        try:
            _known[key] = _Search(base, target).solution()
        except _Infeasible as error:
            raise scenario.error(f"workload.popularity.target.{target.metric}", target.value, str(error)) from None
    value, reached = _known[key]
    return _with_popularity(
        scenario,
        **{SOLVED_FIELDS[popularity.kind]: value},
        target=popularity.target.model_copy(update={"reached": reached}) if popularity.target else None,
    )


def _base(scenario: Scenario) -> Scenario:
    """The scenario before variants and sweeps with this popularity; itself where it has another model."""
    base = scenario.base()
    if base.spec.model != scenario.spec.model or base.spec.workload.trace or base.spec.workload.pattern:
        return scenario
    workload = base.spec.workload.model_copy(
        update={"popularity": scenario.spec.workload.popularity, "sampling": scenario.spec.workload.sampling}
    )
    return base.with_parts(workload=workload, seed=scenario.spec.seed)


def _with_popularity(scenario: Scenario, **fields: Any) -> Scenario:
    workload = scenario.spec.workload
    popularity = workload.popularity.model_copy(update=fields)
    return scenario.with_parts(workload=workload.model_copy(update={"popularity": popularity}))


class _Infeasible(Exception):  # noqa: N818 - what is not an error yet
    """No value reaches the target; says what would be right."""


class _Search:
    """Bisection of the spread of a popularity on the tokens of the base scenario."""

    def __init__(self, base: Scenario, target: SkewTarget) -> None:
        self._base, self._target = base, target
        kind = base.spec.workload.popularity.kind
        self._knob, self._field = KNOBS[kind], SOLVED_FIELDS[kind]
        self._rises = target.metric in ("max_violation", "top_share")
        self._router = router_of_load(base)
        n_layers = len(base.model.moe_layers)
        tokens = self._source(base, None).tokens_per_step
        affordable = max(_LAYERS, _LOGITS // max(1, tokens * base.model.n_experts))
        self._layers = np.unique(np.linspace(0, n_layers - 1, min(affordable, n_layers)).round().astype(int)).tolist()
        self._tried: dict[float, float | None] = {}

    def solution(self) -> tuple[Any, float]:
        """The value of the field, and what the target's metric is with it.

        Raises:
            _Infeasible: none misses the target by 1 % or less.
        """
        low, high = 0.0, min(0.25, self._knob.most)
        if not self._is_beyond(low):
            while not self._is_beyond(high) and high < self._knob.most:
                low, high = high, min(2 * high, self._knob.most)
            for _ in range(_BISECTIONS):
                if self._best()[1] <= _NEAR:
                    break
                middle = (low + high) / 2
                low, high = (low, middle) if self._is_beyond(middle) else (middle, high)
        spread, miss = self._best()
        reached = self._tried[spread]
        if miss > _NEAR_ENOUGH or reached is None:
            raise _Infeasible(self._feasible())
        return self._knob.value(spread), reached

    def _best(self) -> tuple[float, float]:
        """The spread that came nearest to the target, and by what part of it it misses."""
        even = 1.0 if self._target.metric == "entropy" else 0.0  # an entropy is told by how far it is from even
        scale = max(abs(self._target.value - even), 1e-9)
        misses = {
            spread: abs(found - self._target.value) / scale
            for spread, found in self._tried.items()
            if found is not None
        }
        best = min(misses, key=lambda spread: misses[spread], default=0.0)
        return best, misses.get(best, np.inf)

    def _feasible(self) -> str:
        """What can be reached, in words."""
        self._found(self._knob.most)
        values = sorted(found for found in self._tried.values() if found is not None)
        if not values:
            return "a popularity whose load the router can give"
        value = self._target.value
        if values[0] < value < values[-1]:
            below = max(found for found in values if found <= value)
            above = min(found for found in values if found >= value)
            return f"more tokens a step: with these the nearest values are {below:.4g} and {above:.4g}"
        return f"{values[0]:.4g} to {values[-1]:.4g}, which {self._field} can reach on the tokens of this scenario"

    def _is_beyond(self, spread: float) -> bool:
        """Whether the load is more uneven than wanted, or than the router can give."""
        found = self._found(spread)
        return found is None or (found > self._target.value) == self._rises

    def _found(self, spread: float) -> float | None:
        if spread not in self._tried:
            try:
                self._tried[spread] = self._measured(self._knob.value(spread))
            except ScenarioError:  # a load that the router cannot give
                self._tried[spread] = None
        return self._tried[spread]

    def _measured(self, value: Any) -> float:
        """The mean of the target's metric over the steps and layers that are tried out."""
        scenario = _with_popularity(self._base, **{self._field: value})
        popularity, _ = popularity_of(scenario, layers=self._layers)
        source = self._source(scenario, popularity)
        enough = -(-_ASSIGNMENTS // (len(self._layers) * source.tokens_per_step * self._router[2]))
        first = scenario.spec.simulation.warmup_steps
        steps = range(first, first + max(1, min(enough, _STEPS, scenario.spec.workload.steps)))
        loads = [self._load(source, step, layer) for step in steps for layer in self._layers]
        return round(float(metric_of_target(np.array(loads), self._target).mean()), 6)

    def _source(self, scenario: Scenario, popularity: Popularity | None) -> SyntheticTokens:
        """The tokens of the scenario with a popularity."""
        strategy, parameters, _ = self._router
        n_ranks = scenario.cluster.n_gpus - (scenario.spec.placement.expert_gpus or 0)
        return synthetic_tokens(scenario, strategy.zero_experts(parameters), popularity, n_ranks)

    def _load(self, source: SyntheticTokens, step: int, layer: int) -> NDArray[np.int64]:
        """Requested assignments of the experts of a layer in a step, [E]."""
        strategy, parameters, top_k = self._router
        n_experts, batch = self._base.model.n_experts, source.batch(step)
        if self._base.spec.workload.sampling == "direct":
            return count(source.choices(batch, layer, top_k).expert, n_experts)
        load = np.zeros(n_experts, dtype=np.int64)
        for start in range(0, batch.n_tokens, _BLOCK):
            end = min(start + _BLOCK, batch.n_tokens)
            logits = np.empty((end - start, n_experts + strategy.zero_experts(parameters)), dtype=np.float32)
            source.logits(batch, layer, start, end, logits)
            draw = Draw(
                seed=self._base.spec.seed,
                step=step,
                layer=layer,
                first_token=start,
                token_ids=None if batch.token_ids is None else batch.token_ids[start:end],
            )
            chosen = strategy.route(logits, top_k, parameters, None, draw).expert
            load += count(np.where(chosen < n_experts, chosen, np.int32(-1)), n_experts)
        return load


def solved_or_error(scenario: Scenario) -> tuple[Scenario | None, str]:
    """The scenario with its target solved, or None and the message of the error."""
    try:
        return with_solved_target(scenario), ""
    except InputError as error:
        return None, str(error)
