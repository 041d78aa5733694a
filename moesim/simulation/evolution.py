"""Routers that evolve: their state through one step, and from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.count import count_by_source
from moesim.routing.training_balance import add_statistics, auxiliary_loss, updated_bias, updated_shift
from moesim.simulation.stages import Stages
from moesim.types import Assignment, Batch, RouterState, RouterStep


@dataclass(frozen=True, kw_only=True)
class Evolved:
    """A layer's state after a step, and the losses of its tokens."""

    state: RouterState
    aux_loss: float
    z_loss: float


def initial_states(stages: Stages) -> list[RouterState] | None:
    """A state for each MoE layer, or None where routers do not evolve."""
    if stages.scenario.spec.routing.training is None:
        return None
    n = stages.n_logits
    start = RouterState(bias=np.zeros(n, dtype=np.float32), shift=np.zeros(n, dtype=np.float32))
    return [start] * len(stages.model.moe_layers)


def router_step(layers: Sequence[Evolved]) -> RouterStep | None:
    """The layers of a step together; None where no router evolves."""
    if not layers:
        return None
    return RouterStep(
        aux_loss=np.array([layer.aux_loss for layer in layers]),
        z_loss=np.array([layer.z_loss for layer in layers]),
        bias_min=np.array([layer.state.bias.min() for layer in layers], dtype=np.float64),
        bias_max=np.array([layer.state.bias.max() for layer in layers], dtype=np.float64),
        shift_std=np.array([layer.state.shift.std() for layer in layers], dtype=np.float64),
    )


class Watch:
    """Shifts the logits of one layer in one step, and adds up what the state after it depends on."""

    def __init__(self, stages: Stages, state: RouterState) -> None:
        assert stages.strategy is not None
        self._state = state
        self._by_sigmoid = stages.strategy.by_sigmoid(stages.parameters)
        self._probability = np.zeros((stages.cluster.n_gpus, stages.n_logits))
        self._squares = 0.0
        self.bias = state.bias if stages.strategy.takes_bias and state.bias.any() else None

    @classmethod
    def of(cls, stages: Stages, state: RouterState | None) -> Watch | None:
        """None where the router does not evolve."""
        return None if state is None else cls(stages, state)

    def shift(self, logits: NDArray[np.float32], source: NDArray[np.int32]) -> None:
        """Move the logits [T, E] of tokens of these ranks [T] in place."""
        logits += self._state.shift
        self._squares += add_statistics(logits, source, by_sigmoid=self._by_sigmoid, probability=self._probability)

    def evolve(self, stages: Stages, batch: Batch, assignment: Assignment) -> Evolved:
        """The state after the step, whose requested loads are counted before any capacity."""
        spec = stages.scenario.spec.routing.training
        assert spec is not None
        by_rank = count_by_source(assignment.expert, batch.source, stages.cluster.n_gpus, stages.n_logits)
        loss, pressure = auxiliary_loss(by_rank, self._probability, scope=spec.scope)
        load = by_rank.sum(axis=0)
        acts = batch.step >= spec.from_step
        bias = self._state.bias
        if acts and spec.mechanism == "loss-free":
            bias = updated_bias(bias, load, step_size=spec.step_size, rule=spec.rule)
        shift = updated_shift(
            self._state.shift,
            load,
            pressure,
            feedback_gain=spec.feedback_gain,
            coefficient=spec.coefficient if acts and spec.mechanism == "aux-loss" else 0.0,
            learning_rate=spec.learning_rate,
        )
        return Evolved(
            state=RouterState(bias=bias, shift=shift),
            aux_loss=loss,
            z_loss=self._squares / max(1, batch.n_tokens),
        )
