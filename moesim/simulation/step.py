"""One step of a run: a function from a plan, a state and a batch to what happened and the next state."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace

from moesim.engine import ENGINES, longest_ps, too_long
from moesim.metrics import later, queued_step_times, step_times
from moesim.simulation.conditions import INTERVAL_STEPS, Conditions, conditions_of, first_failure, inject
from moesim.simulation.failures import Outages, mid_step_failure, with_failure
from moesim.simulation.plan import RunPlan
from moesim.simulation.profile import Profile
from moesim.simulation.program import lay_out_evenly, lay_out_step
from moesim.simulation.queue_step import after_queues, even_groups, run_queues
from moesim.simulation.routing_step import route_step
from moesim.simulation.state import RunState
from moesim.types import Batch, Program, QueuedRun, RoutedStep, StepTimes, Timeline
from moesim.types.picoseconds import MAX_PS


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What happened in a step: where its tokens went, and when; `state` is that after it.

    `balanced_ps` is the time of the same step with its load spread evenly,
    the reference of the imbalance penalty.
    """

    routed: RoutedStep
    times: StepTimes
    balanced_ps: int
    state: RunState


def run_step(
    plan: RunPlan,
    state: RunState,
    batch: Batch,
    conditions: Conditions,
    *,
    pool: Executor | None = None,
    profile: Profile | None = None,
) -> StepOutcome:
    """Route the tokens of a step, lay it out and run it, with all that goes wrong in it.

    Args:
        plan: of the run.
        state: before the step.
        batch: its tokens.
        conditions: from the begin of the step on; where it turns out longer than they say, those of a longer interval.
        pool: threads over the MoE layers; the outcome does not depend on them.
        profile: where the wall time of the stages is added.

    Raises:
        TooLargeError: the step, or the run, takes longer than picoseconds in 64 bits count.
        ConservationError: tokens, bytes or time were lost, which is a bug.
    """
    profile = profile or Profile()
    keep_tasks = plan.measured_step(batch) < plan.keep.timeline_steps
    payload = {"dispatch_bytes": plan.dispatch_bytes, "combine_bytes": plan.combine_bytes}
    if plan.queues is None:
        ran, conditions = _run(plan, state, batch, conditions, pool, profile)
        balanced, conditions = _run(plan, state, batch, conditions, pool, Profile(), like=ran.routed)
        routed, balanced_ps = ran.routed, balanced.timeline.makespan_ps
        with profile.timed("metrics"):
            times = step_times(ran.program, ran.timeline, **payload, keep_tasks=keep_tasks)
    else:
        routed, program, queues, balanced_ps, conditions = _run_with_queues(
            plan, state, batch, conditions, pool, profile
        )
        with profile.timed("metrics"):
            times = queued_step_times(queues, program, **payload, keep_tasks=keep_tasks)
    clock_ps = conditions.begin_ps + times.makespan_ps
    _check_time(plan, batch, times.makespan_ps, clock_ps)
    after = replace(
        after_routing(state, routed),
        clock_ps=clock_ps,
        step_ps=times.makespan_ps,
        failures=tuple(failure for failure in conditions.failures if failure.begin_ps < clock_ps < failure.end_ps),
    )
    waited_ps = conditions.begin_ps - state.clock_ps
    if waited_ps:
        times, balanced_ps = later(times, waited_ps), balanced_ps + waited_ps
    return StepOutcome(routed=routed, times=times, balanced_ps=balanced_ps, state=after)


def after_routing(state: RunState, routed: RoutedStep) -> RunState:
    """The state with its routers as they are after a step."""
    return state if routed.router is None else replace(state, routers=routed.router.states)


@dataclass(frozen=True, kw_only=True)
class _Ran:
    """A step that was run: its loads, which a failure within it changes, its program and its timeline."""

    routed: RoutedStep
    program: Program
    timeline: Timeline


