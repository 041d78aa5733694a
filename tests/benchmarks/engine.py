"""Speed of the engine, of a whole step, and memory, in one run: python -m tests.benchmarks.engine.

The case is a decode step of DeepSeek-V3: 58 MoE layers, 320 slots on 64 GPUs,
128 tokens each. Calls that are compared run in turn and their minima are
printed, with their ratio to a named baseline; above 1 ours takes longer. Times
are of the processor, so that a machine that others use too disturbs them less
(but caches and cores are shared all the same); a whole step, on two threads,
has its time on the wall beside it. The textbook model (tests/textbook.py) runs
a few layers and is extrapolated. No test reads a time.

`--quick` leaves out 256 and 1,024 GPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import simpy

from moesim import Scenario, simulate
from moesim.engine import run, run_compiled
from moesim.simulation import profile
from moesim.simulation.prepare import prepare
from moesim.simulation.program import lay_out_step
from moesim.simulation.routing_step import route_step
from moesim.simulation.state import start
from moesim.simulation.threads import default_threads
from moesim.types import Program
from tests.textbook import textbook

CASE = {"placement.redundant_experts": 64, "placement.strategy": "round-robin"}
DIRECT, TWO_HOP = {"cluster.network": "deepep-low-latency"}, {"cluster.network": "deepep-normal"}
PORTS = {"simulation.network": "port"}
TEXTBOOK_LAYERS = 2
BY_OPERATION = ("kind", "layer", "stream", "duration_ps", "exchange_row")

Call = Callable[[], object]


def minima(calls: Mapping[str, Call], repeats: int) -> dict[str, float]:
    """Milliseconds of the fastest of several calls that run in turn, after one round that warms up."""
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(1 + repeats):
        for name, call in calls.items():
            gc.collect()
            start = time.process_time()
            call()
            if turn:
                best[name] = min(best[name], time.process_time() - start)
    return {name: seconds * 1e3 for name, seconds in best.items()}


def row(what: str, ours: float, goal: str, baseline: str = "", theirs: float = 0.0) -> None:
    """One line of the table, milliseconds."""
    against = f"{ours / theirs:8.2f}x  {baseline} ({theirs:,.2f} ms)" if theirs else ""
    print(f"{what:46} {ours:10.2f} ms  {goal:12} {against}", flush=True)


def scenario(**changes: Any) -> Scenario:
    """The case with changes by dotted name."""
    return Scenario.from_yaml("deepseek-v3-decode", overrides={**CASE, **changes})


def program_of(**changes: Any) -> Program:
    """The program of its first step."""
    plan = prepare(scenario(**{"workload.steps": 1, "workload.sampling": "direct", **SIMPLE, **changes}))
    with ThreadPoolExecutor(default_threads()) as pool:
        return lay_out_step(plan, route_step(plan, start(plan), plan.source.batch(0), pool=pool))


SIMPLE = {"routing.strategy": "softmax-top-k"}
"""A gate that the direct sampler draws for."""


def bare_timeouts(n_events: int) -> Call:
    """As many SimPy timeouts and nothing else, without the collector, as the engine runs."""

    def bare() -> None:
        gc.disable()
        env = simpy.Environment()
        for i in range(n_events):
            env.timeout(i)
        env.run()
        gc.enable()

    return bare


def messages(program: Program) -> int:
    """Of a step: a pair of GPUs with tokens exchanges them twice a layer."""
    off_diagonal = ~np.eye(program.n_gpus, dtype=bool)
    return 2 * int(np.count_nonzero(program.copies[:, off_diagonal]))


def engine(repeats: int) -> None:
    """Both interpreters on 64 GPUs."""
    for what, changes, goal in (
        ("closed form", DIRECT, "< 1.5 ms"),
        ("ports, direct", DIRECT | PORTS, "< 12 ms"),
        ("ports, two-hop", TWO_HOP | PORTS, "< 20 ms"),
    ):
        program = program_of(**changes)
        n_events = run(program).n_events
        if program.network == "port":
            print(f"{what}: {messages(program):,} messages, {n_events:,} events")
        best = minima(
            {
                "compiled": partial(run_compiled, program),
                "simpy": partial(run, program),
                "bare": bare_timeouts(n_events),
            },
            repeats,
        )
        row(f"{what}, compiled", best["compiled"], goal)
        floor = best["bare"] + (best["compiled"] if program.network == "port" else 0.0)
        name = "compiled + as many bare timeouts" if program.network == "port" else "as many bare timeouts"
        row(f"{what}, SimPy", best["simpy"], "<= 1.3x", name, floor)
        if program.network == "port":
            few = first_layers(program, TEXTBOOK_LAYERS)
            start = time.process_time()
            textbook(few)
            whole = (time.process_time() - start) * 1e3 * len(program.copies) / TEXTBOOK_LAYERS
            row(f"{what}, textbook from {TEXTBOOK_LAYERS} layers", whole, "> 500x", "SimPy", best["simpy"])


def first_layers(program: Program, n_layers: int) -> Program:
    """The program up to its n-th MoE layer."""
    last = int(np.flatnonzero(program.exchange_row == n_layers - 1)[-1]) + 1
    return dataclasses.replace(
        program,
        **{name: getattr(program, name)[:last] for name in ("kind", "layer", "stream", "duration_ps", "exchange_row")},
        predecessors=program.predecessors[:last],
        copies=program.copies[:n_layers],
        node_copies=program.node_copies[:n_layers],
        slot_tokens=program.slot_tokens[:n_layers],
        slot_capacity=program.slot_capacity[:n_layers],
    )


def larger(repeats: int) -> None:
    """256 GPUs."""
    for what, changes in (("direct", DIRECT), ("two-hop", TWO_HOP)):
        program = program_of(**{"cluster.nodes": 32}, **changes, **PORTS)
        print(f"256 GPUs, {what}: {messages(program):,} messages")
        best = minima({"compiled": partial(run_compiled, program)}, repeats)
        row(f"256 GPUs, ports, {what}, compiled", best["compiled"], "< 250 ms" if what == "direct" else "")


def whole_step(repeats: int) -> None:
    """A step from generation to metrics, and its profile."""
    n_steps = 6
    clock: Any = profile
    clock.time = SimpleNamespace(perf_counter=time.thread_time)  # the profile in processor time as well
    for what, changes, goal in (
        ("drawn directly", {**SIMPLE, "workload.sampling": "direct"}, "< 80 ms"),
        ("drawn directly, ports", {**SIMPLE, "workload.sampling": "direct", **PORTS}, ""),
        ("DeepSeek-V3's gate", {}, "< 700 ms"),
    ):
        case = scenario(**{"workload.steps": n_steps, **changes})
        steps, simulated = [], 0.0
        parts: dict[str, float] = {}
        for turn in range(1 + repeats):
            marks: list[tuple[float, float]] = []
            result = simulate(
                case,
                progress=lambda *_, marks=marks: marks.append((time.perf_counter(), time.process_time())),
                threads=2,
            )
            if turn:
                steps.append(np.diff(marks, axis=0).min(axis=0) * 1e3)
                for part, seconds in result.manifest["profile_s"].items():
                    parts[part] = min(parts.get(part, float("inf")), seconds / n_steps)
            simulated = result.summary["step_time_s"]["mean"]
        wall, processor = np.min(steps, axis=0)
        row(f"whole step, {what}", wall, goal, "simulated time", simulated * 1e3)
        print(f"    both threads together {processor:.1f} ms of the processors; of it ", end="")
        print(", ".join(f"{part} {seconds * 1e3:.1f}" for part, seconds in parts.items()))
    clock.time = time


def huge() -> None:
    """1,024 GPUs with ports, one whole step, in a process of its own for its peak memory."""
    subprocess.run([sys.executable, "-m", "tests.benchmarks.engine", "--huge"], check=True)


def _huge() -> None:
    changes = {
        "cluster.nodes": 128,
        "placement.redundant_experts": 768,
        "workload.steps": 1,
        **SIMPLE,
        **DIRECT,
        **PORTS,
    }
    case = scenario(**changes)
    start = time.process_time()
    simulate(case, threads=2)
    row("1,024 GPUs, ports, whole run of a step", (time.process_time() - start) * 1e3, "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{'1,024 GPUs, peak memory':46} {peak:10.2f} GB  {'< 4 GB':12}")
    program = program_of(**changes)
    print(f"1,024 GPUs: {messages(program):,} messages")
    best = minima({"compiled": lambda: run_compiled(program)}, 2)
    row("1,024 GPUs, ports, direct, compiled", best["compiled"], "about 2 s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--huge", action="store_true", help="only the step of 1,024 GPUs")
    args = parser.parse_args()
    if args.huge:
        _huge()
    else:
        engine(args.repeats)
        whole_step(max(2, args.repeats // 2))
        if not args.quick:
            larger(max(2, args.repeats // 2))
            huge()
