"""From a scenario to the plan of its run: names are resolved, and what cannot run is refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from moesim.calibration.constants_file import read_backend
from moesim.calibration.lookup import with_table
from moesim.errors import InputError, ParameterError, ScenarioError
from moesim.hardware import Backend, backend_of, check_backend, default_backend
from moesim.placement import place
from moesim.routing import Strategy
from moesim.scenario import Scenario
from moesim.scenario.schema import KernelTables
from moesim.simulation.checks import check_plan
from moesim.simulation.fault_schedule import FaultSchedule
from moesim.simulation.made_tokens import dealt_tokens, synthetic_tokens
from moesim.simulation.plan import LayerRouter, RunPlan, group_nodes
from moesim.simulation.popularity import popularity_of
from moesim.simulation.recorded_source import recorded_source, trace_of, unrecorded_layers
from moesim.simulation.sampling import check_sampling, has_own_router, resolve_sampling, router_of
from moesim.simulation.targets import skew_target, with_solved_target
from moesim.types import CountsTrace, EqualSequences, LayerShape, ModelShape, Placement, Recording, TokenSource, Trace
from moesim.types.policies import CapacityPolicy, Fault, Kept, QueuePolicy, SubstitutionPolicy, TrainingBalance
from moesim.workload import SyntheticTokens

Policy = TypeVar("Policy")


def prepare(scenario: Scenario) -> RunPlan:
    """What stays the same over the steps of a scenario's run; refuses a scenario that cannot run.

    Args:
        scenario: what to run; where it leaves `workload.sampling` or a target open, that is decided for it alone.

    Raises:
        InputError: one line that names the file, line and field, what was found and what would be right.
    """
    scenario = with_solved_target(resolve_sampling({"": scenario})[""])
    spec = scenario.spec
    workload, routing, simulation = spec.workload, spec.routing, spec.simulation
    model = dataclasses.replace(scenario.model, top_k=routing.top_k or scenario.model.top_k)
    if workload.trace is not None:  # direct sampling of a recording is refused before its file is looked for
        check_sampling(scenario)
    trace = trace_of(scenario)
    routers = () if isinstance(trace, Trace | CountsTrace) else _routers(scenario, model)
    check_sampling(scenario)
    n_source_ranks = scenario.cluster.n_gpus - (spec.placement.expert_gpus or 0)
    source, file = _source(scenario, trace, model, routers, n_source_ranks)
    queued = simulation.experts == "queued"
    plan = RunPlan(
        seed=spec.seed,
        model=model,
        cluster=scenario.cluster,
        precision=scenario.precision,
        parallelism=scenario.parallelism,
        kernels=_kernels(scenario),
        source=source,
        is_training=workload.phase == "train",
        sequences=_sequences(scenario),
        draws_choices=not routers or workload.pattern is not None or workload.sampling == "direct",
        routers=routers,
        unrecorded_layers=frozenset() if trace is None else unrecorded_layers(trace, model),
        capacity=None if routing.capacity is None else _plain(CapacityPolicy, routing.capacity),
        substitution=None if routing.substitution is None else _plain(SubstitutionPolicy, routing.substitution),
        training=None if routing.training is None else _plain(TrainingBalance, routing.training),
        placement=_placement(scenario),
        n_source_ranks=n_source_ranks,
        queues=QueuePolicy(room=simulation.queue_tokens, overflow=simulation.queue_overflow) if queued else None,
        engine=_engine(simulation.engine, queued=queued),
        network=simulation.network,
        overlap=_overlap(simulation.overlap, workload.phase),
        overlap_slowdown=simulation.overlap_slowdown,
        faults=_faults(scenario),
        n_steps=workload.steps,
        warmup_steps=simulation.warmup_steps,
        keep=_plain(Kept, spec.keep),
        tokens_file=file,
        target=skew_target(spec.workload.popularity) if isinstance(source, SyntheticTokens) else None,
    )
    check_plan(scenario, plan)
    return plan


def _plain(noun: type[Policy], fields: object) -> Policy:
    """The values of a part of the scenario as a plain dataclass, whose fields have the same names."""
    return noun(**{field.name: getattr(fields, field.name) for field in dataclasses.fields(noun)})  # type: ignore[arg-type]


def _faults(scenario: Scenario) -> FaultSchedule:
    faults = [_plain(Fault, fault) for fault in scenario.spec.faults]
    cluster = scenario.cluster
    return FaultSchedule(faults, seed=scenario.spec.seed, n_gpus=cluster.n_gpus, levels=cluster.levels)


def _sequences(scenario: Scenario) -> EqualSequences:
    """The sequences of the workload."""
    workload = scenario.spec.workload
    decodes = workload.phase == "decode"
    return EqualSequences(decodes=decodes, length=workload.context_tokens if decodes else workload.sequence_tokens)


def _engine(wanted: str, *, queued: bool) -> str:
    """The interpreter that runs the steps: the one that is wanted; by default compiled, where it is valid."""
    return ("simpy" if queued else "compiled") if wanted == "auto" else wanted


def _overlap(wanted: str | None, phase: str) -> str:
    """How computing and exchanging overlap, a name of OVERLAPS; decode orders two micro-batches in its own way."""
    return "two-batch-decode" if wanted == "two-batch" and phase == "decode" else wanted or "none"


def _source(
    scenario: Scenario, trace: Recording | None, model: ModelShape, routers: tuple[LayerRouter, ...], n_ranks: int
) -> tuple[TokenSource, tuple[str, str]]:
    """Where the tokens come from; name and sha256 of the file that they rest on, or "", ""."""
    if trace is not None:
        n_logits = model.n_experts + (routers[0].n_zero_experts if routers else 0)
        recorded = recorded_source(scenario, trace, model, n_ranks, _sequences(scenario), n_logits)
        return recorded, (os.path.basename(trace.path), trace.sha256)
    if scenario.spec.workload.pattern is not None:
        return dealt_tokens(scenario, model, n_ranks), ("", "")
    popularity, file = popularity_of(scenario)
    return synthetic_tokens(scenario, routers[0].n_zero_experts, popularity, n_ranks), file


def _routers(scenario: Scenario, model: ModelShape) -> tuple[LayerRouter, ...]:
    """The router of each MoE layer."""
    by_class = [_router(scenario, each.shape) if each.shape.n_experts else None for each in model.layers]
    routers = tuple(found for i in model.class_of_layer if (found := by_class[i]) is not None)
    zero = sorted({router.n_zero_experts for router in routers})
    if len(zero) > 1:
        wanted = "routers that score equally many experts that compute nothing in all layers"
        raise scenario.error("model.router_parameters", " and ".join(map(str, zero)), wanted)
    return routers


def _router(scenario: Scenario, layer: LayerShape) -> LayerRouter:
    routing, top_k = scenario.spec.routing, layer.top_k
    own = has_own_router(scenario, layer)
    name = layer.router if own else routing.strategy or layer.router
    try:
        found, parameters = router_of(scenario, layer)
        parameters = _limited_to_nodes(scenario, found, top_k, parameters)
        found.validate(layer.n_experts + found.zero_experts(parameters), top_k, parameters)
    except ParameterError as error:
        given = f"routing.parameters.{error.argument}"
        where = given if error.argument in routing.parameters else "routing"
        if error.argument == "top_k" and routing.top_k is not None:
            where = "routing.top_k"
        where = "model.layers" if own else where
        raise scenario.error(where, f"{error.argument} {error.found} for {name}", error.wanted) from None
    except ScenarioError:  # of a field of its own
        raise
    except InputError as error:
        raise scenario.error("model.layers" if own else "routing.strategy", name, str(error)) from None
    return LayerRouter(strategy=found, parameters=parameters, top_k=top_k)


def _limited_to_nodes(scenario: Scenario, found: Strategy[Any], top_k: int, parameters: Any) -> Any:
    """The router's parameters, whose expert groups are the nodes where `routing.substitution` limits it to these."""
    substitution, n_nodes, n_experts = (
        scenario.spec.routing.substitution,
        group_nodes(scenario.parallelism, scenario.cluster),
        scenario.model.n_experts,
    )
    if substitution is None or substitution.policy != "node-limited":
        return parameters
    if not found.obeys_mask:
        wanted = f"another: {found.name} does not choose by logits alone"
        raise scenario.error("routing.substitution.policy", "node-limited", wanted)
    if not 1 <= substitution.nodes <= n_nodes:
        raise scenario.error("routing.substitution.nodes", substitution.nodes, f"1 to the {n_nodes} nodes of a group")
    if n_experts % n_nodes or substitution.nodes * (n_experts // n_nodes) < top_k:
        wanted = f"nodes that hold top_k ({top_k}) of {n_experts} experts evenly"
        raise scenario.error("routing.substitution.nodes", substitution.nodes, wanted)
    if found.zero_experts(parameters):
        raise scenario.error(
            "routing.substitution.policy", "node-limited", "another: zero-computation experts have no node"
        )
    if found.with_groups is None:
        return parameters
    _, n_groups = found.groups(parameters)
    if n_groups > 1:
        raise scenario.error(
            "routing.substitution.policy",
            "node-limited",
            f"another: the router has {n_groups} groups of its own",
        )
    return found.with_groups(parameters, substitution.nodes, n_nodes)


def _kernels(scenario: Scenario) -> Backend:
    """The kernels that the scenario names: a family, a file of constants, or tables whose rows precede one of these."""
    kernels = scenario.spec.cluster.kernels
    if not isinstance(kernels, KernelTables):
        return _family(scenario, kernels, "cluster.kernels")
    backend = _family(scenario, kernels.family, "cluster.kernels.family")
    queued = scenario.spec.simulation.experts == "queued"
    excluded = {"experts": "queued experts are kernels of their own"} if queued else {}
    try:
        return with_table(backend, kernels.table, scenario.cluster.gpu, excluded)
    except InputError as error:
        wanted = f"a measured table or a folder of them ({error})"
        raise scenario.error("cluster.kernels.table", Path(kernels.table).name, wanted) from None


def _family(scenario: Scenario, named: str | None, field: str) -> Backend:
    """The family of calibrated kernels, or the file, of that name; by default what suits data types and network."""
    if named is None:
        return backend_of(default_backend(scenario.precision, scenario.cluster.network))
    if Path(named).is_absolute():  # as a path is once it is resolved
        try:
            return read_backend(named, scenario.precision, scenario.cluster.network)
        except InputError as error:
            raise scenario.error(field, Path(named).name, f"a file of constants ({error})") from None
    try:
        backend = backend_of(named)
        check_backend(backend, scenario.precision)
    except InputError as error:
        raise scenario.error(field, named, str(error)) from None
    return backend


def _placement(scenario: Scenario) -> Placement:
    wanted, model, n_gpus = scenario.spec.placement, scenario.model, scenario.cluster.n_gpus
    if wanted.expert_gpus is not None and wanted.expert_gpus >= n_gpus:
        raise scenario.error("placement.expert_gpus", wanted.expert_gpus, f"1 to {n_gpus - 1}: some compute attention")
    parallel = scenario.parallelism
    holders = wanted.expert_gpus or n_gpus
    try:
        placement = place(
            wanted.strategy,
            n_experts=model.n_experts,
            n_layers=len(model.moe_layers),
            n_ranks=wanted.expert_gpus or parallel.expert,
            redundant_experts=wanted.redundant_experts,
            n_groups=n_gpus // parallel.group_gpus,
            expert_tp=parallel.expert_tp,
        )
        rank = (placement.rank + (n_gpus - holders)).astype(np.int32)
        return dataclasses.replace(placement, rank=rank, n_ranks=n_gpus)
    except InputError as error:
        found = f"{wanted.strategy} with {wanted.redundant_experts} redundant experts"
        raise scenario.error("placement", found, str(error)) from None
