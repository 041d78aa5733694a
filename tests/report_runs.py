"""Small runs made of nothing but arithmetic, with every frame of a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from moesim.report import Run
from moesim.types import PARTS

N_STEPS, N_LAYERS, N_EXPERTS, N_GPUS, GPUS_PER_NODE = 6, 4, 8, 4, 2
_COMPUTE = ("attention", "router", "experts", "shared_experts", "head")


def make_run(
    name: str = "baseline",
    *,
    skew: float = 1.0,
    drop: float = 0.0,
    n_steps: int = N_STEPS,
    n_layers: int = N_LAYERS,
    n_experts: int = N_EXPERTS,
    n_gpus: int = N_GPUS,
    gpus_per_node: int = GPUS_PER_NODE,
    manifest: dict[str, Any] | None = None,
) -> Run:
    """A run whose loads fall off with `skew` and lose the share `drop` of what lies above the mean."""
    shape = (n_steps, n_layers, n_experts)
    step, layer, expert = (axis.ravel() for axis in np.indices(shape))
    place = (expert * 5 + layer * 3) % n_experts
    requested = np.floor(4000 / (1 + place) ** (skew * (1 + 0.05 * step))).astype(np.int64)
    mean = requested.reshape(shape).mean(axis=2).repeat(n_experts)
    dropped = np.floor(drop * np.maximum(0, requested - mean)).astype(np.int64)
    experts = pd.DataFrame(
        {
            "step": step,
            "layer": layer,
            "expert": expert,
            "requested": requested,
            "processed": requested - dropped,
            "dropped": dropped,
            "rerouted_in": 0,
            "rerouted_away": 0,
        }
    )
    load = experts.assign(gpu=expert % n_gpus)
    rank = load.pivot_table("processed", ["step", "layer"], "gpu", aggfunc="sum")
    by_layer = load.groupby(["step", "layer"])
    sums = by_layer[["requested", "processed", "dropped"]].sum().reset_index()
    layers = sums.assign(
        max_violation=(by_layer["requested"].max() / by_layer["requested"].mean() - 1).to_numpy(),
        balancedness=(rank.mean(axis=1) / rank.max(axis=1)).to_numpy(),
        cv=0.5,
        gini=0.4,
        entropy=0.9,
        dead_experts=0,
        rerouted=0,
    )
    timeline, gpus = _times(rank, n_steps, n_layers, n_gpus, gpus_per_node)
    steps = gpus.groupby("step")[[f"{part}_s" for part in PARTS]].mean().reset_index()
    steps["step_time_s"] = steps[[f"{part}_s" for part in PARTS]].sum(axis=1)
    steps["start_s"] = steps["step_time_s"].cumsum() - steps["step_time_s"]
    totals = layers.groupby("step")[["requested", "processed", "dropped"]].sum().reset_index(drop=True)
    steps = pd.concat([steps, totals], axis=1).assign(tokens=1024, rerouted=0)
    source, destination = np.nonzero(~np.eye(n_gpus, dtype=bool))
    near = source // gpus_per_node == destination // gpus_per_node
    links = pd.DataFrame(
        {
            "source": source,
            "destination": destination,
            "level": np.where(near, "within_node", "across_nodes"),
            "messages": 10,
            "bytes": 1_000_000 * (1 + destination) * n_steps,
        }
    )
    times = steps["step_time_s"]
    spread = {f"p{p}": float(np.percentile(times, p)) for p in (50, 95, 99)}
    summary: dict[str, Any] = {
        "step_time_s": {"mean": float(times.mean()), **spread, "max": float(times.max())},
        "breakdown_s": {part: float(steps[f"{part}_s"].mean()) for part in PARTS},
        "imbalance_penalty": 1.0 + 0.3 * skew * (1 - drop),
        "balancedness": {
            "mean": float(layers["balancedness"].mean()),
            "min": float(layers["balancedness"].min()),
        },
        "max_violation": {
            "mean": float(layers["max_violation"].mean()),
            "max": float(layers["max_violation"].max()),
        },
        "drop_rate": float(experts["dropped"].sum() / experts["requested"].sum()),
        "token_drop_rate": float(experts["dropped"].sum() / experts["requested"].sum() / 4),
        "reroute_rate": 0.0,
        "bytes": {
            level: float(links.loc[links["level"] == level, "bytes"].sum() / n_steps)
            for level in ("within_node", "across_nodes")
        },
        "tokens_per_s_per_gpu": 1024 / float(times.mean()) / n_gpus,
        "simulated_s": float(times.sum()),
        "n_steps": n_steps,
    }
    return Run(
        name=name,
        summary=summary,
        manifest=manifest
        or {
            "seed": 1,
            "engine": "simpy",
            "versions": {"moesim": "0.1.0"},
            "provenance": {"gpu": "measured: grouped GEMM on H100", "network": "estimated", "tokens": "synthetic"},
            "inputs": [],
        },
        steps=steps,
        layers=layers,
        experts=experts,
        gpus=gpus,
        links=links,
        timeline=timeline,
    )


def _times(
    rank: pd.DataFrame, n_steps: int, n_layers: int, n_gpus: int, gpus_per_node: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The timeline of the first step and the time of every part on every GPU in all steps."""
    bars, gpus = [], []
    for step in range(n_steps):
        clock = np.zeros(n_gpus)
        parts = {part: np.zeros(n_gpus) for part in PARTS}

        def run(kind: str, layer: int, seconds: Any, step: int = step, parts: Any = parts, clock: Any = clock) -> None:
            start = clock.copy()
            if kind in ("dispatch", "combine"):
                parts["wait"] += start.max() - start
                clock[:] = start.max()
            clock += seconds
            parts[kind] += seconds
            if step == 0:
                for gpu in range(n_gpus):
                    stream = int(kind in ("dispatch", "combine"))
                    bars.append((0, gpu, stream, layer, kind, start[gpu], clock[gpu], 4096 * stream))

        for layer in range(n_layers):
            run("attention", layer, 40e-6)
            run("router", layer, 6e-6)
            run("dispatch", layer, 25e-6)
            run("experts", layer, rank.xs((step, layer)).to_numpy() * 2e-8 + 10e-6)
            run("shared_experts", layer, 12e-6)
            run("combine", layer, 35e-6)
        run("head", -1, 30e-6)
        parts["wait"] += clock.max() - clock
        critical = clock - parts["wait"]
        for gpu in range(n_gpus):
            times = {f"{part}_s": values[gpu] for part, values in parts.items()}
            gpus.append({"step": step, "gpu": gpu, "node": gpu // gpus_per_node, **times, "critical_s": critical[gpu]})
    columns = ["step", "gpu", "stream", "layer", "kind", "start_s", "end_s", "bytes"]
    timeline = pd.DataFrame(bars, columns=columns).sort_values("gpu", kind="stable", ignore_index=True)
    return timeline, pd.DataFrame(gpus).assign(
        processed=rank.groupby("step").sum().to_numpy().ravel(), sent_bytes=0, received_bytes=0
    )
