"""Published results beside simulated ones: python -m tests.validation.published.

Prints one table: where a figure was published, for which configuration, the figure, the simulated one and the error.
Figures are copied from their sources; nothing is fitted on them but the skew of each run of ST-MoE (marked) and, on the
four steps with even load, how much computing and exchanging cost each other (overlap.py). Prefill of DeepSeek-V3 with
even load is simulated with some of its 58 MoE layers; the others take as long as the difference of two numbers of them
says. With real load layers differ, and all are simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import bisect

from moesim import Scenario, apply_capacity, compare, route, simulate
from moesim.hardware import payload_bytes
from tests.validation.deepep_ep_size import table as deepep

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"


class Row(NamedTuple):
    """A published figure and what moesim makes of it, both in `unit`."""

    source: str
    configuration: str
    unit: str
    published: float
    simulated: float


def uniform_drops() -> list[Row]:
    """Drops by chance alone; the closed form is a binomial's mean excess (tests/validation/test_published.py)."""
    published = {  # moe-routing-bench, results/capacity_cf_multi.jsonl, T = 32,768
        "factor 0.9": 9.961,
        "factor 1.0": 1.682,
        "factor 1.05": 0.299,
        "factor 1.1": 0.0,
        "128 experts, factor 1.0": 2.490,
        "128 experts, factor 1.1": 0.156,
        "256 experts, factor 1.0": 3.363,
        "256 experts, factor 1.1": 0.571,
        "64 experts, top-4, factor 1.0": 0.871,
    }
    found = compare(Scenario.from_yaml(SCENARIOS / "uniform-capacity.yaml")).summary["drop_rate"]
    return [
        Row(
            "moe-routing-bench, uniform",
            name if "experts" in name else f"64 experts, {name}",
            "% dropped",
            value,
            found[name] * 100,
        )
        for name, value in published.items()
    ]


@cache
def skewed_drop(exponent: float, factor: float) -> float:
    """Part of the assignments that a factor drops, 32,768 tokens, 32 experts, top-2, Zipf popularity."""
    noise = np.random.default_rng(1).gumbel(size=(32768, 32))
    logits = (noise - exponent * np.log(np.arange(1, 33))).astype(np.float32)
    assignment = route(logits, strategy="softmax-top-k", top_k=2)
    return float(np.mean(apply_capacity(assignment, n_experts=32, capacity_factor=factor, scope="global").dropped))


def st_moe_drops() -> list[Row]:
    """ST-MoE, table 5: one skew per run, fitted at 1.25."""
    published = {
        "with auxiliary loss": {1.25: 0.3, 0.75: 10.6, 2.0: 0.0, 4.0: 0.0},
        "without auxiliary loss": {1.25: 2.9, 0.75: 15.6, 2.0: 0.4, 4.0: 0.0},
    }
    rows = []
    for run, drops in published.items():
        exponent = bisect(lambda x, wanted=drops[1.25]: skewed_drop(x, 1.25) - wanted / 100, 0, 2, xtol=1e-3)
        for factor, value in drops.items():
            kind = " (fitted)" if factor == 1.25 else ""
            name = f"{run}, factor {factor:g}{kind}"
            rows.append(Row("ST-MoE, table 5", name, "% dropped", value, 100 * skewed_drop(exponent, factor)))
    return rows


def node_limited() -> list[Row]:
    """DeepSeek-V3, section 2.1.2: a token's experts are on at most four nodes."""
    even = {"workload.popularity": {"kind": "uniform"}}  # of which the closed form is
    scenario = Scenario.from_yaml(SCENARIOS / "node-limited.yaml", overrides=even)
    table = compare(scenario).summary
    spec = scenario.spec
    n_nodes, layers = spec.cluster.nodes, spec.model.n_layers - len(spec.model.dense_layers)
    assert spec.workload.tokens_per_gpu is not None
    n_tokens = spec.cluster.gpus_per_node * n_nodes * spec.workload.tokens_per_gpu
    copy = sum(
        payload_bytes(spec.model.hidden_size, getattr(scenario.precision, way)) for way in ("dispatch", "combine")
    )
    # Of the nodes of a token, all equally likely, one in eight is its own.
    nodes = table["bytes.across_nodes"] / (n_tokens * layers * copy) * n_nodes / (n_nodes - 1)
    anywhere = n_nodes * (1 - comb(224, 8) / comb(256, 8))  # no expert among the 32 of a node, of 256
    where = "8 nodes, top-8 of 256"
    return [
        Row("DeepSeek-V3, 2.1.2", f"{where}: nodes a token, at most", "", 4, nodes["limited"]),
        Row("DeepSeek-V3, 2.1.2", f"{where}: experts on each of them, at least", "", 2, 8 / nodes["limited"]),
        Row("closed form", f"{where}, not limited: nodes a token", "", anywhere, nodes["unlimited"]),
        Row(
            "closed form",
            f"{where}: bytes across nodes, limited to 4 over not",
            "",
            4 / anywhere,
            nodes["limited"] / nodes["unlimited"],
        ),
    ]


