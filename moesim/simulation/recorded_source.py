"""The tokens of a scenario's trace, which must be those of its model."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.recordings import read_trace, rows_of_layers
from moesim.routing import OVERFLOWS
from moesim.scenario import Scenario
from moesim.types import UNKNOWN, CountsTrace, EqualSequences, LogitsTrace, ModelShape, Recording, Trace
from moesim.workload import RecordedCounts, RecordedLogits, RecordedTokens, TraceSteps

RecordedSource = RecordedTokens | RecordedCounts | RecordedLogits


def trace_of(scenario: Scenario) -> Recording | None:
    """The trace that a scenario replays, None where it has synthetic tokens.

    Raises:
        ScenarioError: the trace cannot be read.
    """
    path = scenario.spec.workload.trace
    if path is None:
        return None
    try:
        return read_trace(path)
    except InputError as error:
        raise scenario.error("workload.trace", path, str(error)) from None


def unrecorded_layers(trace: Recording, model: ModelShape) -> frozenset[int]:
    """The MoE layers of a model, by index, of which a trace has nothing."""
    rows = rows_of_layers(trace.layer_ids, model.moe_layers)
    return frozenset() if rows is None else frozenset(np.flatnonzero(rows < 0).tolist())


def recorded_source(
    scenario: Scenario, trace: Recording, model: ModelShape, n_ranks: int, alike: EqualSequences, n_logits: int
) -> RecordedSource:
    """The recorded tokens of a scenario's trace.

    Args:
        scenario: whose trace it is.
        trace: as it was read.
        model: of the scenario, with the choices of a token that its routing states.
        n_ranks: over which the tokens of a step are dealt.
        alike: the sequences of the workload.
        n_logits: experts that the scenario's router scores.

    Raises:
        ScenarioError: a trace of another model, or one that lacks what the scenario asks for.
    """
    spec = scenario.spec
    if spec.workload.trace_steps == "recorded" and spec.workload.tokens_per_gpu is not None:
        wanted = "whole, or no workload.tokens_per_gpu: each says how many tokens a step has"
        raise scenario.error("workload.trace_steps", "recorded", wanted)
    rows = _rows(scenario, trace, model)
    if isinstance(trace, LogitsTrace):
        if trace.n_experts != n_logits:
            wanted = f"{n_logits}, as {model.name} with its router has"
            raise scenario.error("workload.trace", f"logits of {trace.n_experts} experts", wanted)
        return RecordedLogits(trace, _steps(scenario, trace, n_ranks, alike), rows)
    if spec.routing.strategy not in (None, "recorded"):
        wanted = "no strategy: the trace holds the choices of its own router"
        raise scenario.error("routing.strategy", spec.routing.strategy, wanted)
    if trace.n_experts > model.n_experts:
        wanted = f"experts 0 to {model.n_experts - 1} of {model.name}"
        raise scenario.error("workload.trace", f"expert {trace.n_experts - 1}", wanted)
    _check_weights(scenario, trace)
    top_k = max(model.choices_of_layer)
    if isinstance(trace, CountsTrace):
        return _counts(scenario, trace, n_ranks, alike, rows, top_k)
    if trace.top_k != top_k:
        same = top_k == max(scenario.model.choices_of_layer)
        why = f"as model {model.name} has" if same else "as routing.top_k says"
        raise scenario.error("workload.trace", f"{trace.top_k} top_k", f"{top_k}, {why}")
    _steps(scenario, trace, n_ranks, alike)
    return RecordedTokens(
        trace,
        n_ranks=n_ranks,
        tokens_per_rank=spec.workload.tokens_per_gpu,
        alike=alike,
        rows=rows,
        as_recorded=spec.workload.trace_steps == "recorded",
    )


def _rows(scenario: Scenario, trace: Recording, model: ModelShape) -> NDArray[np.int64]:
    """The row of the trace for each MoE layer."""
    rows = rows_of_layers(trace.layer_ids, model.moe_layers)
    if rows is None:
        n_moe = len(model.moe_layers)
        wanted = f"{n_moe}, as model {model.name} has, or some of these, numbered 0 to {n_moe - 1} or as its layers are"
        raise scenario.error("workload.trace", f"{trace.n_layers} layers up to {trace.layer_ids[-1]}", wanted)
    return rows


def _steps(scenario: Scenario, trace: Trace | LogitsTrace, n_ranks: int, alike: EqualSequences) -> TraceSteps:
    """How the trace is cut into steps."""
    workload = scenario.spec.workload
    as_recorded = workload.trace_steps == "recorded"
    if as_recorded and (trace.step == UNKNOWN).any():
        wanted = "whole, or tokens_per_gpu: the trace does not say which tokens were of one step"
        raise scenario.error("workload.trace_steps", "recorded", wanted)
    return TraceSteps(
        trace, n_ranks=n_ranks, tokens_per_rank=workload.tokens_per_gpu, alike=alike, as_recorded=as_recorded
    )


def _check_weights(scenario: Scenario, trace: Trace | CountsTrace) -> None:
    """Refuse a capacity policy that ranks by weights which were not recorded."""
    capacity = scenario.spec.routing.capacity
    weighted = isinstance(trace, Trace) and trace.weight is not None
    policy = None if weighted or capacity is None else OVERFLOWS.get(capacity.overflow)
    if policy is not None and policy.reads_scores:
        assert capacity is not None
        wanted = "one that does not rank by weight: the trace has no weights"
        raise scenario.error("routing.capacity.overflow", capacity.overflow, wanted)


def _counts(
    scenario: Scenario,
    trace: CountsTrace,
    n_ranks: int,
    alike: EqualSequences,
    rows: NDArray[np.int64],
    top_k: int,
) -> RecordedCounts:
    if trace.first_choice and top_k > 1:
        wanted = "counts of all choices, or routing.top_k: 1"
        raise scenario.error("workload.trace", "counts of first choices alone", wanted)
    workload = scenario.spec.workload
    if workload.trace_steps == "whole" and workload.tokens_per_gpu is None:
        trace = dataclasses.replace(
            trace, count=trace.count.sum(axis=0, keepdims=True), step=trace.step[:1], phase=trace.phase[:1]
        )
    source = RecordedCounts(
        trace,
        seed=scenario.spec.seed,
        n_ranks=n_ranks,
        tokens_per_rank=workload.tokens_per_gpu,
        top_k=top_k,
        alike=alike,
        rows=rows,
    )
    most = trace.count.max(axis=(1, 2)) * top_k / np.maximum(1, trace.count.sum(axis=2).max(axis=1))
    if most.max() > 1 + 1e-9 and workload.tokens_per_gpu is not None:
        step = int(trace.step[most.argmax()])
        found = f"an expert that more than all tokens of step {step} would choose"
        raise scenario.error("workload.trace", found, f"at most one choice of an expert a token, with top-{top_k}")
    return source
