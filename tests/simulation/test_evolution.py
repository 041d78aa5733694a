"""Routers over many steps: they collapse when left alone, and balance, or recover, by each mechanism."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moesim import Scenario, evolve, simulate
from moesim.errors import InputError, ScenarioError
from tests.validation import balancing_dynamics as dynamics

BASE: dict[str, Any] = {
    "model": {"preset": "olmoe-1b-7b", "n_layers": 2, "top_k": 4},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
    "workload": {"phase": "train", "tokens_per_gpu": 128, "steps": 120, "popularity": {"exponent": 0.4}},
    "routing": {
        "strategy": "deepseek-v3",
        "parameters": {},
        "training": {"mechanism": "none", "learning_rate": 0.02},
    },
}


def scenario(steps: int = 120, **balancing: Any) -> Scenario:
    """The small scenario with other settings of its balancing."""
    overrides = {f"routing.training.{name}": value for name, value in balancing.items()}
    return Scenario.from_dict(BASE).with_overrides({"workload.steps": steps} | overrides)


def over_steps(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Mean over layers of every step."""
    return frame.groupby("step")[column].mean().to_numpy()


def test_a_router_without_balancing_collapses_and_without_feedback_it_stays() -> None:
    """Entropy falls to that of top_k experts, the others die."""
    frame = evolve(scenario())
    entropy, dead = over_steps(frame, "entropy"), over_steps(frame, "dead_experts")
    assert entropy[0] > 0.9
    assert entropy[-1] == pytest.approx(np.log(4) / np.log(64), abs=0.1)
    assert dead[0] == 0
    assert dead[-1] > 50
    assert over_steps(frame, "aux_loss")[-1] > 3
    still = evolve(scenario(feedback_gain=0.0))
    assert over_steps(still, "entropy")[-1] == pytest.approx(entropy[0], abs=0.02)
    assert (still["popularity_shift_std"] == 0).all()


@pytest.mark.parametrize(
    "settings, bound",
    [
        ({"mechanism": "aux-loss"}, 2.0),
        ({"mechanism": "aux-loss", "scope": "micro-batch"}, 2.0),
        ({"mechanism": "loss-free", "step_size": 0.02}, 0.8),
        ({"mechanism": "loss-free", "rule": "proportional", "step_size": 0.04}, 0.8),
    ],
)
def test_every_mechanism_holds_the_router(settings: dict[str, Any], bound: float) -> None:
    """No expert dies, and late steps are more even than the first."""
    frame = evolve(scenario(**settings))
    violation = over_steps(frame, "max_violation")
    assert violation[-20:].mean() < min(bound, violation[0])
    assert over_steps(frame, "dead_experts")[-20:].max() == 0
    if settings["mechanism"] == "loss-free":
        assert (frame["bias_max"] - frame["bias_min"]).iloc[-1] > 0.1
    else:
        assert (frame[["bias_min", "bias_max"]] == 0).all(axis=None)


def test_a_mechanism_brings_a_collapsed_router_back() -> None:
    """Until it acts the run is that without it, bit by bit."""
    alone = evolve(scenario(steps=160))
    rescued = evolve(scenario(steps=160, mechanism="loss-free", step_size=0.02, from_step=80))
    pd.testing.assert_frame_equal(alone[alone["step"] < 80], rescued[rescued["step"] < 80])
    entropy = over_steps(rescued, "entropy")
    assert entropy[79] < 0.6
    assert entropy[-1] > 0.9


def test_evolution_does_not_depend_on_threads_and_is_that_of_simulate() -> None:
    """The same loads and the same state, with and without the engine."""
    settings = {"mechanism": "loss-free", "step_size": 0.02}
    frame = evolve(scenario(steps=8, **settings), threads=1)
    pd.testing.assert_frame_equal(frame, evolve(scenario(steps=8, **settings), threads=3))
    result = simulate(scenario(steps=8, **settings))
    np.testing.assert_array_equal(result.layers["max_violation"], frame["max_violation"])
    for column in ("step", "layer", "aux_loss", "z_loss", "bias_min", "bias_max", "popularity_shift_std"):
        np.testing.assert_array_equal(result.router[column], frame[column])
    warm = simulate(scenario(steps=4, **settings).with_overrides({"simulation.warmup_steps": 4}))
    np.testing.assert_array_equal(warm.layers["max_violation"], frame[frame["step"] >= 4]["max_violation"])
    assert simulate(scenario(steps=1).with_overrides({"routing.training": None})).router.empty


