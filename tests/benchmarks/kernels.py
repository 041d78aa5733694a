"""Speed of the compiled kernels as ratios against a named baseline: python -m tests.benchmarks.kernels.

The batch is 1,048,576 tokens of 256 experts with 8 choices in float32, which
takes 2.5 GB of memory and three minutes; `--tokens` makes it smaller. Ours
and the baselines run in turn in one process, one thread each, and a ratio is
that of their medians; above 1 moesim is faster. PyTorch is a baseline where it
can be imported. Baselines work through the batch in chunks, which is what suits
them best. `--markdown` prints the table of the README, ratios only, to two digits.

The limit of a gate is to read every logit once: the last column says how many
times as long as that it takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

from moesim import Assignment, apply_capacity, route
from moesim.compiled.count import count_by_source
from moesim.routing import parameters_for, strategy
from moesim.simulation.gating import BLOCK_TOKENS
from moesim.types import Draw
from moesim.workload import SyntheticTokens

torch: Any = import_module("torch") if find_spec("torch") else None
if torch is not None:
    torch.set_num_threads(1)

EXPERTS, TOP_K, RANKS = 256, 8, 64
GROUPS, KEPT_GROUPS, SCALING = 8, 4, 2.5
NO_TORCH = "torch not installed"
DEEPSEEK: dict[str, Any] = {
    "n_group": GROUPS,
    "topk_group": KEPT_GROUPS,
    "norm_topk_prob": True,
    "routed_scaling_factor": SCALING,
}

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: seconds of ours and of a baseline (None: could not run), and the goal for their ratio."""

    kernel: str
    seconds: float
    baseline: str
    theirs: float | None
    goal: float | None = None
    note: str = ""

    @property
    def ratio(self) -> str:
        """How many times as fast as the baseline, to two digits."""
        return "-" if self.theirs is None else f"{float(f'{self.theirs / self.seconds:.2g}'):g}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured: the batch, the baselines' chunks in tokens, and repetitions."""

    tokens: int
    chunk: int
    repeats: int


