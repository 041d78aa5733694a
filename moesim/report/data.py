"""The numbers that a figure shows, as a frame: what its CSV holds, on the page and from the command line."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLUMNS = (
    *("panel", "frame", "series", "x_axis", "x", "y_axis", "y", "value_axis", "value", "base"),
    *("error_plus", "error_minus", "x_error_plus", "x_error_minus", "detail"),
)


def figure_data(figure: go.Figure) -> pd.DataFrame:
    """A row a point, bar or cell of a Plotly figure; `x_axis`, `y_axis` and `value_axis` name what it is, with units.

    Bars that do not begin at 0 have their beginning in `base`; `x` (or `y`) is
    their end. Columns that are empty in all rows are left out. report.js makes
    the same table in the browser.
    """
    layout = figure.layout.to_plotly_json()
    parts = [_rows(trace, layout, "") for trace in figure.data]
    for frame in figure.frames:
        parts += [_rows(trace, layout, str(frame.name)) for trace in frame.data]
    known = [part for part in parts if part is not None]
    if not known:
        return pd.DataFrame(columns=["x", "y"])
    table = pd.concat(known, ignore_index=True).reindex(columns=list(COLUMNS))
    empty = [name for name in COLUMNS if table[name].isna().all() or (table[name].astype(str) == "").all()]
    return table.drop(columns=empty)


def label_text(text: object) -> str:
    """A label of a figure as it reads: without line breaks and entities."""
    broken = ("" if text is None else str(text)).replace("<br>", " ").replace("%\u200b{", "%{")
    return " ".join(html.unescape(broken).split())


def _rows(trace: Any, layout: Mapping[str, Any], frame: str) -> pd.DataFrame | None:
    named = {
        "panel": label_text(trace.meta),
        "frame": frame,
        "series": label_text(trace.name),
        "x_axis": label_text(_title(_axis(layout, "x", trace.xaxis))),
        "y_axis": label_text(_title(_axis(layout, "y", trace.yaxis))),
    }
    x_text, y_text = (_texts(_axis(layout, side, trace[f"{side}axis"])) for side in "xy")
    if trace.type == "heatmap":
        cells = np.asarray(trace.z, dtype=np.float64)
        columns = np.asarray(trace.x if trace.x is not None else np.arange(cells.shape[1]))
        rows = np.asarray(trace.y if trace.y is not None else np.arange(cells.shape[0]))
        return pd.DataFrame(
            {
                **named,
                "x": [x_text(value) for _ in rows for value in columns],
                "y": [y_text(value) for value in rows for _ in columns],
                "value_axis": label_text(layout.get("coloraxis", {}).get("colorbar", {}).get("title", {}).get("text")),
                "value": cells.ravel(),
            }
        )
    x, y = list(_values(trace.x)), list(_values(trace.y))
    if not [value for value in x if value is not None]:
        return None
    base = list(_values(trace.base)) if trace.type == "bar" and trace.base is not None else []
    if base and trace.orientation == "h":
        x = [start + length for start, length in zip(base, x, strict=True)]
    elif base:
        y = [start + length for start, length in zip(base, y, strict=True)]
    more: dict[str, Any] = {"base": base} if base else {}
    for prefix, error in (("", getattr(trace, "error_y", None)), ("x_", getattr(trace, "error_x", None))):
        if error is not None and error.array is not None:
            more[f"{prefix}error_plus"] = list(_values(error.array))
            more[f"{prefix}error_minus"] = list(_values(error.arrayminus))
    detail = trace.text if trace.type == "scatter" and trace.text is not None else trace.customdata
    if detail is not None:
        more["detail"] = [label_text(value) for value in _values(detail)]
    return pd.DataFrame({**named, "x": [x_text(value) for value in x], "y": [y_text(value) for value in y], **more})


def _values(values: Any) -> Iterator[Any]:
    for value in () if values is None else values:
        yield value.item() if isinstance(value, np.generic) else value


def _axis(layout: Mapping[str, Any], side: str, reference: str | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = layout.get(f"{side}axis{(reference or side)[1:]}", {})
    return found


def _title(axis: Mapping[str, Any]) -> Any:
    """The title of an axis; inner panels of a grid leave it to the outer ones, and have none."""
    return axis.get("title", {}).get("text")


def _texts(axis: Mapping[str, Any]) -> Any:
    """From a place on an axis to what its tick says, where ticks are texts."""
    ticks = axis.get("ticktext")
    if ticks is None:
        return lambda value: value.item() if isinstance(value, np.generic) else value
    named = {float(place): label_text(text) for place, text in zip(axis["tickvals"], ticks, strict=True)}
    return lambda value: named.get(float(value), value) if isinstance(value, int | float | np.number) else value
