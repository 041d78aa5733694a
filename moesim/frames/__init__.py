"""Many runs as one frame, and nested keys as flat ones.

In: summaries and scenarios, nested like their JSON files. Out: mappings with keys joined by dots, and frames with a row
a run: first the axes, then variant, seed and the summary keys. It is the form of a sweep's summary.parquet, which
results write and reports read.
"""

from moesim.frames.nesting import filled, flatten, nested
from moesim.frames.points import axes_of, label, mean_over_seeds, points_frame, text

__all__ = ["axes_of", "filled", "flatten", "label", "mean_over_seeds", "nested", "points_frame", "text"]
