"""What people see: figures, one HTML page, tables for the terminal.

In: runs by variant (frames, summary, manifest; `RunLike`), nothing else of
moesim. Out: Plotly figures (`draw`), a self-contained page (`report_html`),
rich tables (`moesim.report.terminal`), the worst steps (`worst_steps`). Plotly,
Jinja and rich are imported when they are needed.
"""

from moesim.report.figures import FIGURES, draw
from moesim.report.html import report_html
from moesim.report.run import Run, RunLike
from moesim.report.worst import worst_steps

__all__ = ["FIGURES", "Run", "RunLike", "draw", "report_html", "worst_steps"]
