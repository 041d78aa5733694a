"""Whose tokens: the batches of a run and what their router sees of them.

In: numbers of the scenario (seed, shape, skew) or recorded files. Out: token
sources with the batch of a step and either its logits (`SyntheticTokens`) or
the choices a real router made (`RecordedTokens`); recorded logits and counts
have their own (`RecordedLogits`, `RecordedCounts`). The law of the logits is in `logits`; `direct` draws the choices of
that law without them. Loads that are stated (`loads`) or counted (`counts`)
become popularities in `solve`.
"""

from moesim.workload.counted import RecordedCounts
from moesim.workload.counts import read_counts
from moesim.workload.dealt import DealtTokens
from moesim.workload.dynamics import Bursts, Mixture
from moesim.workload.fitted import fitted_loads
from moesim.workload.loads import by_layer, dirichlet_loads, hot_loads, lognormal_loads, power_law_loads, stated_loads
from moesim.workload.patterns import PATTERNS, Dealer, Pattern
from moesim.workload.recorded import RecordedLogits, RecordedTokens, no_choices
from moesim.workload.sequences import Batches
from moesim.workload.solve import solve_layer
from moesim.workload.synthetic import SyntheticTokens
from moesim.workload.trace_steps import TraceSteps

__all__ = [
    "PATTERNS",
    "Batches",
    "Bursts",
    "Dealer",
    "DealtTokens",
    "Mixture",
    "Pattern",
    "RecordedCounts",
    "RecordedLogits",
    "RecordedTokens",
    "SyntheticTokens",
    "TraceSteps",
    "by_layer",
    "dirichlet_loads",
    "fitted_loads",
    "hot_loads",
    "lognormal_loads",
    "no_choices",
    "power_law_loads",
    "read_counts",
    "solve_layer",
    "stated_loads",
]
