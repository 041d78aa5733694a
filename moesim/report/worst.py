"""The steps that took longest, and the layer, GPU and expert that made them long."""

from __future__ import annotations

import pandas as pd

from moesim.report.run import RunLike


def worst_steps(run: RunLike, n: int = 5) -> pd.DataFrame:
    """The `n` longest steps, longest first, ties by the earlier step.

    Columns: step; step_time_s; times_mean (over the mean step time); layer, the
    one whose busiest rank has most assignments above the mean over ranks, and
    its balancedness; rank, the GPU with the largest share of the critical path,
    and that share; expert, the most loaded of that layer after capacity, and
    its requested load over the mean of its layer; drop_rate of the step.
    Layer and expert are <NA> where the model has no MoE layer.
    """
    steps = run.steps.sort_values(["step_time_s", "step"], ascending=[False, True]).head(n)
    mean = float(run.steps["step_time_s"].mean()) if len(run.steps) else 0.0
    rows = []
    for step in steps.to_dict("records"):
        requested, dropped, seconds = int(step["requested"]), int(step["dropped"]), float(step["step_time_s"])
        rows.append(
            {
                "step": int(step["step"]),
                "step_time_s": seconds,
                "times_mean": seconds / mean if mean else None,
                **_guilty_layer(run, int(step["step"])),
                **_guilty_rank(run, int(step["step"]), seconds),
                "drop_rate": dropped / requested if requested else None,
            }
        )
    frame = pd.DataFrame(rows, columns=list(_TYPES))
    return frame.astype(_TYPES).reset_index(drop=True)


_TYPES = {
    "step": "int64",
    "step_time_s": "float64",
    "times_mean": "Float64",
    "layer": "Int64",
    "balancedness": "Float64",
    "rank": "Int64",
    "critical_share": "Float64",
    "expert": "Int64",
    "expert_load": "Float64",
    "drop_rate": "Float64",
}


def _guilty_layer(run: RunLike, step: int) -> dict[str, float | int | None]:
    layers = run.layers[run.layers["step"] == step]
    if layers.empty:
        return {"layer": None, "balancedness": None, "expert": None, "expert_load": None}
    # mean over ranks = processed / ranks and busiest = mean / balancedness; the number of ranks is the same for all.
    balancedness = layers["balancedness"].where(layers["balancedness"] > 0, 1.0)
    above = layers["processed"] * (1.0 / balancedness - 1.0)
    worst = layers.iloc[int(above.to_numpy().argmax())]
    layer = int(worst["layer"])
    experts = run.experts[(run.experts["step"] == step) & (run.experts["layer"] == layer)]
    expert, load = None, None
    if not experts.empty:
        row = experts.iloc[int(experts["processed"].to_numpy().argmax())]
        expert = int(row["expert"])
        average = float(experts["requested"].mean())
        load = float(row["requested"]) / average if average else None
    return {"layer": layer, "balancedness": float(worst["balancedness"]), "expert": expert, "expert_load": load}


def _guilty_rank(run: RunLike, step: int, seconds: float) -> dict[str, float | int | None]:
    gpus = run.gpus[run.gpus["step"] == step]
    if gpus.empty:
        return {"rank": None, "critical_share": None}
    row = gpus.iloc[int(gpus["critical_s"].to_numpy().argmax())]
    return {"rank": int(row["gpu"]), "critical_share": float(row["critical_s"]) / seconds if seconds else None}
