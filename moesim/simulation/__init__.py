"""One scenario, simulated: the one place that wires the stages together.

scenario -> workload -> routing -> placement -> hardware -> engine -> metrics
-> results. `prepare` makes the RunPlan of a scenario and refuses what cannot
run; `simulate` is the loop over a RunState: `conditions` says what goes wrong
in the next step, `step` routes it (`routing_step`), lays it out (`program`),
runs it and gives the next state.
"""

from moesim.simulation.sampling import resolve_sampling
from moesim.simulation.simulate import PreparedRun, check, prepared, run, simulate
from moesim.simulation.targets import solved_or_error

__all__ = ["PreparedRun", "check", "prepared", "resolve_sampling", "run", "simulate", "solved_or_error"]
