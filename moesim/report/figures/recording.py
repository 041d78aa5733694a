"""Figures of a recording: the load of every expert, how uneven layers are, how alike neighbours are, which pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from moesim.recordings.description import Description
from moesim.recordings.statistics import LayerStatistics, hot_experts
from moesim.report.figures.frame import colour_axis, finish, outer_titles, panels
from moesim.report.palette import BLUE, GREY, VERMILLION, variant_style

MAX_PAIR_EXPERTS = 96
"""Experts of the map of pairs; of more, the hottest."""

Figure = tuple[str, str, go.Figure, str]
"""Name, title, figure and caption."""


def recording_figures(found: Description) -> list[Figure]:
    """The figures of a recording, in the order of the page; those without data are left out."""
    by_phase: dict[str, list[LayerStatistics]] = {}
    for row in found.rows:
        by_phase.setdefault(row.phase, []).append(row)
    figures = [_load(by_phase), _by_layer(found, by_phase)]
    if _any(found.rows, "overlap"):
        figures.append(_overlap(by_phase))
    if found.n_ranks and _any(found.rows, "rank_balancedness"):
        figures.append(_ranks(found, by_phase))
    if found.coactivation is not None:
        figures.append(_pairs(found))
    return figures


def _any(rows: Sequence[LayerStatistics], name: str) -> bool:
    return any(name in row.values and np.isfinite(row.values[name].value) for row in rows)


def _any_error(rows: Sequence[LayerStatistics]) -> bool:
    return any(np.isfinite(row.values["cv"].error) for row in rows)


def _named(phase: str) -> str:
    return "all tokens" if phase == "unknown" else phase


def _load(by_phase: dict[str, list[LayerStatistics]]) -> Figure:
    """A heat map a phase, layer by expert: load over the mean of the layer."""
    most = max(len(rows) for rows in by_phase.values())
    figure, height, places = panels(
        [_named(phase) for phase in by_phase], columns=2, panel_px=min(560, max(150, 14 * most))
    )
    largest = 1.0
    for (row, column), rows in zip(places, by_phase.values(), strict=True):
        load = np.stack([each.load for each in rows]).astype(np.float64)
        relative = load / np.maximum(load.mean(axis=1, keepdims=True), 1e-12)
        largest = max(largest, float(relative.max()))
        layers = [str(each.layer) for each in rows]
        figure.add_heatmap(
            z=relative.astype(np.float32).round(3),
            x=np.arange(load.shape[1]),
            y=layers,
            coloraxis="coloraxis",
            hovertemplate="layer %{y}, expert %{x}: %{z:.3g} times the mean<extra></extra>",
            row=row,
            col=column,
        )
        ticks = layers[:: max(1, -(-len(layers) // 16))]
        figure.update_yaxes(type="category", tickvals=ticks, autorange="reversed", showgrid=False, row=row, col=column)
        figure.update_xaxes(showgrid=False, row=row, col=column)
    finish(figure, "Load of every expert", height=height)
    bar = min(290, height - 180)
    figure.update_layout(coloraxis=colour_axis("load / mean<br>of the layer", largest, len=bar))
    outer_titles(figure, places, "expert", "layer")
    return (
        "recorded_load",
        "Load of every expert",
        figure,
        "Assignments of each expert over the mean of its layer; 1 is even.",
    )


def _by_layer(found: Description, by_phase: dict[str, list[LayerStatistics]]) -> Figure:
    """Four panels by layer: MaxVio, CV, entropy and top share, with errors and what an even router shows."""
    hot = hot_experts(found.n_experts)
    shown = {
        "max_violation": "MaxVio (max / mean - 1)",
        "cv": "coefficient of variation",
        "entropy": "entropy of the load / ln E",
        "top_share": f"share of the {hot} hottest experts" if hot > 1 else "share of the hottest expert",
    }
    figure, height, places = panels(list(shown.values()), columns=2, panel_px=230)
    for name, place in zip(shown, places, strict=True):
        _lines(figure, by_phase, name, place, legend=place == (1, 1))
    finish(figure, "Imbalance by layer", height=height + 40)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"}, margin={"b": 90})
    outer_titles(figure, places, "layer", "")
    errors = f"Bars are standard errors, from {found.groups}. " if _any_error(found.rows) else ""
    return (
        "recorded_imbalance",
        "Imbalance by layer",
        figure,
        f"All tokens of a phase together. {errors}The grey line is what an even router shows by chance.",
    )


def _lines(
    figure: go.Figure,
    by_phase: dict[str, list[LayerStatistics]],
    name: str,
    place: tuple[int, int],
    *,
    legend: bool,
    even: str = "even router",
) -> None:
    """A line a phase with error bars, and one of what chance shows, grey."""
    row, col = place
    for index, (phase, rows) in enumerate(by_phase.items()):
        style = variant_style(index)
        has = [each for each in rows if name in each.values and np.isfinite(each.values[name].value)]
        if not has:
            continue
        layers = [each.layer for each in has]
        errors = [np.nan_to_num(each.values[name].error) for each in has]
        figure.add_scatter(
            x=layers,
            y=[each.values[name].value for each in has],
            error_y={"type": "data", "array": errors, "thickness": 1, "width": 2, "color": style.colour},
            mode="lines+markers" if len(has) <= 64 else "lines",
            name=_named(phase),
            legendgroup=phase,
            showlegend=legend,
            line={"color": style.colour, "dash": style.dash, "width": 2},
            marker={"color": style.colour, "symbol": style.symbol, "size": 6},
            hovertemplate="layer %{x}: %{y:.3g}",
            row=row,
            col=col,
        )
        chance = [each.values[name].even for each in has]
        if np.isfinite(chance).any():
            figure.add_scatter(
                x=layers if len(layers) > 1 else [layers[0] - 0.5, layers[0] + 0.5],
                y=chance if len(layers) > 1 else chance * 2,
                mode="lines",
                name=even,
                legendgroup="even",
                showlegend=legend and index == 0,
                line={"color": GREY, "width": 1.5, "dash": "dot"},
                hovertemplate=f"layer %{{x}}: {even} %{{y:.3g}}<extra></extra>",
                row=row,
                col=col,
            )
    figure.update_yaxes(rangemode="normal" if name == "entropy" else "tozero", row=row, col=col)


def _overlap(by_phase: dict[str, list[LayerStatistics]]) -> Figure:
    """Adjacent overlap by layer."""
    figure, _, places = panels([""], columns=1, panel_px=300)
    _lines(figure, by_phase, "overlap", places[0], legend=True, even="chance (k / E)")
    finish(figure, "Adjacent overlap by layer", height=420)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"b": 90})
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="choices repeated from the token before")
    return (
        "recorded_overlap",
        "Adjacent overlap by layer",
        figure,
        "Part of a token's choices that the previous token of its sequence made too, with standard errors.",
    )


def _ranks(found: Description, by_phase: dict[str, list[LayerStatistics]]) -> Figure:
    """Balancedness of ranks, and how many of them a token is sent to."""
    shown = {"rank_balancedness": "balancedness (mean / max) of the ranks", "destination_ranks": "ranks of a token"}
    shown = {name: title for name, title in shown.items() if _any(found.rows, name)}
    figure, height, places = panels(list(shown.values()), columns=2, panel_px=260)
    for name, place in zip(shown, places, strict=True):
        _lines(figure, by_phase, name, place, legend=place == (1, 1))
    finish(figure, f"{found.n_ranks} ranks of consecutive experts", height=height + 40)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}, margin={"b": 90})
    outer_titles(figure, places, "layer", "")
    return (
        "recorded_ranks",
        f"{found.n_ranks} ranks",
        figure,
        "Experts in their order, a run of them on each rank, no copies.",
    )


def _pairs(found: Description) -> Figure:
    """The lifts of all pairs of the layer with the strongest one."""
    assert found.coactivation is not None
    row, lifts = found.coactivation
    kept = np.sort(np.argsort(-row.load, kind="stable")[:MAX_PAIR_EXPERTS])
    shown = lifts[np.ix_(kept, kept)]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(shown > 0, np.log2(shown), np.where(shown == 0, -np.inf, np.nan))
    limit = float(np.clip(np.nanmax(np.abs(np.where(np.isfinite(logs), logs, np.nan))), 1, 4))
    names = [str(expert) for expert in kept]
    figure = go.Figure(
        go.Heatmap(
            z=np.clip(logs, -limit, limit).astype(np.float32).round(3),
            x=names,
            y=names,
            customdata=shown.astype(np.float32).round(3),
            zmin=-limit,
            zmax=limit,
            colorscale=[[0, BLUE], [0.5, "#F7F7F7"], [1, VERMILLION]],
            colorbar={
                "title": {"text": "times as often<br>as loads say<br> ", "font": {"size": 13}},
                "tickvals": [-limit, -limit / 2, 0, limit / 2, limit],
                "ticktext": [f"{2**value:.2g}" for value in (-limit, -limit / 2, 0, limit / 2, limit)],
                "thickness": 16,
            },
            hovertemplate="experts %{x} and %{y}: %{customdata:.3g} times as often<extra></extra>",
        )
    )
    where = f"layer {row.layer}" + ("" if row.phase == "unknown" else f", {row.phase}")
    finish(figure, f"Experts chosen together, {where}", height=640)
    ticks = names[:: max(1, -(-len(names) // 16))]
    figure.update_xaxes(type="category", tickvals=ticks, title_text="expert", showgrid=False, constrain="domain")
    figure.update_yaxes(
        type="category",
        tickvals=ticks,
        title_text="expert",
        showgrid=False,
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
    )
    said = "How many times as often both experts were chosen for one token as the product of their loads says."
    some = "" if len(kept) == found.n_experts else f" The {len(kept)} hottest of {found.n_experts} experts."
    return (
        "recorded_pairs",
        "Experts chosen together",
        figure,
        f"{said} Single tokens make rare pairs look extreme.{some}",
    )
