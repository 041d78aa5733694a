"""`result.plot` and `study.plot`: figures by name, as attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from moesim.report.figures import FIGURES, draw
from moesim.report.run import RunLike

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Plots:
    """Figures of runs: `plot.pareto()` or `plot("pareto")`; `dir(plot)` names them.

    Each is a Plotly figure of its own, to restyle (`update_layout`), show or write.
    """

    def __init__(self, runs: Mapping[str, RunLike], points: pd.DataFrame | None = None) -> None:
        self._runs, self._points = runs, points

    def __call__(self, figure: str) -> go.Figure:
        """A figure by name (`moesim.report.FIGURES`).

        Raises:
            InputError: no such figure; the text names those there are.
        """
        return draw(figure, self._runs, self._points)

    def __getattr__(self, figure: str) -> Callable[[], go.Figure]:
        """The function that draws a figure of this name."""
        if figure not in FIGURES:
            raise AttributeError(f"no figure is named {figure!r}; there are {', '.join(FIGURES)}")
        return lambda: self(figure)

    def __dir__(self) -> list[Any]:
        return sorted(FIGURES)

    def __repr__(self) -> str:
        return f"figures: {', '.join(FIGURES)}"
