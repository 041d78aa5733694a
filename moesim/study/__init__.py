"""Many simulations of the same tokens.

In: scenarios. Out: a Study, one Result a variant on shared axes. `compare`
runs the named variants of one file, or several files, in order; the first is
the baseline. Sweeps and replications will stand beside it.
"""

from moesim.study.compare import compare, plan

__all__ = ["compare", "plan"]