def _run(
    plan: RunPlan,
    state: RunState,
    batch: Batch,
    conditions: Conditions,
    pool: Executor | None,
    profile: Profile,
    *,
    like: RoutedStep | None = None,
) -> tuple[_Ran, Conditions]:
    """Run a step, or one with the loads of `like` spread evenly, until no more goes wrong in it.

    A GPU that fails within the step ends the run that went before: what comes
    later is routed and laid out again without it. Where the step is longer
    than the conditions say, it is run again with those of a longer interval.
    """
    at_begin = Outages(missing=conditions.missing)
    undisturbed = _lay_out(plan, state, batch, at_begin, pool, profile, like)
    outages, (routed, laid_out) = at_begin, undisturbed
    ran: _Ran | None = None
    while True:
        with profile.timed("engine"):
            program = inject(laid_out, conditions, batch.step)
            if ran is not None:
                program = with_failure(ran.program, program, ran.timeline, outages.failures[-1])
            ran = _Ran(routed=routed, program=program, timeline=_interpret(plan, program))
        length_ps = ran.timeline.makespan_ps
        if length_ps > conditions.length_ps:
            conditions = conditions_of(plan, state, INTERVAL_STEPS * length_ps)
            outages, (routed, laid_out), ran = at_begin, undisturbed, None
            continue
        failure = first_failure(conditions, length_ps, [known.gpu for known in outages.failures])
        if failure is None:
            return ran, conditions
        newest = mid_step_failure(
            undisturbed[1],
            ran.timeline,
            failure.gpu,
            at_ps=failure.begin_ps - conditions.begin_ps,
            detection_ps=failure.detection_ps,
        )
        outages = Outages(missing=outages.missing, failures=(*outages.failures, newest))
        routed, laid_out = _lay_out(plan, state, batch, outages, pool, profile, like)


def _lay_out(
    plan: RunPlan,
    state: RunState,
    batch: Batch,
    outages: Outages,
    pool: Executor | None,
    profile: Profile,
    like: RoutedStep | None,
) -> tuple[RoutedStep, Program]:
    """The loads and the program of a step with these outages; with `like`, its loads spread evenly."""
    if like is not None:
        return like, lay_out_evenly(plan, like, outages.at_end())
    routed = route_step(plan, state, batch, outages, pool=pool, profile=profile)
    with profile.timed("layout"):
        return routed, lay_out_step(plan, routed, outages)


def _interpret(plan: RunPlan, program: Program) -> Timeline:
    longest = longest_ps(program)
    if longest > MAX_PS:
        raise too_long(f"a step takes up to {longest / 1e12:.3g} s of simulated time")
    return ENGINES[plan.engine](program)


def _run_with_queues(
    plan: RunPlan, state: RunState, batch: Batch, conditions: Conditions, pool: Executor | None, profile: Profile
) -> tuple[RoutedStep, Program, QueuedRun, int, Conditions]:
    """Run a step with queued experts, and one with its load spread evenly: loads, program, run, the other's time."""
    routed = route_step(plan, state, batch, pool=pool, profile=profile)
    with profile.timed("layout"):
        program = lay_out_step(plan, routed)
    with profile.timed("engine"):
        while True:
            run = run_queues(plan, inject(program, conditions, batch.step), routed, routed.groups, limited=True)
            if run.makespan_ps <= conditions.length_ps:
                break
            conditions = conditions_of(plan, state, INTERVAL_STEPS * run.makespan_ps)
    routed = after_queues(plan, routed, run)
    even = lay_out_evenly(plan, routed)
    groups = even_groups(even)
    while True:
        balanced = run_queues(plan, inject(even, conditions, batch.step), routed, groups, limited=False)
        if balanced.makespan_ps <= conditions.length_ps:
            return routed, program, run, balanced.makespan_ps, conditions
        conditions = conditions_of(plan, state, INTERVAL_STEPS * balanced.makespan_ps)


def _check_time(plan: RunPlan, batch: Batch, step_ps: int, clock_ps: int) -> None:
    """Refuse times that sums in 64 bits do not hold."""
    n_gpus = plan.cluster.n_gpus
    if max(clock_ps, step_ps * n_gpus) > MAX_PS:
        raise too_long(
            f"step {plan.measured_step(batch)} takes {step_ps / 1e12:,.0f} s of simulated time on {n_gpus} GPUs and "
            f"ends after {clock_ps / 1e12:,.0f} s"
        )
