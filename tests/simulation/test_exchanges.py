"""Exchanges of runs: as they were measured, and on GPUs and networks that were not."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, simulate
from moesim.cli import main
from moesim.errors import ScenarioError
from moesim.simulation.exchanges import exchanges
from moesim.simulation.prepare import prepare
from tests.validation import exchanges as measured

CASES = Path(os.environ.get("MOESIM_DATA", "")) / "cases" / "reports"
needs_cases = pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA is not set")
FITTED = (
    *("deepep-low-latency", "deepep-normal", "nccl-all-gather", "nccl-all-to-all"),
    *("trtllm-deepep-low-latency", "trtllm-deepep-normal", "vllm-deepep-low-latency", "vllm-deepep-normal"),
)
INLINE = {"peak_tflops": {"bf16": 200.0}, "memory_gb": 80.0, "memory_bandwidth_gb_per_s": 1000.0}


def scenario(network: Any = "deepep-low-latency", *, gpu: Any = "h100-sxm", nodes: int = 1, **fields: Any) -> Scenario:
    """DeepSeek-V3 with two layers whose tokens choose at random; two underscores of a field are a dot."""
    data = {
        "model": {"preset": "deepseek-v3", "n_layers": 2, "dense_layers": []},
        "cluster": {"gpu": gpu, "nodes": nodes, "gpus_per_node": 8, "network": network},
        "precision": {"dispatch": "fp8"} if gpu == "h100-sxm" else {},
        "routing": {"strategy": "random", "parameters": {}},
        "workload": {"steps": 1, "tokens_per_gpu": 32},
    }
    return Scenario.from_dict(data, overrides={name.replace("__", "."): value for name, value in fields.items()})


def parts_us(of: Scenario) -> np.ndarray:
    """Microseconds a layer of dispatch and of combine, mean GPU."""
    gpus = simulate(of).gpus
    return 1e6 * gpus[["dispatch_s", "combine_s"]].mean().to_numpy() / len(of.model.moe_layers)


def test_runs_take_what_was_measured() -> None:
    """Some rows of few tokens of each table, both levels of detail; tests/validation/exchanges.py runs them all."""
    by_name: dict[str, list[Any]] = {}
    for row in measured.rows():
        if row.tokens * row.gpus <= 2**13:
            by_name.setdefault(row.name, []).append(row)
    shares = {
        name: 12 if "low latency, " in name else 5 if "NCCL" in name else 3 for name in by_name
    }  # of tight errors more
    some = [row for name, rows in by_name.items() for row in rows[:: -(-len(rows) // shares[name])]]
    found = measured.errors(some)
    assert len(by_name) == 10
    for name, most in (
        ("DeepEP low latency", (3.0, 10.0)),
        ("DeepEP normal", (8.0, 25.0)),
        ("NCCL", (6.0, 30.0)),
        ("TensorRT-LLM", (10.0, 100.0)),
    ):
        for level in measured.LEVELS:
            error = 100 * found.loc[found["name"].str.startswith(name) & (found["level"] == level), "error"].abs()
            assert len(error) >= 3
            assert error.median() < most[0], (name, level)
            assert error.quantile(0.9) < most[1], (name, level)


@pytest.mark.parametrize("level", ["closed-form", "port"])
def test_low_latency_wins_in_decode_where_it_was_measured_to_win(level: str) -> None:
    """128 tokens a GPU on 4 and 8 nodes: the exchange of counts is a third of what normal kernels take."""
    for nodes, low, normal in ((4, (143, 263), (158, 268)), (8, (167, 305), (300, 540))):
        found = [
            parts_us(scenario(name, nodes=nodes, workload__tokens_per_gpu=128, simulation__network=level))
            for name in ("deepep-low-latency", "deepep-normal")
        ]
        assert found[0] == pytest.approx(low, rel=0.04)
        assert found[1] == pytest.approx(normal, rel=0.12)
        assert found[0].sum() < found[1].sum()


@needs_cases
def test_the_case_of_normal_kernels_in_decode() -> None:
    """As reported, with choices at random as in the measurements."""
    case = Scenario.from_yaml(CASES / "04_normal_vs_low_latency.yaml")
    random = {"routing.strategy": "random", "routing.parameters": {}, "model.n_layers": 5}
    low, normal = (
        parts_us(case.with_overrides({**random, **change})) for change in ({}, {"cluster.network": "deepep-normal"})
    )
    assert low == pytest.approx((143, 263), rel=0.03)
    assert normal == pytest.approx((103 + 55, 213 + 55), rel=0.08)
    assert low.sum() < normal.sum()
    steps = {name: simulate(variant).summary["step_time_s"]["mean"] for name, variant in case.variants().items()}
    assert steps["low latency"] < steps["normal"]


@pytest.mark.parametrize("network", FITTED)
@pytest.mark.parametrize("nodes", [1, 2])
def test_both_levels_charge_an_exchange_alike(network: str, nodes: int) -> None:
    """Closed form and ports differ by less than 5 %."""
    closed, port = (
        parts_us(scenario(network, nodes=nodes, simulation__network=level)) for level in ("closed-form", "port")
    )
    assert port == pytest.approx(closed, rel=0.05)


@pytest.mark.parametrize("kernel", ["deepep-low-latency", "deepep-normal"])
@pytest.mark.parametrize("nodes", [2, 8])
def test_a_wrapper_is_not_faster_across_nodes_than_the_kernel_that_it_calls(kernel: str, nodes: int) -> None:
    """No table has it there; with TensorRT-LLM's name normal kernels would seem to win in decode again."""
    own, *wrapped = (
        parts_us(scenario(name + kernel, nodes=nodes, precision__dispatch="bf16", cluster__network__comm_sms=24))
        for name in ("", "trtllm-", "vllm-")
    )
    assert all((took >= 0.999 * own).all() for took in wrapped)


