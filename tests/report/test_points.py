"""Figures of points: their axes, lines, colours and intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moesim.errors import InputError
from moesim.frames import axes_of
from moesim.report import POINT_FIGURES, Plots, Run, draw, points_of, report_html
from moesim.report.axes import few_lines, interval, lines, varying
from moesim.report.comparison import scenario_fields, with_axes
from moesim.report.palette import run_styles, styles
from moesim.report.units import number


def sweep(axes: Mapping[str, list[Any]], *, variants: tuple[str, ...] = ("only",), seeds: int = 1) -> pd.DataFrame:
    """A frame as a sweep writes it, with values that can be worked out by hand."""
    rows = []
    for *values, variant, seed in product(*axes.values(), variants, range(1, seeds + 1)):
        factor = dict(zip(axes, values, strict=True)).get("routing.capacity.factor")
        tokens = dict(zip(axes, values, strict=True)).get("workload.tokens_per_gpu", 64)
        time = 1e-3 * (1 + tokens / 64) + 1e-5 * seed + 1e-4 * variants.index(variant)
        rows.append(
            {
                **dict(zip(axes, values, strict=True)),
                "variant": variant,
                "seed": seed,
                "step_time_s.mean": time,
                "tokens_per_s_per_gpu": tokens / time,
                "max_violation.mean": 0.5,
                "max_violation_processed.mean": 0.25,
                "balancedness.mean": 0.8,
                "balancedness_requested.mean": 0.6,
                "drop_rate": 0.0 if factor is None else 0.2 / factor,
                "token_drop_rate": 0.0,
                "n_steps": 10,
            }
        )
    return pd.DataFrame(rows)


def scenario(**fields: Any) -> dict[str, Any]:
    """A resolved scenario of few fields."""
    return {"name": "x", "seed": 1, "routing": {"strategy": "switch", "capacity": None}, **fields}


def compared(run: Callable[..., Run]) -> dict[str, Run]:
    """Two routers at two capacities each, one of them none."""
    found = {}
    for strategy, factor in product(("switch", "mixtral"), (None, 1.25)):
        capacity = None if factor is None else {"factor": factor, "scope": "global"}
        drop = 0.0 if factor is None else 0.5
        name = strategy if factor is None else f"{strategy} {factor}"
        made = run(name, drop=drop)
        found[name] = replace(made, scenario=scenario(routing={"strategy": strategy, "capacity": capacity}))
    return found


def test_the_axes_of_compared_runs_are_the_fields_that_differ(run: Callable[..., Run]) -> None:
    """They come before variant and seed."""
    points = points_of(compared(run))
    fields = ["routing.strategy", "routing.capacity.factor", "routing.capacity.scope"]
    assert list(points.columns[:5]) == [*fields, "variant", "seed"]
    assert points["seed"].tolist() == [1, 1, 1, 1]
    assert points["drop_rate"].gt(0).tolist() == [False, True, False, True]


def test_the_name_of_a_preset_stands_for_its_fields(run: Callable[..., Run]) -> None:
    """Fields that only differ with the preset are no axes of their own."""
    networks = [{"name": "a", "copies": "per-rank"}, {"name": "b", "copies": "per-node"}]
    runs = {
        str(i): replace(run(), scenario=scenario(cluster={"network": network, "nodes": 1}))
        for i, network in enumerate(networks)
    }
    assert list(points_of(runs).columns[:2]) == ["cluster.network.name", "variant"]
    own = {"name": "a", "copies": "per-node"}  # the same preset, one field changed
    runs["1"] = replace(runs["1"], scenario=scenario(cluster={"network": own, "nodes": 1}))
    assert list(points_of(runs).columns[:2]) == ["cluster.network.copies", "variant"]


def test_a_line_a_router_and_no_capacity_ends_every_line(run: Callable[..., Run]) -> None:
    """Dropless runs are the last point of each line."""
    found = lines(points_of(compared(run)), "routing.capacity.factor", "drop_rate")
    assert [line.x for line in found] == [[1.25, "none"]] * 2
    assert [line.name for line in found] == ["switch", "mixtral"]
    assert [line.mean[1] for line in found] == [0.0, 0.0]
    figure = draw("capacity_drops", compared(run))
    assert [trace.name for trace in figure.data if trace.showlegend] == ["switch", "mixtral"]
    assert list(figure.layout.xaxis.ticktext) == ["1.25", "none"]


def test_one_colour_a_strategy_in_all_figures(run: Callable[..., Run]) -> None:
    """Variants of a strategy differ by their dash."""
    runs = compared(run)
    switch, switch_limited, mixtral, mixtral_limited = run_styles(runs)
    assert switch.colour == switch_limited.colour != mixtral.colour == mixtral_limited.colour
    assert switch.dash != switch_limited.dash
    bars = draw("imbalance_penalty", runs).data
    assert [bar.marker.color for bar in bars] == [switch.colour] * 2 + [mixtral.colour] * 2
    for name in ("capacity_drops", "pareto"):
        colours = {trace.name: trace.marker.color for trace in draw(name, runs).data if trace.marker.color}
        assert (colours["switch"], colours["mixtral"]) == (switch.colour, mixtral.colour)


def test_one_strategy_gets_a_colour_a_variant() -> None:
    """Otherwise all would look alike."""
    assert len({style.colour for style in styles(["switch"] * 8)}) == 8
    both = styles([str(i % 10) for i in range(40)])
    assert len({(style.colour, style.dash, style.symbol) for style in both}) == 40


def test_means_and_intervals_are_students() -> None:
    """They equal SciPy's; one value has no interval."""
    values = [1.0, 2.0, 4.0, 5.5]
    mean, low, high = interval(values)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean == 3.125
    assert interval([2.0]) == (2.0, 2.0, 2.0)


