"""Many simulations of the same tokens.

In: scenarios. Out: a Study on shared axes; its first variant is the baseline.
`compare` runs the named variants of one file, or several files, `sweep` the
points of a file's `sweep:` block, both under as many seeds as asked for
(`replicate`); `shortfall` says where these were too few. `statistics` says what differs beyond chance, `store` keeps
finished runs, `execute` runs them in other processes. `evolve` follows a router
that changes over many steps, without the engine. `describe_model` says what a
model is and which GPUs hold it.
"""

from moesim.study.compare import compare, plan, replicate
from moesim.study.describe import describe_model
from moesim.study.evolve import evolve
from moesim.study.replicate import shortfall
from moesim.study.sweep import plan_sweep, sweep

__all__ = ["compare", "describe_model", "evolve", "plan", "plan_sweep", "replicate", "shortfall", "sweep"]