def deepep_sizes() -> list[Row]:
    """DeepEP low latency, 128 tokens a GPU, as deepep_ep_size.py runs it."""
    rows = deepep().to_dict("records")
    return [
        Row(
            "DeepEP README",
            f"low latency, EP{row['EP']}, {way}",
            "us",
            row[f"{way} published"],
            row[f"{way} simulated"],
        )
        for way in ("dispatch", "combine")
        for row in rows
    ]


SERVED = "deepseek-v3-served"
"""Popularity where load was real: a law of the counts that SGLang published of the deployment in the rows named SGLang.

Redundant experts are the first ones, in the order of their numbers, as moesim places them; SGLang and DeepSeek chose
copies and places by such counts (EPLB), which moesim does not.
"""


def step_s(n_layers: int = 61, **overrides: Any) -> float:
    """Seconds of a step of DeepSeek-V3 with that many layers; two underscores of a field are a dot."""
    base = {
        "model": {"preset": "deepseek-v3", "n_layers": n_layers},
        "cluster": {"gpu": "h100-sxm"},
        "workload": {"steps": 1},
    }
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return float(simulate(Scenario.from_dict(base, overrides=dotted)).summary["step_time_s"]["mean"])


@cache
def decode_s(nodes: int, requests: int, context: int, **more: Any) -> float:
    """Seconds of a step, load even: 256 experts where GPUs divide them, else 288 equal ones for 288 slots."""
    return step_s(
        model__n_experts=256 if 256 % (8 * nodes) == 0 else 288,
        routing__strategy="round-robin",
        routing__parameters={},
        cluster__nodes=nodes,
        cluster__network="deepep-low-latency",
        workload__tokens_per_gpu=requests,
        workload__context_tokens=context,
        **{"simulation__overlap": "two-batch", **more},
    )


@cache
def real_decode_s(nodes: int, requests: int, context: int) -> float:
    """The same with real load, 288 slots in runs."""
    return step_s(
        workload__popularity=SERVED,
        placement__redundant_experts=32,
        cluster__nodes=nodes,
        cluster__network="deepep-low-latency",
        workload__tokens_per_gpu=requests,
        workload__context_tokens=context,
        simulation__overlap="two-batch",
    )


@cache
def prefill_s(h800: bool = False, real: bool = False, prompt: int = 4096, **more: Any) -> float:
    """Seconds of a step: EP32, 16,384 tokens a GPU; H800 has links of 400 GB/s both ways."""
    settings: dict[str, Any] = {
        "workload__phase": "prefill",
        "workload__tokens_per_gpu": 16384,
        "workload__sequence_tokens": prompt,
        "workload__popularity": SERVED if real else {"kind": "uniform"},
        "placement__redundant_experts": 32 if real else 0,
        "cluster__nodes": 4,
        "cluster__gpu": {"preset": "h100-sxm", **({"link_gb_per_s": [200, 50]} if h800 else {})},
        "cluster__network": "deepep-normal",
        "simulation__overlap": "two-batch",
        **more,
    }
    even = {**settings, "workload__popularity": {"kind": "uniform"}, "placement__redundant_experts": 0}
    short, longer = (step_s(n_layers, **even) for n_layers in (5, 7))  # 3 dense layers, and 2 or 4 with experts
    if not real:
        return longer + (61 - 7) / 2 * (longer - short)
    dense = short - (longer - short)
    # 12 layers with experts stand for 58: the law of the load goes through its whole depth in them too
    return dense + 58 / 12 * (step_s(15, **settings) - dense)