def medians(calls: Mapping[str, Call], repeats: int) -> dict[str, float]:
    """Median seconds of calls that run in turn, after one round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in times.items()}


def in_chunks(call: Callable[[Any], object], batch: Any, chunk: int) -> Call:
    """A call over all rows of a batch, some at a time."""

    def run() -> None:
        for first in range(0, len(batch), chunk):
            call(batch[first : first + chunk])

    return run


def gates(x: np.ndarray, settings: Settings) -> list[Row]:
    """Softmax top-8 and the DeepSeek-V3 gate, as kernels and through `moesim.route`."""
    reading = medians({"max": x.max, "sum": x.sum}, settings.repeats)
    limit = min(reading.values())
    print(f"reading every logit once: {limit * 1e3:.1f} ms, {x.nbytes / limit / 1e9:.1f} GB/s", file=sys.stderr)
    bias = np.random.default_rng(2).normal(scale=0.1, size=EXPERTS).astype(np.float32)
    mixtral, deepseek = strategy("mixtral"), strategy("deepseek-v3")
    of_mixtral, of_deepseek = parameters_for(mixtral, {}), parameters_for(deepseek, DEEPSEEK)
    calls: dict[str, Call] = {
        "softmax": lambda: mixtral.route(x, TOP_K, of_mixtral, None, Draw()),
        "softmax, public": lambda: route(x, strategy="mixtral", top_k=TOP_K),
        "argpartition": in_chunks(lambda part: np.argpartition(part, -TOP_K, axis=1)[:, -TOP_K:], x, settings.chunk),
        "deepseek": lambda: deepseek.route(x, TOP_K, of_deepseek, bias, Draw()),
        "deepseek, public": lambda: route(x, strategy="deepseek-v3", top_k=TOP_K, bias=bias, **DEEPSEEK),
    }
    if torch is not None:
        logits, b = torch.from_numpy(x), torch.from_numpy(bias)
        calls["torch softmax"] = in_chunks(torch_softmax, logits, settings.chunk)
        calls["torch deepseek"] = in_chunks(lambda part: torch_deepseek(part, b), logits, settings.chunk)
        check_against_torch(x[:4096], bias)
    found = medians(calls, settings.repeats)

    def rows(name: str, what: str, baseline: str, key: str, goal: float) -> list[Row]:
        title = baseline if key in found else NO_TORCH
        values: dict[str, Any] = {"baseline": title, "theirs": found.get(key)}
        return [
            Row(kernel=what, seconds=found[name], goal=goal, note=f"{found[name] / limit:.1f} x limit", **values),
            Row(kernel=f"{what}, moesim.route", seconds=found[f"{name}, public"], **values),
        ]

    softmax, gate = "softmax top-8", "DeepSeek-V3 gate, 4 of 8 groups"
    return [
        *rows("softmax", softmax, "torch softmax and topk", "torch softmax", 4),
        rows("softmax", softmax, "numpy argpartition alone", "argpartition", 1.5)[0],
        *rows("deepseek", gate, "torch, the published formula", "torch deepseek", 8),
    ]


def torch_softmax(logits: Any) -> tuple[Any, Any]:
    """Softmax, the largest, normalised."""
    weight, expert = torch.topk(torch.softmax(logits, dim=-1), TOP_K, dim=-1)
    return expert, weight / weight.sum(dim=-1, keepdim=True)


def torch_deepseek(logits: Any, bias: Any) -> tuple[Any, Any]:
    """DeepSeek-AI 2024, section 2.1.2, as the published model code computes it."""
    scores = logits.sigmoid()
    choice = scores + bias
    group = choice.view(len(logits), GROUPS, -1).topk(2, dim=-1)[0].sum(dim=-1)
    kept = torch.zeros_like(group).scatter_(1, torch.topk(group, KEPT_GROUPS, dim=-1, sorted=False)[1], 1)
    mask = kept.unsqueeze(-1).expand(-1, GROUPS, EXPERTS // GROUPS).reshape(len(logits), -1)
    expert = torch.topk(choice.masked_fill(~mask.bool(), float("-inf")), TOP_K, dim=-1, sorted=False)[1]
    weight = scores.gather(1, expert)
    return expert, weight / (weight.sum(dim=-1, keepdim=True) + 1e-20) * SCALING


def check_against_torch(x: np.ndarray, bias: np.ndarray) -> None:
    """Both compute the same: nearly all rows have the same experts (the rest are ties of rounding), and weights."""
    logits = torch.from_numpy(x)
    for ours, (expert, weight) in (
        (route(x, strategy="mixtral", top_k=TOP_K), torch_softmax(logits)),
        (
            route(x, strategy="deepseek-v3", top_k=TOP_K, bias=bias, **DEEPSEEK),
            torch_deepseek(logits, torch.from_numpy(bias)),
        ),
    ):
        equal = (np.sort(ours.expert, axis=1) == np.sort(expert.numpy(), axis=1)).all(axis=1)
        assert equal.mean() > 0.999
        np.testing.assert_allclose(
            np.sort(ours.weight[equal], axis=1), np.sort(weight.numpy()[equal], axis=1), rtol=1e-4
        )


def capacity(x: np.ndarray, settings: Settings) -> list[Row]:
    """Capacity 1.0 over the whole batch, by position and by probability."""
    assignment = route(x, strategy="mixtral", top_k=TOP_K)
    n = assignment.expert.size

    def ours(overflow: str) -> Assignment:
        return apply_capacity(assignment, n_experts=EXPERTS, capacity_factor=1.0, overflow=overflow, scope="global")

    limit = int(ours("drop-by-position").capacity[0])
    flat, weight = assignment.expert.ravel().astype(np.int16), assignment.weight.ravel()

    def by_expert() -> list[np.ndarray]:
        order = np.argsort(flat, kind="stable")  # a radix sort
        return np.split(order, np.cumsum(np.bincount(flat, minlength=EXPERTS))[:-1])

    def position() -> np.ndarray:
        return np.concatenate([own[:limit] for own in by_expert()])

    def probability() -> np.ndarray:
        return np.concatenate([own[np.argsort(-weight[own], kind="stable")[:limit]] for own in by_expert()])

    for overflow, theirs in (("drop-by-position", position), ("drop-by-probability", probability)):
        kept = np.zeros(n, dtype=bool)
        kept[theirs()] = True
        np.testing.assert_array_equal(ours(overflow).served.ravel() >= 0, kept)
    calls: dict[str, Call] = {
        "ours, position": lambda: ours("drop-by-position"),
        "position": position,
        "ours, probability": lambda: ours("drop-by-probability"),
        "probability": probability,
    }
    found = medians(calls, settings.repeats)
    rate = n / found["ours, position"] / 1e6
    return [
        Row(
            kernel="capacity by position",
            seconds=found["ours, position"],
            baseline="numpy, stable sort by expert",
            theirs=found["position"],
            note=f"{rate:.0f} million assignments/s (goal 40)",
        ),
        Row(
            kernel="capacity by probability",
            seconds=found["ours, probability"],
            baseline="numpy, argsort per expert",
            theirs=found["probability"],
            goal=5,
        ),
    ]


def counting(settings: Settings) -> list[Row]:
    """Assignments of every source rank to every expert."""
    rng = np.random.default_rng(3)
    expert = rng.integers(0, EXPERTS, (settings.tokens, TOP_K), dtype=np.int32)
    source = (np.arange(settings.tokens) * RANKS // settings.tokens).astype(np.int32)

    def bincount() -> np.ndarray:
        return np.bincount((source[:, None] * EXPERTS + expert).ravel(), minlength=RANKS * EXPERTS)

    np.testing.assert_array_equal(count_by_source(expert, source, RANKS, EXPERTS).ravel(), bincount())
    calls: dict[str, Call] = {"ours": lambda: count_by_source(expert, source, RANKS, EXPERTS), "bincount": bincount}
    found = medians(calls, settings.repeats)
    return [
        Row(
            kernel="counts per source rank (64) and expert",
            seconds=found["ours"],
            baseline="numpy bincount",
            theirs=found["bincount"],
            goal=5,
        )
    ]


def sampling(settings: Settings) -> list[Row]:
    """Choices drawn directly, against logits and top-k in blocks as the simulator fuses them."""
    source = SyntheticTokens(
        seed=1,
        n_layers=1,
        n_experts=EXPERTS,
        n_ranks=1,
        tokens_per_rank=settings.tokens,
        phase="decode",
        sequence_tokens=1,
        zipf_exponent=0.2,
        topic_count=8,
        topic_strength=0.3,
    )
    batch = source.batch(0)
    mixtral = strategy("mixtral")
    parameters = parameters_for(mixtral, {})
    expert = np.empty((settings.tokens, TOP_K), dtype=np.int32)
    scratch = np.empty((min(BLOCK_TOKENS, settings.tokens), EXPERTS), dtype=np.float32)

    def fused() -> None:
        for first in range(0, settings.tokens, BLOCK_TOKENS):
            last = min(first + BLOCK_TOKENS, settings.tokens)
            logits = scratch[: last - first]
            source.logits(batch, 0, first, last, logits)
            expert[first:last] = mixtral.route(logits, TOP_K, parameters, None, Draw()).expert

    calls: dict[str, Call] = {"ours": lambda: source.experts(batch, 0, 0, settings.tokens, expert), "fused": fused}
    found = medians(calls, settings.repeats)
    return [
        Row(
            kernel="choices of synthetic tokens, drawn directly",
            seconds=found["ours"],
            baseline="moesim logits and softmax top-8, fused",
            theirs=found["fused"],
            goal=20,
        )
    ]


def starting(settings: Settings) -> list[tuple[str, float, float]]:
    """Seconds of fresh processes, the kernels compiled before: what, found, goal."""
    routed = "import moesim, numpy; moesim.route(numpy.ones((1, 8)), strategy='mixtral', top_k=2)"
    commands = {
        "first routed token": ["-c", routed],
        "import moesim": ["-c", "import moesim"],
        "moesim --help": ["-m", "moesim", "--help"],
        "python alone": ["-c", "pass"],
    }
    calls: dict[str, Call] = {
        what: partial(subprocess.run, [sys.executable, *own], check=True, stdout=subprocess.DEVNULL)
        for what, own in commands.items()
    }
    found = medians(calls, settings.repeats)
    goals = {"first routed token": 1.5, "import moesim": 0.2, "moesim --help": 0.2}
    return [(what, found[what], goals[what]) for what in goals]


def print_table(rows: list[Row], settings: Settings) -> None:
    """All that was measured."""
    print(f"{'kernel':44} {'ns/token':>9}  {'baseline':40} {'ratio':>6} {'goal':>5}")
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g}"
        per_token = row.seconds / settings.tokens * 1e9
        print(f"{row.kernel:44} {per_token:9.1f}  {row.baseline:40} {row.ratio:>6} {goal:>5}  {row.note}".rstrip())


def print_markdown(rows: list[Row]) -> None:
    """The table of the README."""
    print("| kernel | baseline | times as fast | goal |\n|---|---|---|---|")
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g}"
        print(f"| {row.kernel} | {row.baseline} | {row.ratio} | {goal} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of moesim's kernels as ratios against named baselines.")
    parser.add_argument("--tokens", type=int, default=1 << 20, help="tokens of the batch (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=1 << 14, help="tokens that a baseline takes at a time")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the median counts")
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    settings = Settings(**{k: v for k, v in vars(parser.parse_args()).items() if k != "markdown"})
    rows = counting(settings) + sampling(settings)
    x = np.random.default_rng(1).standard_normal((settings.tokens, EXPERTS), dtype=np.float32)
    rows = gates(x, settings) + capacity(x, settings) + rows
    if parser.parse_args().markdown:
        print_markdown(rows)
        return
    print_table(rows, settings)
    for what, seconds, goal in starting(settings):
        print(f"{what:44} {seconds:9.2f} s   goal {goal} s")


if __name__ == "__main__":
    main()