def test_a_panel_an_axis_and_a_whisker_over_seeds() -> None:
    """A numeric axis is logarithmic where its values are far apart."""
    points = sweep({"workload.tokens_per_gpu": [32, 64, 512], "cluster.network": ["a", "b"]}, seeds=3)
    figure = draw("latency_axes", {}, points)
    assert figure.layout.xaxis.title.text == "batch [tokens per GPU and step]"
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis2.title.text == "interconnect"
    batch = figure.data[0]
    assert list(batch.x) == [32, 64, 512]
    assert list(batch.y) == pytest.approx([1.52, 2.02, 9.02])
    half = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert list(batch.error_y.array) == pytest.approx([half] * 3)
    assert figure.layout.title.subtitle.text == (
        "n = 18 runs of 10 steps, 3 seeds: mean and 95 % confidence interval over seeds"
    )
    interconnect = [trace for trace in figure.data if trace.xaxis == "x2"]
    assert len(interconnect) == 3  # one for each batch
    assert {trace.mode for trace in interconnect} == {"markers"}  # nothing lies between two networks


def test_balance_against_skew_has_requested_and_processed() -> None:
    """Two panels for each variant."""
    points = sweep({"workload.popularity.exponent": [0, 0.2, 0.4]}, variants=("a", "b"))
    figure = draw("skew_balance", {}, points)
    titles = [note.text for note in figure.layout.annotations]
    assert [title.rpartition(", ")[2] for title in titles] == ["requested", "processed"] * 2
    assert [trace.name for trace in figure.data] == ["a", "b"] * 4
    assert [list(figure.data[2 * i].y) for i in range(4)] == [[value] * 3 for value in (0.5, 0.25, 0.6, 0.8)]


def test_nothing_beats_the_points_on_the_frontier() -> None:
    """No other point is both faster and of more throughput."""
    points = sweep({"workload.tokens_per_gpu": [32, 64, 128]}, variants=("fast", "slow"))
    figure = draw("pareto", {}, points)
    frontier = figure.data[0]
    assert list(frontier.x) == pytest.approx([1.51, 2.01, 3.01])  # the slow ones are beaten
    everything = [(x, y) for trace in figure.data[1:] for x, y in zip(trace.x, trace.y, strict=True)]
    assert len(everything) == 6
    for x, y in zip(frontier.x, frontier.y, strict=True):
        assert not any(other_x < x and other_y > y for other_x, other_y in everything)


def test_hollow_marks_drop() -> None:
    """Points that drop tokens are open symbols."""
    points = sweep({"routing.capacity.factor": [None, 1.0]})
    symbols = {trace.name: trace.marker.symbol for trace in draw("pareto", {}, points).data[1:]}
    assert [symbol.endswith("-open") for symbol in symbols.values()] == [False, True]


@pytest.mark.parametrize("name", [name for name in POINT_FIGURES if name != "pareto"])
def test_without_its_axis_a_figure_says_so(name: str) -> None:
    """It is marked as having nothing to show."""
    figure = draw(name, {}, sweep({"other": ["a"]}))
    assert figure.layout.meta == "nothing"
    assert "var" in figure.layout.annotations[0].text


def test_variants_that_no_axis_tells_apart_are_an_axis() -> None:
    """The name of the variant is then the first axis."""
    assert varying(sweep({"a": [1, 2]}, variants=("x", "y"))) == ["variant", "a"]
    assert varying(sweep({"a": [1, 2], "b": [3]})) == ["a"]


def test_points_alone_have_no_figure_of_runs() -> None:
    """The error lists the figures that points have, or what they lack."""
    with pytest.raises(InputError, match="of a sweep's points alone: capacity_drops"):
        draw("timeline", {}, sweep({"a": [1]}))
    with pytest.raises(InputError, match="found no column 'variant'"):
        draw("pareto", {}, sweep({"a": [1]}).drop(columns="variant"))
    with pytest.raises(InputError, match="found no point"):
        draw("pareto", {})


