"""From a scenario to its stages, resolved and checked before anything runs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from moesim.calibration.constants_file import read_backend
from moesim.calibration.lookup import with_table
from moesim.errors import InputError, ParameterError, ScenarioError
from moesim.hardware import Backend, backend_of, check_backend, default_backend
from moesim.placement import place
from moesim.routing import Strategy
from moesim.scenario import Scenario
from moesim.scenario.schema import KernelTables
from moesim.simulation.checks import check_stages
from moesim.simulation.popularity import Popularity, popularity_of
from moesim.simulation.sampling import check_sampling, router_of, settle
from moesim.simulation.stages import Stages, group_nodes, zero_experts
from moesim.types import Placement
from moesim.workload import RecordedTokens, SyntheticTokens, read_trace


def prepare(scenario: Scenario) -> Stages:
    """Resolve names and parameters against the stages and refuse what cannot run.

    Of a scenario that leaves `workload.sampling` open it is decided here, for that scenario alone.
    """
    scenario = settle({"": scenario})[""]
    model, cluster, spec = scenario.model, scenario.cluster, scenario.spec
    recorded = spec.workload.trace is not None
    top_k = spec.routing.top_k or model.top_k
    model = dataclasses.replace(model, top_k=top_k)
    router, parameters = (None, None) if recorded else _router(scenario, top_k)
    check_sampling(scenario)
    zero = 0 if router is None else zero_experts(router, parameters)
    source: RecordedTokens | SyntheticTokens
    if recorded:
        source = _recorded(scenario, top_k)
        file = os.path.basename(source.trace.path), source.trace.sha256
    else:
        popularity, file = popularity_of(scenario)
        source = _synthetic(scenario, zero, popularity)
    placement = _placement(scenario)
    stages = Stages(
        scenario=scenario,
        model=model,
        cluster=cluster,
        precision=scenario.precision,
        strategy=router,
        parameters=parameters,
        top_k=top_k,
        source=source,
        placement=placement,
        n_steps=spec.workload.steps,
        kernels=_kernels(scenario),
        tokens_file=file,
    )
    check_stages(stages)
    return stages


def _router(scenario: Scenario, top_k: int) -> tuple[Strategy[Any], Any]:
    """The strategy of the scenario with its parameters, the model's own where it names none."""
    routing, model = scenario.spec.routing, scenario.model
    name = routing.strategy or model.router
    try:
        found, parameters = router_of(scenario)
        parameters = _limited_to_nodes(scenario, found, top_k, parameters)
        found.validate(model.n_experts + zero_experts(found, parameters), top_k, parameters)
    except ParameterError as error:
        given = f"routing.parameters.{error.argument}"
        where = given if error.argument in routing.parameters else "routing"
        if error.argument == "top_k" and routing.top_k is not None:
            where = "routing.top_k"
        raise scenario.error(where, f"{error.argument} {error.found} for {name}", error.wanted) from None
    except ScenarioError:  # of a field of its own
        raise
    except InputError as error:
        raise scenario.error("routing.strategy", name, str(error)) from None
    return found, parameters


def _limited_to_nodes(scenario: Scenario, found: Strategy[Any], top_k: int, parameters: Any) -> Any:
    """The parameters of a router with groups of its own, limited to nodes where the balancer says so."""
    balancer, n_nodes, n_experts = scenario.spec.routing.substitution, group_nodes(scenario), scenario.model.n_experts
    if balancer is None or balancer.policy != "node-limited":
        return parameters
    if not found.obeys_mask:
        wanted = f"another: {found.name} does not choose by logits alone"
        raise scenario.error("routing.substitution.policy", "node-limited", wanted)
    if not 1 <= balancer.nodes <= n_nodes:
        raise scenario.error("routing.substitution.nodes", balancer.nodes, f"1 to the {n_nodes} nodes of a group")
    if n_experts % n_nodes or balancer.nodes * (n_experts // n_nodes) < top_k:
        wanted = f"nodes that hold top_k ({top_k}) of {n_experts} experts evenly"
        raise scenario.error("routing.substitution.nodes", balancer.nodes, wanted)
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
    return found.with_groups(parameters, balancer.nodes, n_nodes)


def _synthetic(scenario: Scenario, zero: int, popularity: Popularity | None) -> SyntheticTokens:
    workload, model = scenario.spec.workload, scenario.model
    assert workload.tokens_per_gpu is not None  # only a trace comes without
    return SyntheticTokens(
        seed=scenario.spec.seed,
        n_layers=len(model.moe_layers),
        n_experts=model.n_experts,
        n_zero_experts=zero,
        n_ranks=scenario.cluster.n_gpus - (scenario.spec.placement.expert_gpus or 0),
        tokens_per_rank=workload.tokens_per_gpu,
        phase=workload.phase,
        sequence_tokens=workload.sequence_tokens,
        zipf_exponent=workload.popularity.exponent if workload.popularity.kind == "zipf" else 0.0,
        topic_count=workload.topics.count,
        topic_strength=workload.topics.strength,
        vocab_size=model.vocab_size,
        popularity=popularity,
    )


def _recorded(scenario: Scenario, top_k: int) -> RecordedTokens:
    """The recorded tokens of the scenario's trace, which must be of its model."""
    spec, model = scenario.spec, scenario.model
    assert spec.workload.trace is not None
    if spec.routing.strategy not in (None, "recorded"):
        raise scenario.error(
            "routing.strategy",
            spec.routing.strategy,
            "no strategy: the trace holds the choices of its own router",
        )
    try:
        trace = read_trace(spec.workload.trace)
    except InputError as error:
        raise scenario.error("workload.trace", spec.workload.trace, str(error)) from None
    of_model = f"as model {model.name} has"
    for field_name, found, wanted, why in (
        ("layers", trace.n_layers, len(model.moe_layers), of_model),
        ("top_k", trace.top_k, top_k, of_model if top_k == model.top_k else "as routing.top_k says"),
    ):
        if found != wanted:
            raise scenario.error("workload.trace", f"{found} {field_name}", f"{wanted}, {why}")
    if trace.n_experts > model.n_experts:
        raise scenario.error(
            "workload.trace",
            f"expert {trace.n_experts - 1}",
            f"experts 0 to {model.n_experts - 1} of {model.name}",
        )
    return RecordedTokens(
        trace,
        n_ranks=scenario.cluster.n_gpus - (spec.placement.expert_gpus or 0),
        tokens_per_rank=spec.workload.tokens_per_gpu,
    )


def _kernels(scenario: Scenario) -> Backend:
    """The kernels that the scenario names: a family, a file of constants, or measured tables before one of these."""
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
