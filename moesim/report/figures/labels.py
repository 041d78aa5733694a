"""Labels of points: each where it covers no marker, no line and no other label."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import hypot
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from moesim.report.palette import GREY

_WIDTHS_PX = (840.0, 990.0, 1140.0)
"""Widths of the axes, from a narrow window to a whole page: a place is free when it is free at each of them."""
_EM_A_LETTER = 0.52
"""Mean width of letters, on the wide side: texts are measured only in the browser."""
_EM_A_LINE = 1.3
_MARKER_PX = 8.0
_CLEAR_PX = 10.0
"""Half the width of a marker, and of what is kept clear around it."""
_WORK = 60
"""Labels times orders in which they are placed."""
_RIGHT_PX = 24.0
"""How far a label may reach beyond the axes, to the right."""

_Point = tuple[float, float]
_Array = npt.NDArray[np.float64]
"""Points (x, y) or boxes (left, top, right, bottom), a row each, in pixels from the upper left corner of the axes."""


class Place(NamedTuple):
    """Which part of a text stands how many pixels from its point; fields are those of an annotation."""

    ax: int
    ay: int
    xanchor: str
    yanchor: str


_BESIDE = (
    Place(12, 0, "left", "middle"),
    Place(-12, 0, "right", "middle"),
    Place(0, 11, "center", "top"),
    Place(0, -11, "center", "bottom"),
    Place(6, 11, "left", "top"),
    Place(6, -11, "left", "bottom"),
    Place(-6, 11, "right", "top"),
    Place(-6, -11, "right", "bottom"),
)
"""Next to the point, without a leader line."""
_AWAY = sorted(
    (
        Place(side * out, down, "left" if side > 0 else "right", "middle")
        for side in (1, -1)
        for out in (14, 26, 60, 110, 180)
        for step in range(1, 25)
        for down in (11 * step, -11 * step)
    ),
    key=lambda place: hypot(place.ax, place.ay),
)
"""At the end of a leader line, the shortest first."""
PLACES = (*_BESIDE, *_AWAY)
"""Where a label may stand, the best first."""
_SHARES = {"left": 0.0, "center": 0.5, "right": 1.0, "top": 0.0, "middle": 0.5, "bottom": 1.0}
_OFFSETS = np.array([[place.ax, place.ay] for place in PLACES], dtype=np.float64)
_ANCHORS = np.array([[_SHARES[place.xanchor], _SHARES[place.yanchor]] for place in PLACES])


def label_points(
    figure: go.Figure, labels: Sequence[tuple[float, float, str]], *, font_px: int, height_px: float
) -> None:
    """Label points of a figure, next to them or at the end of a leader line; without a free place a label is left out.

    Labels take their places one after the other, in several orders where they are few; the best of these is drawn.

    Args:
        figure: scatters on linear axes whose ranges are set.
        labels: x, y and text (of `label`) of each.
        font_px: size of the texts.
        height_px: of the axes.
    """
    sizes = [np.array([width, height_px]) for width in _WIDTHS_PX]
    drawn = [_drawn(figure, size) for size in sizes]
    points = [_pixels(figure, size, [(x, y) for x, y, _ in labels]) for size in sizes]
    texts = [[text_boxes(at, text, font_px) for at, (*_, text) in zip(every, labels, strict=True)] for every in points]
    leaders = [[leader_lines(at) for at in every] for every in points]
    views = list(zip(sizes, drawn, texts, leaders, strict=True))
    known = range(len(labels))
    orders = [sorted(known, key=lambda i: sign * labels[i][axis]) for axis in (0, 1) for sign in (1, -1)]
    tried = [_placed(views, order) for order in [known, *orders][: max(1, _WORK // max(1, len(labels)))]]
    best = min(tried, key=lambda found: (-len(found), sum(hypot(place.ax, place.ay) for place in found.values())))
    for i, place in sorted(best.items()):
        x, y, text = labels[i]
        figure.add_annotation(
            x=x, y=y, text=text, font_size=font_px, align="left", **place._asdict(),
            arrowhead=0, arrowwidth=0.7, arrowcolor=GREY, standoff=_MARKER_PX * (2 if place in _BESIDE else 1),
        )  # fmt: skip


_View = tuple[_Array, _Array, list[_Array], list[_Array]]
"""At one width: size of the axes, boxes of what is drawn, and of each label the texts and leader lines by place."""


def _placed(views: Sequence[_View], order: Sequence[int]) -> dict[int, Place]:
    """The first free place of each label, in this order, and if possible one whose leader line crosses no other."""
    found: dict[int, Place] = {}
    taken = [drawn for _, drawn, _, _ in views]
    lines = [np.empty((0, 4)) for _ in views]
    for i in order:
        free = np.ones(len(PLACES), dtype=bool)
        alone = free.copy()
        for (size, _, texts, leaders), boxes, others in zip(views, taken, lines, strict=True):
            free &= _inside(texts[i], size) & ~overlap(texts[i], boxes).any(axis=1)
            free &= ~cross(leaders[i], boxes).any(axis=1) & ~cross(others, texts[i]).any(axis=0)
            alone &= ~meet(leaders[i], others).any(axis=1)
        if free.any():
            k = int(np.argmax(free & alone)) if (free & alone).any() else int(np.argmax(free))
            found[i] = PLACES[k]
            taken = [np.vstack((boxes, texts[i][k])) for boxes, (_, _, texts, _) in zip(taken, views, strict=True)]
            lines = [np.vstack((others, own[i][k])) for others, (_, _, _, own) in zip(lines, views, strict=True)]
    return found


def text_boxes(point: _Array, text: str, font_px: int) -> _Array:
    """[places, 4]: the box of a text at each place by its point."""
    lines = [html.unescape(line) for line in text.split("<br>")]
    size = font_px * np.array([_EM_A_LETTER * max(map(len, lines)), _EM_A_LINE * len(lines)])
    corners = point + _OFFSETS - _ANCHORS * size
    return np.hstack((corners, corners + size))


def leader_lines(point: _Array) -> _Array:
    """[places, 4]: start and end of the leader line to each place, from where it has left its marker."""
    starts = np.minimum(1.0, 2 * _MARKER_PX / np.hypot(*_OFFSETS.T))[:, None]
    return np.hstack((point + starts * _OFFSETS, point + _OFFSETS))


def overlap(these: _Array, those: _Array) -> npt.NDArray[np.bool_]:
    """[these, those]: whether two boxes share more than an edge."""
    both = (these[:, None, :2] < those[None, :, 2:]) & (those[None, :, :2] < these[:, None, 2:])
    return np.asarray(both.all(axis=2))


def cross(lines: _Array, boxes: _Array) -> npt.NDArray[np.bool_]:
    """[lines, boxes]: whether a line from (x, y) to (x, y) passes through a box."""
    start, along = lines[:, None, :2], lines[:, None, 2:] - lines[:, None, :2]
    along = np.where(along == 0.0, 1e-9, along)
    ends = (boxes[None, :, :2] - start) / along, (boxes[None, :, 2:] - start) / along
    enters, leaves = np.minimum(*ends).max(axis=2), np.maximum(*ends).min(axis=2)
    return np.asarray(np.maximum(enters, 0.0) < np.minimum(leaves, 1.0))


def meet(these: _Array, those: _Array) -> npt.NDArray[np.bool_]:
    """[these, those]: whether two lines cross."""

    def side(lines: _Array, x: _Array, y: _Array) -> _Array:
        ax, ay, bx, by = lines
        return np.asarray(np.sign((bx - ax) * (y - ay) - (by - ay) * (x - ax)))

    one, other = these.T[:, :, None], those.T[:, None, :]
    apart = side(one, *other[:2]) * side(one, *other[2:])
    return np.asarray((apart < 0) & (side(other, *one[:2]) * side(other, *one[2:]) < 0))


def _inside(boxes: _Array, size: _Array) -> npt.NDArray[np.bool_]:
    """Whether each box is on the axes, or little beyond them to the right."""
    return np.asarray(((boxes[:, :2] >= 0) & (boxes[:, 2:] <= size + np.array([_RIGHT_PX, 0.0]))).all(axis=1))


def _pixels(figure: go.Figure, size: _Array, points: Sequence[_Point]) -> _Array:
    """Where points stand on axes of this size."""
    left, right = figure.layout.xaxis.range
    low, high = figure.layout.yaxis.range
    corner, across = np.array([left, high]), np.array([(right - left) or 1.0, (low - high) or 1.0])
    return np.asarray((np.array(points, dtype=np.float64).reshape(-1, 2) - corner) / across * size)


def _drawn(figure: go.Figure, size: _Array) -> _Array:
    """The boxes of all markers, whiskers and lines; lines are those of steps (shape hv)."""
    found = []
    for trace in figure.data:
        points = list(zip(trace.x, trace.y, strict=True))
        markers = trace.mode == "markers"
        if markers:
            at = _pixels(figure, size, points)
            found.append(np.hstack((at - _CLEAR_PX, at + _CLEAR_PX)))
        lines = list(_whiskers(trace, points) if markers else _steps(points))
        ends = [_pixels(figure, size, [line[end] for line in lines]) for end in (0, 1)]
        reach = 3.0 if markers else 1.0
        found.append(np.hstack((np.minimum(*ends) - reach, np.maximum(*ends) + reach)))
    return np.concatenate(found)


def _steps(points: Sequence[_Point]) -> Iterator[tuple[_Point, _Point]]:
    """The parts of a line that goes across, then up."""
    for a, b in pairwise(points):
        corner = (b[0], a[1])
        yield a, corner
        yield corner, b


def _whiskers(trace: Any, points: Sequence[_Point]) -> Iterator[tuple[_Point, _Point]]:
    """The ends of the whiskers of a scatter."""
    for axis, error in enumerate((trace.error_x, trace.error_y)):
        if error.array is None:
            continue
        for (x, y), up, down in zip(points, error.array, error.arrayminus, strict=True):
            yield ((x - down, y), (x + up, y)) if axis == 0 else ((x, y - down), (x, y + up))
