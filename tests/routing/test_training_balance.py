"""The rules by which a router evolves, against values by hand and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.routing.training_balance import FEEDBACK_GAIN, add_statistics, auxiliary_loss, updated_bias, updated_shift
from moesim.scenario.schema import TrainingSpec


def test_the_default_of_the_scenario_is_the_fitted_gain() -> None:
    """The schema imports no kernel, so the number stands twice."""
    assert TrainingSpec.model_fields["feedback_gain"].default == FEEDBACK_GAIN


def test_the_bias_moves_against_the_load_by_hand() -> None:
    """Megatron: a fixed step by the sign, none at the mean; or in proportion to the relative error."""
    bias, load = np.array([0.5, 0, 0, 0], dtype=np.float32), np.array([10, 30, 20, 20])
    got = updated_bias(bias, load, step_size=0.01, rule="sign")
    np.testing.assert_allclose(got, [0.51, -0.01, 0, 0], rtol=1e-6)
    got = updated_bias(bias, load, step_size=0.01, rule="proportional")
    np.testing.assert_allclose(got, [0.505, -0.005, 0, 0], rtol=1e-6)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(updated_bias(bias, np.zeros(4, dtype=int), step_size=1.0, rule="proportional"), bias)


def test_the_auxiliary_loss_is_one_at_balance_and_presses_on_the_popular() -> None:
    """Switch's form over shares; by hand for two experts; micro-batches that differ lose where their sum does not."""
    loss, pressure = auxiliary_loss(np.full((1, 4), 5), np.full((1, 4), 2.5), scope="global-batch")
    assert loss == 1.0
    np.testing.assert_array_equal(pressure, 0)
    loss, pressure = auxiliary_loss(np.array([[3, 1]]), np.array([[1.2, 0.8]]), scope="global-batch")
    assert loss == pytest.approx(2 * (0.75 * 0.6 + 0.25 * 0.4))  # 1.1
    np.testing.assert_allclose(pressure, [1.2 * (1.5 - 1.1), 0.8 * (0.5 - 1.1)], rtol=1e-12)
    load, probability = np.array([[4, 0], [0, 4]]), np.array([[1.5, 0.5], [0.5, 1.5]])
    assert auxiliary_loss(load, probability, scope="global-batch")[0] == 1.0
    loss, pressure = auxiliary_loss(load, probability, scope="micro-batch")
    assert loss == 1.5
    np.testing.assert_allclose(pressure, [0, 0])  # what one rank presses, the other presses back


@given(st.integers(2, 8), st.integers(0, 1000))
def test_the_pressure_is_the_gradient_of_the_loss(experts: int, seed: int) -> None:
    """E times dL/dx_e, f held, for a router that gives every token the same probabilities."""
    rng = np.random.default_rng(seed)
    load, x = rng.integers(1, 50, (1, experts)), rng.normal(size=experts)

    def loss(logits: np.ndarray) -> float:
        p = np.exp(logits - logits.max())
        return auxiliary_loss(load, (p / p.sum())[None], scope="global-batch")[0]

    p = np.exp(x - x.max())
    pressure = auxiliary_loss(load, (p / p.sum())[None], scope="global-batch")[1]
    small = 1e-6 * np.eye(experts)
    gradient = [(loss(x + step) - loss(x - step)) / 2e-6 for step in small]
    np.testing.assert_allclose(pressure, experts * np.array(gradient), rtol=1e-4, atol=1e-7)


def test_the_shift_follows_feedback_recovery_and_pressure_by_hand() -> None:
    """learning_rate * (gain * excess - shift - 4 * coefficient / 1e-3 * pressure)."""
    shift, load = np.array([0.2, -0.2], dtype=np.float32), np.array([3, 1])
    settings = {"feedback_gain": 2.0, "learning_rate": 0.1}
    got = updated_shift(shift, load, np.array([0.5, -0.5]), coefficient=0.0, **settings)
    np.testing.assert_allclose(got, [0.2 + 0.1 * (1.0 - 0.2), -0.2 + 0.1 * (-1.0 + 0.2)], rtol=1e-6)
    got = updated_shift(shift, load, np.array([0.5, -0.5]), coefficient=5e-4, **settings)
    np.testing.assert_allclose(got, [0.2 + 0.1 * (1.0 - 0.2 - 1.0), -0.2 - 0.1 * (1.0 - 0.2 - 1.0)], rtol=1e-6)


@pytest.mark.parametrize("by_sigmoid", [False, True])
def test_statistics_equal_numpys(by_sigmoid: bool) -> None:
    """Probabilities by rank, and the z-loss: the mean squared logsumexp (ST-MoE, equation 5)."""
    rng = np.random.default_rng(0)
    x, source = rng.normal(scale=3, size=(200, 24)).astype(np.float32), rng.integers(0, 3, 200).astype(np.int32)
    probability = np.zeros((3, 24))
    squares = add_statistics(x, source, by_sigmoid=by_sigmoid, probability=probability)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(squares, (np.log(np.exp(wide).sum(axis=1)) ** 2).sum(), rtol=1e-5)
    p = 1 / (1 + np.exp(-wide)) if by_sigmoid else np.exp(wide)
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probability, [p[source == rank].sum(axis=0) for rank in range(3)], rtol=1e-4)
