"""The data of a figure are what it draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from moesim.report import FIGURES, Run, draw, figure_data


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_its_data(name: str, runs: dict[str, Run]) -> None:
    """No value is missing; figures of axes that these runs do not differ in are empty."""
    table = figure_data(draw(name, runs))
    if name in ("capacity_drops", "skew_balance", "latency_axes"):
        assert table.empty  # runs without a scenario differ in nothing
        return
    assert len(table)
    assert not table.isna().all().any()
    assert not table["x"].isna().any()


def test_a_line_is_its_points(runs: dict[str, Run]) -> None:
    """A point of each variant, at its drop rate."""
    table = figure_data(draw("drop_tradeoff", runs))
    assert table["series"].tolist() == list(runs)
    assert table["x"].tolist() == pytest.approx([100 * run.summary["drop_rate"] for run in runs.values()])
    assert table["x_axis"].unique().tolist() == ["drop rate [% of the requested assignments]"]
    spread = [1e3 * (run.summary["step_time_s"]["p99"] - run.summary["step_time_s"]["mean"]) for run in runs.values()]
    assert table["error_plus"].tolist() == pytest.approx(spread)


def test_bars_end_where_they_end_and_carry_the_names_of_their_rows(runs: dict[str, Run]) -> None:
    """Bases are added to lengths."""
    table = figure_data(draw("imbalance_penalty", runs))
    assert table["y"].tolist() == list(runs)
    assert table["x"].tolist() == pytest.approx([run.summary["imbalance_penalty"] for run in runs.values()])


def test_a_heat_map_is_its_cells(run: Callable[..., Run]) -> None:
    """Row by row, with the name of its panel as text."""
    figure = draw("expert_load", {"a <b>": run()})
    table = figure_data(figure)
    assert table["value"].tolist() == pytest.approx(np.asarray(figure.data[0].z, dtype=np.float64).ravel().tolist())
    assert table["panel"].unique().tolist() == ["a <b>"]
    assert table["value_axis"].unique().tolist() == ["load / mean of the layer"]
    assert len(table) == 4 * 8


def test_frames_of_an_animation_are_in_the_data(run: Callable[..., Run]) -> None:
    """Every step is a frame."""
    made = run(n_steps=6)
    table = figure_data(draw("load_animation", {"a": made}))
    frames = table.dropna(subset=["frame"])
    frames = frames[frames["frame"] != ""]
    assert frames["frame"].unique().tolist() == [str(step) for step in range(6)]
    one = made.experts[(made.experts["step"] == 3) & (made.experts["layer"] == 2)]["requested"]
    shown = frames[(frames["frame"] == "3") & (frames["y"] == 2)]["value"]
    assert shown.tolist() == pytest.approx((one / one.mean()).tolist(), rel=1e-6)