def overlap_gains() -> list[Row]:
    """SGLang on 96 H100: throughput by two-batch overlap."""
    rate = compare(Scenario.from_yaml(SCENARIOS / "two-batch-overlap.yaml")).summary["tokens_per_s_per_gpu"]
    rows = []
    for requests, published in ((256, 25.5), (32, -27.0)):
        gain = rate[f"{requests} requests, overlap"] / rate[f"{requests} requests"] - 1
        name = f"decode EP72, {requests} requests a GPU"
        rows.append(Row("SGLang, two-batch overlap", name, "% gain", published, 100 * gain))
    gain = prefill_s(simulation__overlap="none") / prefill_s() - 1
    rows.append(Row("SGLang, two-batch overlap", "prefill EP32, at most", "% gain", 35, 100 * gain))
    return rows


class Deployment(NamedTuple):
    """A published step of DeepSeek-V3: tokens of a GPU in it, tokens a second and node, and the simulation of it."""

    source: str
    configuration: str
    tokens: int
    published: float
    step_s: Callable[..., float]

    def rate(self, seconds: float) -> float:
        """Tokens a second and node of 8 GPUs."""
        return 8 * self.tokens / seconds


EVEN = (
    Deployment("DeepSeek profile-data", "prefill, H800, EP32, even load", 16384, 62713, partial(prefill_s, h800=True)),
    Deployment("SGLang, perfect EPLB", "prefill, H100, EP32, even load", 16384, 59337, prefill_s),
    Deployment(
        "DeepSeek profile-data", "decode, EP128, 128 x 4,096, even load", 128, 18598, partial(decode_s, 16, 128, 4096)
    ),
    Deployment(
        "SGLang, simulated MTP", "decode, EP72, 128 x 4,000, even load", 128, 17373, partial(decode_s, 9, 128, 4000)
    ),
)
"""With load that was balanced perfectly."""

REAL = (
    Deployment(
        "SGLang", "prefill, H100, EP32, prompts of 1,024", 16384, 57674, partial(prefill_s, real=True, prompt=1024)
    ),
    Deployment(
        "SGLang", "prefill, H100, EP32, prompts of 2,048", 16384, 54543, partial(prefill_s, real=True, prompt=2048)
    ),
    Deployment("SGLang", "prefill, H100, EP32, prompts of 4,096", 16384, 50302, partial(prefill_s, real=True)),
    Deployment("SGLang", "decode, EP72, 256 x 2,000", 256, 22282, partial(real_decode_s, 9, 256, 2000)),
    Deployment("DeepSeek, served", "decode, EP144, 128 x 4,989", 128, 14800, partial(real_decode_s, 18, 128, 4989)),
)
"""With real requests."""


def throughput() -> list[Row]:
    """Whole deployments of DeepSeek-V3."""
    rows = [Row(d.source, d.configuration, "tokens/s/node", d.published, d.rate(d.step_s())) for d in (*EVEN, *REAL)]
    busy = Deployment("", "", 16384, 0, partial(prefill_s, real=True))
    where = "prefill, H800, EP32, mean of a day, without cache hits"
    return [*rows, Row("DeepSeek, served", where, "tokens/s/node", 32206, busy.rate(busy.step_s()))]


SECTIONS = (uniform_drops, st_moe_drops, node_limited, deepep_sizes, overlap_gains, throughput)


def line(row: Row) -> str:
    """As a row of the table; errors of percentages in points, others in per cent of the published figure."""
    if row.unit.startswith("%"):
        error = f"{round(row.simulated - row.published, 2) + 0.0:+g} points"
    else:
        error = f"{round(100 * (row.simulated / row.published - 1)) + 0:+d} %"
    published, simulated = (
        f"{x:,.0f}" if abs(x) >= 1000 else f"{float(f'{x:.3g}'):g}" for x in (row.published, row.simulated)
    )
    cells = (row.source, row.configuration, row.unit, published, simulated, error)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    print("| source | configuration | unit | published | simulated | error |\n|---|---|---|---|---|---|")
    for part in SECTIONS:
        for row in part():
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
