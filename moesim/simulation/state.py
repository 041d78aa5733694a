"""The state of a run between two steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesim.simulation.plan import RunPlan
from moesim.types import Placement, RouterState


@dataclass(frozen=True, kw_only=True)
class GpuFailure:
    """A GPU fails at `begin_ps` of the run and is replaced at `end_ps` (infinity: never).

    The others notice it after `detection_ps`. Where the failure `stalls`, they
    wait for the replacement, as some expert has no copy elsewhere.
    """

    gpu: int
    begin_ps: int
    end_ps: float
    detection_ps: int
    stalls: bool

    def noticed_before(self, clock_ps: int) -> bool:
        """Whether a step that begins then does without the GPU; a failure at that very time must be noticed first."""
        return self.begin_ps < clock_ps or (self.begin_ps == clock_ps and self.detection_ps == 0)


@dataclass(frozen=True, kw_only=True)
class RunState:
    """All that a step hands on to the next.

    `routers` has a state for each MoE layer, and is None where routers stay as
    they are. `placement` is where the experts of the next step live. The next
    step begins at `clock_ps` of the run; `step_ps` is the length of the one
    before, and `failures` are those before `clock_ps` whose GPUs are missing.
    """

    routers: tuple[RouterState, ...] | None
    placement: Placement
    clock_ps: int = 0
    step_ps: int = 0
    failures: tuple[GpuFailure, ...] = ()


def start(plan: RunPlan) -> RunState:
    """The state before the first step of a run."""
    routers = None
    if plan.training is not None:
        n = plan.n_logits
        untrained = RouterState(bias=np.zeros(n, dtype=np.float32), shift=np.zeros(n, dtype=np.float32))
        routers = (untrained,) * len(plan.model.moe_layers)
    return RunState(routers=routers, placement=plan.placement)