def test_an_exchange_ends_everywhere_with_its_busiest_port() -> None:
    """Tokens that want few experts: all GPUs wait for the hot one, in dispatch and in combine."""
    skewed = scenario(routing__strategy="softmax-top-k", workload__popularity={"exponent": 2.0})
    gpus = simulate(skewed).gpus
    assert gpus["dispatch_s"].nunique() == 1
    assert (parts_us(skewed) > 1.2 * parts_us(scenario())).all()


@pytest.mark.parametrize("network", FITTED)
def test_more_tokens_never_take_less(network: str) -> None:
    """Of an even load, from 1 to 600 tokens a GPU, the edges of what the kernels send at once included."""
    plan = prepare(scenario(network))
    top_k, gpus = 8, 8
    before = (0.0, 0.0)
    for tokens in (*range(1, 40), *range(120, 140), *range(250, 260), 400, 600):
        counts = [np.full(gpus, tokens, dtype=np.int64)]
        copies = tokens * top_k * (gpus - 1) / gpus
        now = tuple(float(e.latency_ps[0]) + copies * float(e.out_ps[0, 0]) for e in exchanges(plan, counts))
        if network != "nccl-all-to-all":  # whose protocol for larger messages begins slower, as measured
            assert all(later >= 0.995 * sooner for sooner, later in zip(before, now, strict=True))
        before = now


def test_links_scale_what_was_measured_elsewhere() -> None:
    """Half the NVLink, twice of it, and PCIe: large exchanges follow the link, small ones their launches."""
    times = {
        name: parts_us(scenario(gpu={"preset": "h100-sxm", "link_gb_per_s": rates}, workload__tokens_per_gpu=1024))
        for name, rates in (("half", [225, 50]), ("own", [450, 50]), ("twice", [900, 50]), ("pcie", [32, 25]))
    }
    assert times["half"] == pytest.approx(2 * times["own"], rel=0.1)
    assert times["twice"] == pytest.approx(times["own"] / 2, rel=0.2)
    assert (times["pcie"] > 10 * times["own"]).all()


@pytest.mark.parametrize(
    "gpu, nodes, fields, words",
    [
        ("h100-sxm", 1, {}, "measured: deepep-low-latency"),
        ("h100-sxm", 8, {}, "measured: deepep-low-latency"),
        ("h100-sxm", 16, {}, "estimated: .*128 GPUs in nodes of 8 were not measured"),
        ("h100-sxm", 1, {"workload__tokens_per_gpu": 4096}, "estimated: .*4,096 tokens a GPU were not measured"),
        ("h100-sxm", 1, {"precision__dispatch": "bf16"}, "estimated: .*dispatch in bf16 was not measured"),
        ("h200-sxm", 1, {}, r"estimated: .*links of h200-sxm \(450 instead of 450 GB/s within a node\)"),
        (
            "b200-sxm",
            2,
            {},
            r"estimated: .*links of b200-sxm \(900 instead of 450 GB/s within a node, 50 instead of 50",
        ),
        ("l40s", 1, {}, r"estimated: .*from h100-sxm .* links of l40s \(32 instead of 450 GB/s"),
    ],
)
def test_a_network_is_measured_where_it_was(gpu: str, nodes: int, fields: dict[str, Any], words: str) -> None:
    """Elsewhere the label says "estimated" and why."""
    assert re.match(words, scenario(gpu=gpu, nodes=nodes, **fields).provenance["network"])


