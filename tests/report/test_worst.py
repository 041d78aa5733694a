"""The longest steps, and what made them long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from moesim.report import Run, worst_steps


def test_longest_first_with_the_guilty(run: Callable[..., Run]) -> None:
    """The layer, expert and GPU of the longest step are named."""
    made = run()
    steps, layers, experts, gpus = (frame.copy() for frame in (made.steps, made.layers, made.experts, made.gpus))
    steps["step_time_s"] = 1.0
    steps.loc[3, "step_time_s"] = 5.0
    layers["balancedness"] = 0.9
    layers.loc[(layers["step"] == 3) & (layers["layer"] == 2), "balancedness"] = 0.1
    experts.loc[(experts["step"] == 3) & (experts["layer"] == 2) & (experts["expert"] == 6), "processed"] = 10**6
    gpus["critical_s"] = 0.0
    gpus.loc[(gpus["step"] == 3) & (gpus["gpu"] == 1), "critical_s"] = 2.5
    found = worst_steps(replace(made, steps=steps, layers=layers, experts=experts, gpus=gpus), 2)
    assert list(found["step"]) == [3, 0]
    first = found.iloc[0]
    assert (first["layer"], first["rank"], first["expert"]) == (2, 1, 6)
    assert first["critical_share"] == pytest.approx(0.5)
    assert first["times_mean"] == pytest.approx(5.0 / (10.0 / 6.0))
    assert first["balancedness"] == pytest.approx(0.1)


def test_a_model_without_moe_layers_blames_no_expert(run: Callable[..., Run]) -> None:
    """Layer, expert and drop rate are missing values."""
    made = run()
    steps = made.steps.assign(requested=0, dropped=0)
    found = worst_steps(replace(made, steps=steps, layers=made.layers.iloc[:0], experts=made.experts.iloc[:0]))
    assert len(found) == 5
    assert found["layer"].isna().all()
    assert found["expert"].isna().all()
    assert found["drop_rate"].isna().all()
    assert found["rank"].notna().all()


def test_no_steps_give_an_empty_frame(run: Callable[..., Run]) -> None:
    """It has its columns."""
    made = run()
    found = worst_steps(replace(made, steps=made.steps.iloc[:0]))
    assert found.empty
    assert "expert" in found
