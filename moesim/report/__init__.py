"""What people see: figures, one HTML page, tables for the terminal.

In: runs by variant (frames, summary, manifest; `RunLike`), nothing else of
moesim. Out: Plotly figures (`draw`), a self-contained page (`report_html`),
rich tables (`moesim.report.terminal`), the worst steps (`worst_steps`). Plotly,
Jinja and rich are imported when they are needed.
"""

from moesim.report.comparison import points_of
from moesim.report.data import figure_data
from moesim.report.figures import FIGURES, POINT_FIGURES, draw
from moesim.report.html import report_html, sweep_html
from moesim.report.plots import Plots
from moesim.report.run import Run, RunLike
from moesim.report.worst import worst_steps

__all__ = [
    "FIGURES",
    "POINT_FIGURES",
    "Plots",
    "Run",
    "RunLike",
    "draw",
    "figure_data",
    "points_of",
    "report_html",
    "sweep_html",
    "worst_steps",
]
