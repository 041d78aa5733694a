"""Speed of the hot stages as ratios against a named baseline in the same run: python -m tests.benchmarks.stages.

Ratios above 1 mean that moesim is faster than the baseline; `engine.py` beside
this has the engine and whole steps. Absolute times are printed for orientation; no test reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from moesim import route
from moesim.workload import SyntheticTokens

TOKENS, EXPERTS, TOP_K = 4096, 256, 8


def best_of(call: Callable[[], object], repeats: int = 7) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def row(what: str, ours: float, baseline: str, theirs: float) -> None:
    """One line of the table."""
    print(f"{what:34} {ours * 1e3:9.2f} ms   {baseline:44} {theirs * 1e3:9.2f} ms   {theirs / ours:6.2f}x")


def logits() -> None:
    """Generating logits, against NumPy's Gumbel numbers alone; with locality and drift, against without."""
    fields: dict[str, Any] = {
        "seed": 1,
        "n_layers": 1,
        "n_experts": EXPERTS,
        "n_ranks": 1,
        "tokens_per_rank": TOKENS,
        "phase": "decode",
        "sequence_tokens": 1,
        "zipf_exponent": 0.2,
        "topic_count": 8,
        "topic_strength": 0.3,
    }
    source = SyntheticTokens(**fields)
    out = np.empty((TOKENS, EXPERTS), dtype=np.float32)
    rng = np.random.default_rng(1)
    batch = source.batch(0)
    ours = best_of(partial(source.logits, batch, 0, 0, TOKENS, out), repeats=20)
    row("logits", ours, "numpy Generator.gumbel", best_of(lambda: rng.gumbel(size=out.shape)))
    for what, changes in (
        ("logits with locality, decode", {"locality": np.array([0.4])}),
        ("logits with locality, prefill", {"locality": np.array([0.4]), "phase": "prefill", "sequence_tokens": 1024}),
        ("logits with drift", {"half_life_steps": 100.0}),
    ):
        other = SyntheticTokens(**{**fields, **changes})
        row(what, best_of(partial(other.logits, other.batch(30), 0, 0, TOKENS, out), repeats=20), "logits", ours)


def gating() -> None:
    """Routing, against vectorised NumPy with argpartition."""
    x = np.random.default_rng(1).normal(size=(TOKENS, EXPERTS)).astype(np.float32)

    def softmax_top_k() -> np.ndarray:
        expert = np.argpartition(-x, TOP_K, axis=1)[:, :TOP_K]
        chosen = np.take_along_axis(x, expert, axis=1)
        weight = np.exp(chosen - chosen.max(axis=1, keepdims=True))
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))

    def deepseek_v3() -> np.ndarray:
        score = 1 / (1 + np.exp(-x))
        group = np.sort(score.reshape(TOKENS, 8, -1), axis=2)[:, :, -2:].sum(axis=2)
        kept = np.argpartition(-group, 4, axis=1)[:, :4]
        mask = np.zeros((TOKENS, 8), dtype=bool)
        np.put_along_axis(mask, kept, True, axis=1)
        masked = np.where(np.repeat(mask, EXPERTS // 8, axis=1), score, -np.inf)
        expert = np.argpartition(-masked, TOP_K, axis=1)[:, :TOP_K]
        weight = np.take_along_axis(score, expert, axis=1)
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))

    ours = best_of(lambda: route(x, strategy="mixtral", top_k=TOP_K))
    row("mixtral top-8 of 256", ours, "numpy argpartition", best_of(softmax_top_k))
    ours = best_of(lambda: route(x, strategy="deepseek-v3", top_k=TOP_K, n_group=8, topk_group=4))
    row("deepseek-v3 top-8 of 256", ours, "numpy argpartition", best_of(deepseek_v3))


if __name__ == "__main__":
    for stage in (logits, gating):
        stage()