def test_figures_are_attributes(run: Callable[..., Run]) -> None:
    """Each figure is a method; an unknown one is an AttributeError."""
    plot = Plots({"only": run()})
    assert plot.timeline() == plot("timeline")
    assert "pareto" in dir(plot)
    assert "latency_breakdown" in repr(plot)
    with pytest.raises(AttributeError, match="no figure is named 'nonsense'"):
        plot.nonsense  # noqa: B018
    plot.timeline().update_layout(template="plotly_white", width=700)  # a figure to restyle


def test_of_many_lines_other_axes_are_held_at_their_first_value() -> None:
    """A note in the figure says at which."""
    points = sweep({"workload.tokens_per_gpu": [1, 2, 4], "a": [1, 2, 3], "b": ["x", "y", "z"]}, variants=("v", "w"))
    found, held = few_lines(points, "workload.tokens_per_gpu", "step_time_s.mean", 8)
    assert held == "at b x"
    assert [line.name for line in found] == [f"{v}, a {a}" for a in (1, 2, 3) for v in ("v", "w")]
    assert few_lines(points, "workload.tokens_per_gpu", "step_time_s.mean", 18)[1] == ""
    figure = draw("latency_axes", {}, points)
    assert figure.layout.annotations[0].text == "at b x"


def test_mappings_on_an_axis_become_their_fields() -> None:
    """Text that is no mapping stays an axis of its own."""
    points = sweep({"routing.capacity": ['{"factor": 1.0, "scope": "global"}', "none"], "other": ["{broken", "{}"]})
    assert axes_of(with_axes(points, {})) == ["routing.capacity.factor", "routing.capacity.scope", "other"]


def test_seeds_of_compared_variants_get_their_axes(run: Callable[..., Run]) -> None:
    """Points of several seeds take the axes of the runs."""
    runs = compared(run)
    alone = points_of(runs)
    points = pd.concat([alone[alone.columns[3:]].assign(seed=seed) for seed in (1, 2)], ignore_index=True)
    assert axes_of(points) == []
    figure = draw("capacity_drops", runs, points)
    assert [trace.name for trace in figure.data if trace.showlegend] == ["switch", "mixtral"]
    assert figure.data[0].customdata == (2, 2)


def test_of_several_seeds_the_summary_figures_show_means(run: Callable[..., Run]) -> None:
    """Bars end at the mean over seeds."""
    runs = {"a": run("a", skew=1.0), "b": run("b", skew=0.5)}
    one = points_of(runs)
    two = one.assign(seed=2, imbalance_penalty=one["imbalance_penalty"] + 0.2)
    figure = draw("imbalance_penalty", runs, pd.concat([one, two], ignore_index=True))
    ends = [float(bar.base[0] + bar.x[0]) for bar in figure.data]
    assert ends == pytest.approx((one["imbalance_penalty"] + 0.1).tolist())
    assert figure.layout.title.subtitle.text == "n = 6 steps of each of 2 variants, mean of 2 seeds"
    assert draw("step_time", runs, two).layout.title.subtitle.text == "n = 6 steps of each of 2 variants, seed 1"
    page = report_html(runs, title="t", scenario_yaml=None, points=pd.concat([one, two], ignore_index=True))
    assert number(one["imbalance_penalty"][0] + 0.1) in page


def test_files_are_told_by_their_names() -> None:
    """Their folders are of one machine; names of families and dotted fields stay as they are."""
    tree = {
        "workload": {"trace": "elsewhere/a.parquet", "steps": 3},
        "cluster": {"kernels": {"table": "elsewhere/measured", "family": "trtllm-bf16"}},
    }
    assert scenario_fields(tree) == {
        "workload.trace": "a.parquet",
        "workload.steps": 3,
        "cluster.kernels.table": "measured",
        "cluster.kernels.family": "trtllm-bf16",
    }
    assert scenario_fields({"cluster": {"kernels": "elsewhere/mine.yaml"}}) == {"cluster.kernels": "mine.yaml"}


def test_an_interval_ends_where_its_value_cannot_be() -> None:
    """Drops of 0 and 2 % of two seeds: 1 +- 12.7 % would begin below nothing; step times have no such end."""
    points = pd.DataFrame(
        {
            "routing.capacity.factor": [1.0, 1.0, 2.0, 2.0],
            "variant": "only",
            "seed": [1, 2, 1, 2],
            "drop_rate": [0.0, 0.02, 0.0, 0.0],
            "balancedness.mean": [0.9, 1.0, 1.0, 1.0],
            "step_time_s.mean": [0.0, 0.02, 0.0, 0.0],
        }
    )
    drops, balance, time = (
        lines(points, "routing.capacity.factor", key)[0]
        for key in ("drop_rate", "balancedness.mean", "step_time_s.mean")
    )
    assert (drops.low[0], balance.high[0]) == (0.0, 1.0)
    assert drops.high[0] == pytest.approx(0.01 + 0.127, abs=1e-3)
    assert time.low[0] == pytest.approx(0.01 - 0.127, abs=1e-3)
