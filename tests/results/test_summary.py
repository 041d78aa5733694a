"""The keys of a summary where there is nothing to sum up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moesim.results.summary import StepTotals, summarise
from moesim.types import CAUSES, LEVELS, PARTS


def test_rates_of_nothing_are_absent_not_zero() -> None:
    """A step that took no time has no penalty and no throughput."""
    none = np.zeros(1, dtype=np.int64)
    step = StepTotals(
        step_ps=0,
        even_ps=0,
        parts_ps=np.zeros(len(PARTS), dtype=np.int64),
        critical_ps=np.zeros(len(PARTS), dtype=np.int64),
        tokens=0,
        bytes=np.zeros(len(LEVELS), dtype=np.int64),
        requested=none,
        dropped=none,
        rerouted=none,
        lost_tokens=none,
        unrouted_tokens=none,
        recorded_tokens=None,
        causes=np.zeros((1, len(CAUSES)), dtype=np.int64),
        zero_choices=none,
        processed_violation=np.zeros(1),
        requested_balancedness=np.ones(1),
        events=0,
    )
    layers = pd.DataFrame({name: [0.0] for name in ("balancedness", "max_violation", "cv", "entropy", "dead_experts")})
    summary = summarise([step], layers, n_gpus=1, work={})
    for name in ("imbalance_penalty", "tokens_per_s_per_gpu", "drop_rate", "reroute_rate"):
        assert summary[name] is None, name
