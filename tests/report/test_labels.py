"""Labels of points cover nothing."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from moesim.report.figures.labels import PLACES, Place, cross, label_points, leader_lines, meet, overlap, text_boxes

QUICKSTART = [
    ("mixtral", 0.0, 15.95),
    ("mixtral, capacity 1.25", 3.95, 15.81),
    ("mixtral, capacity 1.0", 11.8, 14.5),
    ("switch", 0.0, 14.86),
    ("switch, capacity 1.25", 7.13, 14.76),
    ("switch, capacity 1.0", 15.8, 13.88),
    ("random", 0.0, 15.74),
    ("random, capacity 1.25", 1.39, 15.72),
    ("random, capacity 1.0", 8.48, 14.49),
]
"""Drop rate and step time of its variants; before, markers and leader lines crossed three of the labels."""
HEIGHT = 304.0


def figure(points: list[tuple[str, float, float]], x: tuple[float, float], y: tuple[float, float]) -> go.Figure:
    """Markers at the points, with fixed ranges."""
    made = go.Figure(go.Scatter(x=[p[1] for p in points], y=[p[2] for p in points], mode="markers"))
    return made.update_layout(xaxis_range=x, yaxis_range=y)


def labelled(points: list[tuple[str, float, float]], x: tuple[float, float], y: tuple[float, float]) -> go.Figure:
    """The figure with a label for each point."""
    made = figure(points, x, y)
    label_points(made, [(at, up, text) for text, at, up in points], font_px=13, height_px=HEIGHT)
    return made


@pytest.mark.parametrize("width", [840.0, 1000.0, 1140.0])
def test_labels_cover_no_marker_no_label_and_no_leader_line(width: float) -> None:
    """The labels of the quickstart, at three widths of the figure."""
    x, y = (-0.6, 22.1), (0.0, 19.2)
    notes = labelled(QUICKSTART, x, y).layout.annotations
    assert [note.text for note in notes] == [text for text, _, _ in QUICKSTART]

    def pixels(at: float, up: float) -> np.ndarray:
        return np.array([(at - x[0]) / (x[1] - x[0]) * width, (y[1] - up) / (y[1] - y[0]) * HEIGHT])

    texts, leaders = [], []
    for note in notes:
        k = PLACES.index(Place(note.ax, note.ay, note.xanchor, note.yanchor))
        texts.append(text_boxes(pixels(note.x, note.y), note.text, 13)[[k]])
        leaders.append(leader_lines(pixels(note.x, note.y))[[k]])
    markers = np.array([[*(pixels(at, up) - 7), *(pixels(at, up) + 7)] for _, at, up in QUICKSTART])
    for i, (text, leader) in enumerate(zip(texts, leaders, strict=True)):
        others = np.concatenate([markers, *texts[:i], *texts[i + 1 :]])
        assert not overlap(text, others).any()
        assert not cross(leader, others).any()


def test_a_label_stands_beside_a_point_with_room() -> None:
    """On its right, without a line that leads there."""
    (note,) = labelled([("alone", 5.0, 5.0)], (0, 10), (0, 10)).layout.annotations
    assert (note.xanchor, note.ay) == ("left", 0)
    assert note.standoff > note.ax  # no leader line


def test_a_label_without_a_free_place_is_left_out() -> None:
    """A text wider than the figure has none."""
    assert not labelled([("x" * 250, 5.0, 5.0)], (0, 10), (0, 10)).layout.annotations


def test_escaped_and_wrapped_texts_are_as_wide_as_they_are_read() -> None:
    """Entities count as one character, lines one by one."""
    one, escaped, wrapped = (text_boxes(np.zeros(2), text, 10)[0] for text in ("a<b", "a&lt;b", "abc<br>ab"))
    assert escaped.tolist() == pytest.approx(text_boxes(np.zeros(2), "abc", 10)[0].tolist())
    assert (wrapped[2] - wrapped[0], wrapped[3] - wrapped[1]) == pytest.approx((15.6, 26.0))
    assert one.tolist() == pytest.approx(escaped.tolist())


def test_lines_cross_boxes_and_one_another() -> None:
    """Touching from outside is no crossing."""
    box = np.array([[0.0, 0.0, 2.0, 2.0]])
    lines = np.array([[-1.0, 1.0, 3.0, 1.0], [-1.0, 3.0, 3.0, 3.0], [-1.0, -1.0, -0.5, -0.5], [3.0, -1.0, -1.0, 3.0]])
    assert cross(lines, box)[:, 0].tolist() == [True, False, False, True]
    assert meet(lines[:1], lines)[0].tolist() == [False, False, False, True]
    assert overlap(box, box + 1.0).all()
    assert not overlap(box, box + 2.0).any()
