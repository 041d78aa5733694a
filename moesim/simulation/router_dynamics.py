"""Routers that evolve: their state through one step, and from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.count import count_by_source
from moesim.routing.training_balance import add_statistics, auxiliary_loss, updated_bias, updated_shift
from moesim.simulation.plan import RunPlan
from moesim.types import Assignment, Batch, RouterState, RouterStep


@dataclass(frozen=True, kw_only=True)
class RouterUpdate:
    """The state of a layer's router after a step, and the losses of the step's tokens."""

    state: RouterState
    aux_loss: float
    z_loss: float


def router_step(layers: Sequence[RouterUpdate]) -> RouterStep | None:
    """The routers of all layers after a step; None where no router evolves."""
    if not layers:
        return None
    return RouterStep(
        states=tuple(layer.state for layer in layers),
        aux_loss=np.array([layer.aux_loss for layer in layers]),
        z_loss=np.array([layer.z_loss for layer in layers]),
        bias_min=np.array([layer.state.bias.min() for layer in layers], dtype=np.float64),
        bias_max=np.array([layer.state.bias.max() for layer in layers], dtype=np.float64),
        shift_std=np.array([layer.state.shift.std() for layer in layers], dtype=np.float64),
    )


class RouterDynamics:
    """Shifts the logits of one layer in one step, and sums up what the state after the step depends on."""

    def __init__(self, plan: RunPlan, layer: int, state: RouterState) -> None:
        router = plan.routers[layer]
        self._state = state
        self._by_sigmoid = router.by_sigmoid
        self._probability = np.zeros((plan.cluster.n_gpus, plan.n_logits))
        self._squares = 0.0
        self.bias = state.bias if router.strategy.takes_bias and state.bias.any() else None

    @classmethod
    def of(cls, plan: RunPlan, layer: int, state: RouterState | None) -> RouterDynamics | None:
        """The dynamics of a layer's router; None where it has no state, as it does not evolve."""
        return None if state is None else cls(plan, layer, state)

    def shift(self, logits: NDArray[np.float32], source: NDArray[np.int32]) -> None:
        """Shift the logits [T, E] of tokens of these ranks [T], in place, and count them."""
        logits += self._state.shift
        self._squares += add_statistics(logits, source, by_sigmoid=self._by_sigmoid, probability=self._probability)

    def update(self, plan: RunPlan, batch: Batch, assignment: Assignment) -> RouterUpdate:
        """The state after the step, whose requested loads are counted before any capacity."""
        training = plan.training
        assert training is not None
        by_rank = count_by_source(assignment.expert, batch.source, plan.cluster.n_gpus, plan.n_logits)
        loss, pressure = auxiliary_loss(by_rank, self._probability, scope=training.scope)
        load = by_rank.sum(axis=0)
        acts = batch.step >= training.from_step
        bias = self._state.bias
        if acts and training.mechanism == "loss-free":
            bias = updated_bias(bias, load, step_size=training.step_size, rule=training.rule)
        shift = updated_shift(
            self._state.shift,
            load,
            pressure,
            feedback_gain=training.feedback_gain,
            coefficient=training.coefficient if acts and training.mechanism == "aux-loss" else 0.0,
            learning_rate=training.learning_rate,
        )
        return RouterUpdate(
            state=RouterState(bias=bias, shift=shift),
            aux_loss=loss,
            z_loss=self._squares / max(1, batch.n_tokens),
        )
