"""From the integers of each step to the tidy frames of a Result."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moesim import metrics
from moesim.results.result import FRAMES, Result
from moesim.results.summary import StepTotals, summarise, work_of
from moesim.types import (
    PARTS,
    ClusterShape,
    ModelShape,
    Placement,
    RoutedStep,
    StepTimes,
    Tasks,
)
from moesim.types.policies import Kept, SkewTarget

PS = 1e-12
BYTES_PER_CELL = 8
_NO_LAYER = "no layer has experts whose load is known"
_WHY_EMPTY = {
    "router": "the router does not evolve; routing.training lets it",
    "experts": "keep.experts is none",
    "links": "keep.links is none, or nothing was sent",
    "timeline": "keep.timeline_steps is 0",
}
"""Why a frame has no row; others lack layers."""


class Collector:
    """Takes the steps of a run one by one and makes the Result.

    Args:
        model: its layer numbers name the rows.
        cluster: ranks and nodes.
        keep: what the frames hold.
        target: what the popularity was solved for, whose value in the run the summary has; None = nothing.
    """

    def __init__(
        self,
        *,
        model: ModelShape,
        cluster: ClusterShape,
        keep: Kept,
        target: SkewTarget | None = None,
    ) -> None:
        self._model = model
        self._layers = np.array(model.moe_layers, dtype=np.int64)
        self._cluster = cluster
        self._keep = keep
        self._target, self._target_values = target, list[NDArray[np.float64]]()
        self._columns: dict[str, dict[str, list[Any]]] = {name: defaultdict(list) for name in FRAMES}
        shape = (2, cluster.levels.n_levels, cluster.n_gpus, cluster.n_gpus)
        self._links = np.zeros(shape, dtype=np.int64)  # messages, bytes
        self._totals: list[StepTotals] = []
        self._clock_ps = 0

    def add(self, step: int, routed: RoutedStep, step_times: StepTimes, even_ps: int) -> None:
        """Take one step: its loads, its times, and the time of the same step with its load spread evenly.

        Raises:
            ConservationError: tokens, bytes or time were lost.
        """
        metrics.check_step(routed, step_times)
        rank_load, holders = self._rank_load(routed), _holders(routed.placement)
        totals = StepTotals(
            step_ps=step_times.makespan_ps,
            even_ps=even_ps,
            parts_ps=step_times.parts_ps.sum(axis=0),
            critical_ps=step_times.critical_ps,
            tokens=routed.batch.n_tokens,
            bytes=step_times.bytes.sum(axis=(1, 2)),
            requested=routed.requested.sum(axis=1),
            dropped=routed.dropped.sum(axis=1),
            rerouted=routed.rerouted_away.sum(axis=1),
            lost_tokens=routed.lost_tokens,
            unrouted_tokens=routed.unrouted_tokens,
            recorded_tokens=routed.recorded_tokens,
            causes=routed.causes,
            zero_choices=routed.zero_choices,
            processed_violation=metrics.max_violation(routed.processed),
            requested_balancedness=metrics.balancedness(self._requested_load(routed)[:, holders]),
            events=step_times.n_events,
            queues=step_times.queues,
            uplinks_ps=step_times.uplinks_ps,
        )
        self._totals.append(totals)
        if self._target is not None:
            self._target_values.append(metrics.metric_of_target(routed.requested, self._target))
        known = totals.known_tokens > 0  # nothing can be said of the load of the other layers
        self._add_layers(step, routed, rank_load[:, holders], known)
        self._add_router(step, routed)
        if self._keep.experts == "steps":
            self._add_experts(step, routed, known)
        self._add_gpus(step, step_times, rank_load)
        self._add_step(step, totals)
        if self._keep.links == "total":
            self._links[0] += step_times.messages
            self._links[1] += step_times.bytes
        if step_times.tasks is not None:
            self._add_timeline(step, step_times.tasks)
        self._clock_ps += step_times.makespan_ps

    def result(
        self,
        *,
        scenario: dict[str, Any],
        scenario_yaml: str,
        manifest: dict[str, Any],
        profile: dict[str, float],
    ) -> Result:
        """All steps as frames, with the summary and the manifest."""
        self._add_links()
        frames = {name: _frame(name, self._columns[name]) for name in FRAMES}
        work = work_of(scenario, self._model)
        names = self._cluster.levels.names
        summary = summarise(self._totals, frames["layers"], n_gpus=self._cluster.n_gpus, work=work, levels=names)
        if self._target is not None:
            found = {"stated": self._target.value, "solved": self._target.reached}
            summary["target"] = {self._target.metric: {**found, "run": float(np.mean(self._target_values))}}
        manifest = {
            **manifest,
            "empty_frames": {name: _WHY_EMPTY.get(name, _NO_LAYER) for name, frame in frames.items() if frame.empty},
            "profile_s": {name: round(seconds, 6) for name, seconds in profile.items()},
            "events": sum(total.events for total in self._totals),
        }
        return Result(
            **frames,
            summary=summary,
            scenario=scenario,
            scenario_yaml=scenario_yaml,
            manifest=manifest,
        )

    def _put(self, frame: str, n_rows: int, **columns: Any) -> None:
        for name, values in columns.items():
            self._columns[frame][name].append(np.broadcast_to(np.asarray(values), (n_rows,)))

    def _add_step(self, step: int, totals: StepTotals) -> None:
        n_gpus = self._cluster.n_gpus
        layers = self._columns["layers"]
        parts = {f"{part}_s": ps / n_gpus * PS for part, ps in zip(PARTS, totals.parts_ps, strict=True)}
        processed = totals.requested.sum() - totals.dropped.sum()
        self._put(
            "steps",
            1,
            step=step,
            start_s=self._clock_ps * PS,
            step_time_s=totals.step_ps * PS,
            **parts,
            tokens=totals.tokens,
            requested=totals.requested.sum(),
            processed=processed,
            dropped=totals.dropped.sum(),
            rerouted=totals.rerouted.sum(),
            balancedness_min=layers["balancedness"][-1].min(initial=1.0),
            max_violation_max=layers["max_violation"][-1].max(initial=0.0),
            bytes_within_node=totals.bytes[0],
            bytes_across_nodes=totals.bytes[1:].sum(),
        )

    def _add_layers(
        self, step: int, routed: RoutedStep, holder_load: NDArray[np.int64], known: NDArray[np.bool_]
    ) -> None:
        load = routed.requested[known]
        self._put(
            "layers",
            len(load),
            step=step,
            layer=self._layers[known],
            max_violation=metrics.max_violation(load),
            balancedness=metrics.balancedness(holder_load[known]),
            cv=metrics.cv(load),
            gini=metrics.gini(load),
            entropy=metrics.normalised_entropy(load),
            dead_experts=metrics.dead_experts(load),
            requested=load.sum(axis=1),
            processed=routed.processed[known].sum(axis=1),
            dropped=routed.dropped[known].sum(axis=1),
            rerouted=routed.rerouted_away[known].sum(axis=1),
        )

    def _add_router(self, step: int, routed: RoutedStep) -> None:
        if routed.router is not None:
            self._put(
                "router",
                len(self._layers),
                step=step,
                layer=self._layers,
                aux_loss=routed.router.aux_loss,
                z_loss=routed.router.z_loss,
                bias_min=routed.router.bias_min,
                bias_max=routed.router.bias_max,
                popularity_shift_std=routed.router.shift_std,
            )

    def _add_experts(self, step: int, routed: RoutedStep, known: NDArray[np.bool_]) -> None:
        n_layers, n_experts = routed.requested[known].shape
        self._put(
            "experts",
            n_layers * n_experts,
            step=step,
            layer=np.repeat(self._layers[known], n_experts),
            expert=np.tile(np.arange(n_experts), n_layers),
            requested=routed.requested[known].ravel(),
            processed=routed.processed[known].ravel(),
            dropped=routed.dropped[known].ravel(),
            rerouted_in=routed.rerouted_in[known].ravel(),
            rerouted_away=routed.rerouted_away[known].ravel(),
        )

    def _add_gpus(self, step: int, step_times: StepTimes, rank_load: NDArray[np.int64]) -> None:
        gpu = np.arange(self._cluster.n_gpus)
        self._put(
            "gpus",
            len(gpu),
            step=step,
            gpu=gpu,
            node=gpu // self._cluster.gpus_per_node,
            **{f"{part}_s": step_times.parts_ps[:, i] * PS for i, part in enumerate(PARTS)},
            critical_s=step_times.critical_gpu_ps * PS,
            processed=rank_load.sum(axis=0),
            sent_bytes=step_times.bytes.sum(axis=(0, 2)),
            received_bytes=step_times.bytes.sum(axis=(0, 1)),
        )

    def _add_links(self) -> None:
        messages, carried = self._links
        level, source, destination = np.nonzero(messages)
        self._put(
            "links",
            len(level),
            source=source,
            destination=destination,
            level=np.array(self._cluster.levels.names)[level],
            messages=messages[level, source, destination],
            bytes=carried[level, source, destination],
        )

    def _add_timeline(self, step: int, tasks: Tasks) -> None:
        self._put(
            "timeline",
            len(tasks.gpu),
            step=step,
            gpu=tasks.gpu,
            stream=tasks.stream,
            layer=tasks.layer,
            kind=tasks.kind,
            start_s=(tasks.start_ps + self._clock_ps) * PS,
            end_s=(tasks.end_ps + self._clock_ps) * PS,
            bytes=tasks.bytes,
            tokens=tasks.tokens,
        )

    def _requested_load(self, routed: RoutedStep) -> NDArray[np.float64]:
        """Requested assignments of each rank, each expert's shared evenly by its copies, [L, G]."""
        of_copy = routed.requested / routed.placement.copies_of_experts()
        return self._by_gpu(np.take_along_axis(of_copy, routed.placement.expert, axis=1), routed.placement)

    def _rank_load(self, routed: RoutedStep) -> NDArray[np.int64]:
        """Processed assignments of each rank, without padding, [L, G]."""
        return self._by_gpu(routed.traffic.slot_tokens - routed.padding, routed.placement)

    def _by_gpu(self, of_slots: NDArray[Any], placement: Placement) -> NDArray[Any]:
        """Counts of slots [L, S] by the GPUs that hold them, [L, G]; each of those that share one has it whole."""
        load = np.zeros((len(of_slots), self._cluster.n_gpus), dtype=of_slots.dtype)
        for gpu in range(placement.expert_tp):
            np.add.at(load.T, placement.rank + gpu, of_slots.T)
        return load


def _holders(placement: Placement) -> NDArray[np.int64]:
    """GPUs that hold experts; those of attention alone have no part in how evenly these are loaded."""
    return np.unique(placement.rank.astype(np.int64)[:, None] + np.arange(placement.expert_tp))


def frames_bytes(
    *,
    n_steps: int,
    n_layers: int,
    n_experts: int,
    n_gpus: int,
    timeline_steps: int,
    n_operations: int,
) -> int:
    """Estimate of the memory of all frames, in bytes; twice the cells, as they are concatenated once."""
    cells = n_steps * (n_layers * (8 * n_experts + 12) + 18 * n_gpus + 24)
    cells += 5 * n_gpus * n_gpus + timeline_steps * 12 * n_operations * n_gpus
    return 2 * BYTES_PER_CELL * cells


def _frame(name: str, columns: dict[str, list[Any]]) -> pd.DataFrame:
    """The columns of all steps as one frame; an empty one keeps its columns and their types."""
    if not columns:
        return pd.DataFrame({column: pd.Series(dtype=dtype) for column, dtype in FRAMES[name].items()})
    wanted = FRAMES[name]
    return pd.DataFrame({column: np.concatenate(columns[column]) for column in wanted}).astype(wanted)
