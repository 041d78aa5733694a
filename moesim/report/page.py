"""Self-contained pages: templates, their style, and figures inside them."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

CONFIG = {
    "displaylogo": False,
    "responsive": True,
    # Plotly's own button would send the data of a figure to a server; boxes and lassos select nothing here.
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
}
"""How Plotly shows every figure of every page."""


def page_html(template: str, **values: Any) -> str:
    """A page of `templates`, with the style and the Plotly script in it; all other values are escaped."""
    import jinja2
    from plotly.offline import get_plotlyjs

    folder = files("moesim.report").joinpath("templates")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = folder.joinpath(template).read_text(encoding="utf-8")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    return environment.from_string(text).render(style=style, plotly_js=get_plotlyjs(), **values)


def figure_html(figure: go.Figure, name: str) -> str:
    """A figure as a part of a page, with an id of its own so that equal figures are equal bytes."""
    import plotly.io as pio

    return str(
        pio.to_html(
            figure,
            include_plotlyjs=False,
            full_html=False,
            div_id=f"figure-{name.replace('_', '-')}",
            config={**CONFIG, "toImageButtonOptions": {"format": "svg", "filename": name}},
        )
    )
