"""One scenario, simulated: the one place that wires the stages together.

scenario -> workload -> routing -> placement -> hardware -> engine -> metrics
-> results. `stages` resolves a scenario against the packages and refuses what
cannot run, `sampling` decides how choices are drawn, `routed` sends the tokens
of a step to slots, `program` lays the step out, `runner` runs it with its
`faults`, `losses` of GPUs and `queued` experts, `simulate` runs all steps.
"""

from moesim.simulation.sampling import settle
from moesim.simulation.simulate import check, simulate

__all__ = ["check", "settle", "simulate"]