def test_a_frozen_router_is_evaluated_on_other_tokens() -> None:
    """Where asked for, with less sampling noise than one step has."""
    frame = evolve(scenario(steps=60, mechanism="loss-free", step_size=0.01), evaluate_every=40, evaluation_steps=20)
    evaluated = frame.dropna(subset="max_violation_global")
    assert sorted(set(evaluated["step"])) == [39, 59]
    assert evaluated["max_violation_global"].mean() < 0.8 * evaluated["max_violation"].mean()


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"routing.training": None}, r"routing\.training: found .*wanted a mechanism"),
        ({"routing.training.mechanism": "magic"}, r"routing\.training\.mechanism: .*magic"),
        (
            {"routing.strategy": "top-p", "routing.training.mechanism": "loss-free"},
            r"mechanism: found loss-free, wanted none or aux-loss: top-p has no selection bias",
        ),
        ({"routing.strategy": "mixtral", "workload.sampling": "direct"}, r"workload\.sampling: .*routing\.training"),
    ],
)
def test_what_cannot_evolve_is_refused(overrides: dict[str, Any], message: str) -> None:
    """With the field."""
    with pytest.raises(ScenarioError, match=message):
        evolve(Scenario.from_dict(BASE).with_overrides(overrides))


@pytest.mark.slow
def test_the_published_imbalances_are_predicted_from_one() -> None:
    """Wang et al. 2024, tables 2 and 3 and figures 4 and 5, as tests/validation/balancing_dynamics.py prints them."""
    table = dynamics.table().set_index("what")
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for what, row in table.iterrows():
        (quoted,) = re.findall(
            rf"\| {re.escape(str(what))} \| {row['kind']} \| {row['published']:g} \| (\S+) \|", readme
        )
        assert row["simulated"] == pytest.approx(float(quoted), rel=0.05)
    fitted = table[table["kind"] == "fitted"]
    np.testing.assert_allclose(fitted["simulated"], fitted["published"], rtol=0.1)
    free = table[table.index.str.startswith("loss-free")]
    assert len(free) == 3
    assert free["simulated"].between(0.01, 0.08).all()
    assert (free["simulated"] / free["published"]).between(1 / 3, 3).all()
    assert (free["simulated"] < 0.1 * fitted["simulated"].min()).all()
    sizes = dynamics.step_sizes().set_index("step size")
    to_balance, late = sizes["steps to MaxVio < 0.3"], sizes["late MaxVio"]
    assert to_balance[1e-4] > 5 * to_balance[1e-3] > 5 * to_balance[1e-2]  # slow at first
    assert late[1e-2] > 1.3 * late[1e-3]  # and restless late
    batches = dynamics.batches()
    free_by_batch, loss_by_batch = batches["loss-free"].to_numpy(), batches["auxiliary loss"].to_numpy()
    assert (free_by_batch[1:] < 0.7 * free_by_batch[:-1]).all()  # falls with the batch
    assert loss_by_batch[-1] > 0.85 * loss_by_batch[0]  # levels off


def test_what_depends_on_times_does_not_evolve_without_them() -> None:
    """Lost GPUs and full queues change loads; `evolve` knows neither."""
    lost = [{"kind": "gpu-failure", "gpu": 0}]
    with pytest.raises(InputError, match=r"faults.0.kind: found gpu-failure, wanted another fault, or simulate"):
        evolve(scenario().with_overrides({"faults": lost}))
    with pytest.raises(InputError, match=r"simulation.experts: found queued, wanted grouped"):
        evolve(scenario().with_overrides({"simulation.experts": "queued"}))
    with pytest.raises(InputError, match="threads: found 0, wanted 1 or more"):
        evolve(scenario(), threads=0)
