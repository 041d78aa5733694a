"""moesim: a discrete-event simulator of Mixture-of-Experts routing and load.

Scenario        what to simulate: `Scenario.from_yaml("x.yaml", overrides={"workload.steps": 3})`
simulate        one scenario -> Result: `.summary`, frames, `.plot`, `.save`
compare         variants of a scenario on the same tokens -> Study: `.summary`, `.results`, `.plot`, `.save`
sweep           the points of a scenario's `sweep:` block, times variants, times seeds -> Study
evolve          a router that balances itself, or collapses, over many steps -> a frame of its loads
Result, Study   what comes out, and `.load` to read it back
route           logits [T, E] -> Assignment: who goes where, by a named strategy
substitute      Assignment -> Assignment: near-equal experts traded for less loaded ones
group_mask      scores [T, E] -> the experts of each token's best groups, to limit any router to a few nodes
register_strategy  a router of your own, named `package.module:name` in scenarios
apply_capacity  Assignment -> Assignment: who is served, who is dropped
MoesimError     base of every error raised on purpose; the tree is in `moesim.errors`

The names are imported when they are first used, so that `import moesim` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moesim.errors import (
        ConservationError,
        DeadlockError,
        InputError,
        MoesimError,
        OutputError,
        RunError,
        ScenarioError,
        TooLargeError,
        TraceError,
    )
    from moesim.results import Result, Study
    from moesim.routing import apply_capacity, group_mask, register_strategy, route, substitute
    from moesim.scenario import Scenario
    from moesim.simulation.simulate import simulate
    from moesim.study.compare import compare
    from moesim.study.evolve import evolve
    from moesim.study.sweep import sweep
    from moesim.types import Assignment

__version__ = "0.2.0"

__all__ = [
    "Assignment",
    "ConservationError",
    "DeadlockError",
    "InputError",
    "MoesimError",
    "OutputError",
    "Result",
    "RunError",
    "Scenario",
    "ScenarioError",
    "Study",
    "TooLargeError",
    "TraceError",
    "__version__",
    "apply_capacity",
    "compare",
    "evolve",
    "group_mask",
    "register_strategy",
    "route",
    "simulate",
    "substitute",
    "sweep",
]

_HOME = {
    "Assignment": "moesim.types",
    "Result": "moesim.results",
    "Scenario": "moesim.scenario",
    "Study": "moesim.results",
    "apply_capacity": "moesim.routing",
    "compare": "moesim.study",
    "evolve": "moesim.study",
    "group_mask": "moesim.routing",
    "substitute": "moesim.routing",
    "register_strategy": "moesim.routing",
    "route": "moesim.routing",
    "simulate": "moesim.simulation",
    "sweep": "moesim.study",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'moesim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME.get(name, "moesim.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
