"""Many simulations of the same tokens.

In: scenarios. Out: a Study, one Result a variant on shared axes. `compare`
runs the named variants of one file, or several files, `sweep` the grid of a
file's axes; the first run is the baseline. `evolve` follows a router that
changes over many steps, without the engine.
"""

from moesim.study.compare import compare, plan, run_all
from moesim.study.evolve import evolve
from moesim.study.sweep import grid, sweep

__all__ = ["compare", "evolve", "grid", "plan", "run_all", "sweep"]