@needs_cases
def test_the_case_of_a_network_of_another_machine() -> None:
    """It is measured on H100 and estimated on the other."""
    case = Scenario.from_yaml(CASES / "09_network_of_another_machine.yaml")
    assert case.provenance["network"].startswith("estimated: deepep-low-latency")
    on_h100 = case.with_overrides({"cluster.gpu": "h100-sxm", "precision.dispatch": "bf16"})
    assert (parts_us(case.with_overrides({"precision.dispatch": "bf16"})) > 1.2 * parts_us(on_h100)).all()


def test_stated_rates_replace_fitted_ones() -> None:
    """A latency of 1 ms is one; without `fitted` the four lists are the whole network."""
    stated = scenario({"preset": "deepep-low-latency", "dispatch_latency_us": [1000.0, 1000.0]})
    assert parts_us(stated)[0] == pytest.approx(1000 + parts_us(scenario())[0], rel=0.03)
    assert parts_us(stated)[1] == pytest.approx(parts_us(scenario())[1])
    rates = {name: [10.0, 20.0] for name in ("dispatch_latency_us", "combine_latency_us")}
    rates |= {name: [100.0, 50.0] for name in ("dispatch_bandwidth_gb_per_s", "combine_bandwidth_gb_per_s")}
    inline = prepare(scenario({"copies": "per-selection", **rates}))
    dispatch, _ = exchanges(inline, [np.full(8, 32)])
    assert dispatch.latency_ps.tolist() == [10_000_000, 20_000_000]
    assert np.unique(dispatch.out_ps, axis=1)[:, 0].tolist() == [74_080, 148_160]


def test_more_sms_send_faster() -> None:
    """24 SMs take less than half the time of 4."""
    few, many = (
        parts_us(scenario({"preset": "deepep-normal", "comm_sms": sms}, workload__tokens_per_gpu=1024))
        for sms in (4, 24)
    )
    assert (few > 2 * many).all()


def test_constants_that_nobody_has_fitted() -> None:
    """The error lists the groups that there are."""
    network = {"preset": "deepep-low-latency", "fitted": ["a/deepep-ll/b/dispatch", "c"]}
    with pytest.raises(ScenarioError, match=r"network.fitted: found a/deepep-ll/b/dispatch, wanted one of .*sglang/"):
        prepare(scenario(network))


@pytest.mark.parametrize(
    "cluster, warned, links",
    [
        ({"gpu": INLINE}, True, (32, 25)),
        ({"gpu": INLINE, "network": "deepep-low-latency"}, True, (32, 25)),
        ({"gpu": {**INLINE, "network": "nvlink5-ib400"}}, False, (900, 50)),
        ({"gpu": INLINE, "network": "nvlink4-ib400"}, False, (450, 50)),
        ({"gpu": {**INLINE, "link_gb_per_s": [64, 12.5]}, "network": "deepep-low-latency"}, False, (64, 12.5)),
    ],
)
def test_a_gpu_of_ones_own_says_its_network(
    cluster: dict[str, Any],
    warned: bool,
    links: tuple[float, float],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line on stderr where nobody has named links, which are then those of PCIe."""
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps({"model": "olmoe-1b-7b", "cluster": {**cluster, "gpus_per_node": 4}}), encoding="utf-8")
    with pytest.raises(SystemExit, match="0"):
        main(["show", str(file)])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == warned
    assert not warned or said[0].startswith(f"warning: {file}:1:")
    assert "32 GB/s within a node" in said[0] if warned else True
    assert Scenario.from_yaml(file).cluster.gpu.link_gb_per_s == links


def test_a_resolved_scenario_gives_the_same_result() -> None:
    """The cluster is the same in every field."""
    once = scenario("deepep-normal", nodes=2, simulation__network="port")
    again = Scenario.from_dict(once.resolved())
    assert dataclasses.asdict(again.cluster) == dataclasses.asdict(once.cluster)
    assert simulate(again).steps.equals(simulate(once).steps)
