"""When things happen: the work of a step as a program, and the SimPy model that runs it.

In: durations, traffic, placement and the network's rates. Out: a Program
(arrays) and its Timeline (start and end of every operation on every GPU, in
integer picoseconds). `layout` builds programs, `balanced` the evenly loaded
twin of a step, `simpy_engine` runs them.
"""

from moesim.engine.balanced import balanced_traffic
from moesim.engine.layout import lay_out
from moesim.engine.simpy_engine import run

__all__ = ["balanced_traffic", "lay_out", "run"]
