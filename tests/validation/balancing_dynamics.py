"""A router that evolves against published imbalances: python -m tests.validation.balancing_dynamics.

Wang et al. 2024 (arXiv 2408.15664): 64 routed experts, top-6, sigmoid gate.
MaxVio_global is that of a frozen router on other tokens. One row, the
auxiliary loss of the 1B model, is fitted by `feedback_gain` (`--fit` searches
for it); the others are predicted. Figures of the paper that the model has no
parameter for (model size) are compared with the same prediction.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moesim import Scenario, evolve
from moesim.routing.training_balance import FEEDBACK_GAIN

LAYERS, GPUS = 2, 8
BASE: dict[str, Any] = {
    "name": "Wang et al. 2024",
    "seed": 1,
    "model": {"preset": "olmoe-1b-7b", "n_layers": LAYERS, "top_k": 6},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": GPUS},
    "workload": {"phase": "train", "tokens_per_gpu": 1024, "steps": 1500, "popularity": {"exponent": 0.4}},
    "routing": {"strategy": "deepseek-v3", "parameters": {}, "training": {"mechanism": "none"}},
}
FAST = 0.01
"""Learning rate where only the state at rest matters, which does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A published MaxVio_global and the settings that should give it."""

    what: str
    published: float
    kind: str
    settings: dict[str, Any]
    steps: int


ROWS: Sequence[Row] = (
    Row(
        what="auxiliary loss 1e-3, 1B",
        published=0.72,
        kind="fitted",
        settings={"mechanism": "aux-loss", "learning_rate": FAST},
        steps=750,
    ),
    Row(
        what="auxiliary loss 1e-3, 3B",
        published=0.52,
        kind="predicted",
        settings={"mechanism": "aux-loss", "learning_rate": FAST},
        steps=750,
    ),
    Row(
        what="loss-free, sign, 1e-3",
        published=0.044,
        kind="predicted",
        settings={"mechanism": "loss-free", "step_size": 1e-3},
        steps=500,
    ),
    *(
        Row(
            what=f"loss-free, proportional, {step_size:g}",
            published=published,
            kind="predicted",
            settings={"mechanism": "loss-free", "rule": "proportional", "step_size": step_size},
            steps=steps,
        )
        for step_size, published, steps in ((0.01, 0.028, 500), (0.001, 0.036, 1500))
    ),
)


def scenario(steps: int, tokens_per_gpu: int = 1024, **balancing: Any) -> Scenario:
    """The paper's router with these settings of `routing.training`."""
    overrides = {"workload.steps": steps, "workload.tokens_per_gpu": tokens_per_gpu}
    return Scenario.from_dict(BASE).with_overrides(
        overrides | {f"routing.training.{name}": value for name, value in balancing.items()}
    )


def max_violation_global(steps: int, tokens_per_gpu: int = 1024, **balancing: Any) -> float:
    """Of the router after the last step, mean over layers; 262,144 held-out tokens."""
    frame = evolve(
        scenario(steps, tokens_per_gpu, **balancing),
        evaluate_every=steps,
        evaluation_steps=max(1, 262_144 // (GPUS * tokens_per_gpu)),
    )
    return float(frame["max_violation_global"].dropna().mean())


def late(frame: pd.DataFrame, share: float = 0.2) -> float:
    """Mean MaxVio of single steps over the last part of a run."""
    return float(frame[frame["step"] >= (1 - share) * frame["step"].max()]["max_violation"].mean())


def steps_to_balance(frame: pd.DataFrame, below: float = 0.3) -> int:
    """The first step whose MaxVio, mean over layers, is below a bound."""
    by_step = frame.groupby("step")["max_violation"].mean()
    reached = by_step.index[by_step < below]
    return int(reached[0]) if len(reached) else -1


def table() -> pd.DataFrame:
    """Published and simulated MaxVio_global."""
    found: dict[str, float] = {}  # rows with the same settings are run once
    for row in ROWS:
        settings = repr((row.steps, row.settings))
        if settings not in found:
            found[settings] = max_violation_global(row.steps, **row.settings)
    rows = [
        {
            "what": row.what,
            "kind": row.kind,
            "published": row.published,
            "simulated": round(found[repr((row.steps, row.settings))], 3),
        }
        for row in ROWS
    ]
    return pd.DataFrame(rows)


def step_sizes() -> pd.DataFrame:
    """Sign rule: how soon each step size balances, and how quiet it is then."""
    rows = []
    for step_size, steps in ((1e-2, 400), (1e-3, 600), (1e-4, 2000)):
        frame = evolve(scenario(steps, mechanism="loss-free", step_size=step_size))
        rows.append(
            {"step size": step_size, "steps to MaxVio < 0.3": steps_to_balance(frame), "late MaxVio": late(frame)}
        )
    return pd.DataFrame(rows)


def batches() -> pd.DataFrame:
    """MaxVio of single steps as the computation batch grows."""
    rows = []
    for tokens_per_gpu in (128, 512, 2048):
        free = evolve(scenario(500, tokens_per_gpu, mechanism="loss-free"))
        loss = evolve(scenario(600, tokens_per_gpu, mechanism="aux-loss", learning_rate=FAST))
        rows.append({"tokens": GPUS * tokens_per_gpu, "loss-free": late(free), "auxiliary loss": late(loss)})
    return pd.DataFrame(rows)


def fit(published: float = 0.72) -> float:
    """The feedback gain at which the auxiliary loss leaves the published imbalance, by bisection."""
    low, high = 0.0, 4.9
    for _ in range(9):
        middle = (low + high) / 2
        found = max_violation_global(800, mechanism="aux-loss", learning_rate=FAST, feedback_gain=middle)
        low, high = (middle, high) if found < published else (low, middle)
    return (low + high) / 2


def main() -> None:
    """Print the tables."""
    if "--fit" in sys.argv:
        print(f"feedback_gain {fit():.2f} (built in: {FEEDBACK_GAIN:g})")
        return
    for frame in (table(), step_sizes(), batches()):
        print(frame.to_string(index=False, float_format=lambda value: f"{value:.3g}"), end="\n\n")


if __name__ == "__main__":
    main()
