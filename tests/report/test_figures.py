"""Every figure: titles, units, colours, and what it says of runs without frames."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from moesim.errors import InputError
from moesim.report import FIGURES, POINT_FIGURES, Run, draw
from moesim.report.figures.timeline import MAX_BARS, MAX_GPUS
from moesim.report.palette import PART_COLOURS, variant_style
from moesim.types import PARTS


def empty(run: Run) -> Run:
    """A run without rows in any frame."""
    frames = ("steps", "layers", "experts", "gpus", "links", "timeline")
    return replace(run, summary={}, manifest={}, **{name: getattr(run, name).iloc[:0] for name in frames})


def traces(figure: go.Figure, kind: str) -> list[Any]:
    """The traces of a figure that are of one kind."""
    return [trace for trace in figure.data if trace.type == kind]


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in POINT_FIGURES])
def test_every_figure_has_a_title_units_and_readable_fonts(name: str, runs: dict[str, Run]) -> None:
    """The subtitle names the seed; no font is below 12 pixels."""
    figure = draw(name, runs)
    assert figure.layout.title.text
    assert figure.layout.title.subtitle.text.endswith(", seed 1")
    common = figure.layout.template.layout
    assert min(common.font.size, common.xaxis.tickfont.size, common.yaxis.tickfont.size) >= 12
    axes = [axis for axis in figure.layout if axis.startswith(("xaxis", "yaxis"))]
    assert any(figure.layout[axis].title.text for axis in axes)
    assert figure.data


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_one_run_and_a_dozen(name: str, run: Callable[..., Run]) -> None:
    """Neither number leaves a figure empty."""
    one = run()
    assert draw(name, {"only": one}).data
    assert draw(name, {f"variant {i}": one for i in range(12)}).data


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_without_frames_is_a_figure_that_says_so(name: str, run: Callable[..., Run]) -> None:
    """The note is a sentence."""
    figure = draw(name, {"nothing": empty(run())})
    assert figure.layout.title.text
    assert figure.layout.annotations[0].text.endswith(".")


def test_an_unknown_figure_names_the_nearest(runs: dict[str, Run]) -> None:
    """Where none is near, all are listed."""
    with pytest.raises(InputError, match="did you mean 'timeline'"):
        draw("timelin", runs)
    with pytest.raises(InputError, match="choose one of latency_breakdown"):
        draw("qqqqqq", runs)
    with pytest.raises(InputError, match="found no run"):
        draw("timeline", {})


def test_breakdown_bars_are_as_long_as_the_mean_step(runs: dict[str, Run]) -> None:
    """The parts of a step add up to it."""
    figure = draw("latency_breakdown", runs)
    total = np.sum([trace.x for trace in traces(figure, "bar")], axis=0) * 1e-3
    assert total == pytest.approx([run.summary["step_time_s"]["mean"] for run in runs.values()])
    assert "wait" in {trace.name for trace in figure.data}


def test_a_variant_has_one_colour_in_every_figure(runs: dict[str, Run]) -> None:
    """The colours are those of `variant_style`, by position."""
    for name in ("step_time", "layer_imbalance", "load_distribution"):
        colours = {trace.name: trace.line.color for trace in traces(draw(name, runs), "scatter") if trace.line.color}
        assert [colours[variant] for variant in runs] == [variant_style(i).colour for i in range(len(runs))]
    bars = traces(draw("imbalance_penalty", runs), "bar")
    assert [bar.marker.color for bar in bars] == [variant_style(i).colour for i in range(len(runs))]


def test_styles_tell_many_variants_and_all_parts_apart() -> None:
    """48 variants have 48 pairs of colour and dash, of colour and symbol."""
    styles = [variant_style(i) for i in range(48)]
    assert len({(style.colour, style.dash) for style in styles}) == 48
    assert len({(style.colour, style.symbol) for style in styles}) == 48
    assert len({(style.colour, style.pattern) for style in styles}) == 48
    assert len(set(PART_COLOURS.values())) == len(PARTS)
    assert set(PART_COLOURS) == set(PARTS)


def test_heat_map_shows_both_loads_where_something_was_dropped(run: Callable[..., Run]) -> None:
    """Requested and processed loads are two maps; otherwise one is enough."""
    assert len(traces(draw("expert_load", {"a": run()}), "heatmap")) == 1
    limited = run(drop=0.5)
    requested, processed = traces(draw("expert_load", {"a": limited}), "heatmap")
    assert np.asarray(requested.z).mean(axis=1) == pytest.approx(1.0, rel=1e-5)
    kept = limited.experts["processed"].sum() / limited.experts["requested"].sum()
    assert np.asarray(processed.z).mean() == pytest.approx(kept, rel=1e-2)
    figure = draw("expert_load", {f"variant {i}": limited for i in range(12)})
    assert len(traces(figure, "heatmap")) == 18
    assert "first 9 of 12" in figure.layout.title.text


def test_link_matrix_holds_the_bytes_of_a_step(run: Callable[..., Run]) -> None:
    """The sum of the cells is the mean of the bytes over steps."""
    made = run()
    figure = draw("link_traffic", {"a": made})
    assert np.asarray(figure.data[0].z).sum() * 1e6 == pytest.approx(made.links["bytes"].sum() / len(made.steps))
    assert "across nodes" in figure.layout.annotations[0].text
    assert len(figure.layout.shapes) == 2  # one border between two nodes, both ways


def test_gpu_strips_are_shares(runs: dict[str, Run]) -> None:
    """The wait of a GPU is divided by the time of all steps."""
    busy, wait = traces(draw("gpu_time", runs), "heatmap")
    run = runs["as trained"]
    share = run.gpus.groupby("gpu")["wait_s"].sum() / run.steps["step_time_s"].sum()
    assert np.asarray(wait.z)[0] == pytest.approx(share.to_numpy(), rel=1e-3)
    assert (np.asarray(busy.z) + np.asarray(wait.z) < 1).all()


def test_timeline_bars_fill_the_step_and_split_at_the_last_entry(run: Callable[..., Run]) -> None:
    """The lengths of the bars add up to the time of all GPUs, each up to its last entry."""
    made = run()
    bars = traces(draw("timeline", {"a": made}), "bar")
    length = sum(float(np.sum(bar.x)) for bar in bars) * 1e-6
    unit = 1e3 if made.steps["step_time_s"][0] >= 1e-3 else 1.0
    tail = sum(made.timeline["end_s"].max() - made.timeline.groupby("gpu")["end_s"].max())
    gpus = made.gpus["gpu"].nunique()
    assert length * unit == pytest.approx(gpus * made.timeline["end_s"].max() - tail)
    waits = next(bar for bar in bars if bar.name == "wait")
    waited = made.gpus.loc[made.gpus["step"] == 0, "wait_s"].sum() - tail
    assert float(np.sum(waits.x)) * 1e-6 * unit == pytest.approx(waited)


def test_exchanges_beside_tasks_have_the_lower_half_of_a_row(run: Callable[..., Run]) -> None:
    """GPU 1 attends from 0 to 4 us while its dispatch is under way; without overlap a bar has the whole row."""
    columns = ["step", "gpu", "stream", "layer", "kind", "start_s", "end_s", "bytes", "tokens"]
    rows = [(0, 1, 0, 0, "attention", 0.0, 4e-6, 0, 0), (0, 1, 1, 0, "dispatch", 1e-6, 3e-6, 9, 1)]
    made = replace(run(), timeline=pd.DataFrame(rows, columns=columns))
    attention, dispatch = traces(draw("timeline", {"a": made}), "bar")
    assert (list(attention.y), list(dispatch.y)) == ([-0.2], [0.2])
    assert attention.width == dispatch.width == 0.4
    apart = made.timeline.assign(start_s=[0.0, 4e-6], end_s=[4e-6, 6e-6])
    whole = traces(draw("timeline", {"a": replace(made, timeline=apart)}), "bar")
    assert [list(bar.y) for bar in whole] == [[0], [0]]
    assert [bar.width for bar in whole] == [0.8, 0.8]


def test_gpus_wait_for_those_of_their_group_alone(run: Callable[..., Run]) -> None:
    """Of two groups of one GPU neither waits; of one group of two the early one does."""
    columns = ["step", "gpu", "stream", "layer", "kind", "start_s", "end_s", "bytes", "tokens"]
    rows = [(0, gpu, 1, 0, "dispatch", gpu * 1e-6, 5e-6, 9, 1) for gpu in range(2)]
    made = replace(run(), timeline=pd.DataFrame(rows, columns=columns))
    names = [
        {bar.name for bar in traces(draw("timeline", {"a": replace(made, scenario=scenario)}), "bar")}
        for scenario in ({"parallelism": {"expert": 1}}, {"parallelism": {"expert": 2}}, {})
    ]
    assert names == [{"dispatch"}, {"dispatch", "wait"}, {"dispatch", "wait"}]


def test_timeline_of_a_large_run_is_cut_and_says_so(run: Callable[..., Run]) -> None:
    """The title has the number of GPUs and the last layer that are shown."""
    made = run(n_steps=1, n_layers=40, n_experts=32, n_gpus=32, gpus_per_node=8)
    figure = draw("timeline", {"large": made})
    assert sum(len(bar.x) for bar in traces(figure, "bar")) <= MAX_BARS
    assert f"{MAX_GPUS} of 32 GPUs" in figure.layout.title.text
    assert "up to layer" in figure.layout.title.text


@pytest.mark.parametrize("n", [5, 12])
def test_equal_points_are_all_labelled_each_at_a_height_of_its_own(n: int, run: Callable[..., Run]) -> None:
    """Labels are 11 pixels apart at least."""
    figure = draw("drop_tradeoff", {f"variant {i}": run() for i in range(n)})
    lowered = [note.ay for note in figure.layout.annotations]
    assert len(lowered) == n
    assert np.diff(sorted(lowered)).min() >= 11


def test_importing_the_package_imports_no_plotly() -> None:
    """Nor Jinja nor Rich: figures import them when they are drawn."""
    heavy = "{'plotly', 'jinja2', 'rich'}"
    code = f"import sys, moesim.report, moesim.report.terminal; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_timeline_of_queued_experts_shows_tasks_only(runs: dict[str, Run]) -> None:
    """Messages that are under way while a GPU computes would hide what it computes."""
    name, run = next(iter(runs.items()))
    columns = ["step", "gpu", "stream", "layer", "kind", "start_s", "end_s", "bytes", "tokens"]
    rows = [
        (0, 0, 0, 0, "experts", 0.0, 2.0, 0, 9),
        (0, 0, 1, 0, "combine", 0.5, 3.0, 8, 1),
        (0, 0, 2, 0, "queue", 0.0, 0.5, 0, 9),
    ]
    shown = draw("timeline", {name: replace(run, timeline=pd.DataFrame(rows, columns=columns))})
    assert [bar.name for bar in shown.data] == ["experts"]
