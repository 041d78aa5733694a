"""Every scenario that ships with the package runs whole, and shows the effect it is there to show."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, Study, compare
from moesim.errors import ScenarioError
from moesim.scenario import presets
from moesim.simulation import simulate

SHIPPED = Path(__file__).parents[2] / "scenarios"


def study(name: str) -> Study:
    """A comparison of a shipped scenario, whose report can be made."""
    found = compare(Scenario.from_yaml(SHIPPED / f"{name}.yaml"))
    assert "</html>" in found.report_html()
    return found


@pytest.mark.slow
def test_quickstart() -> None:
    """Skewed routers pay for imbalance, the random control hardly; capacity trades drops for time."""
    table = study("quickstart").summary
    assert table.imbalance_penalty["mixtral"] > table.imbalance_penalty["random"] > 1
    for router in ("mixtral", "switch", "random"):
        rows = table.loc[[router, f"{router}, capacity 1.25", f"{router}, capacity 1.0"]]
        assert rows["drop_rate"].is_monotonic_increasing
        assert rows["step_time_s.mean"].is_monotonic_decreasing
        assert rows["max_violation.mean"].nunique() == 1


@pytest.mark.slow
def test_benchmark_patterns() -> None:
    """Experts that are equally uneven cost by how uneven the GPUs are; the README has these figures."""
    table = study("benchmark-patterns").summary
    hot = ["spread hot experts", "hot experts", "hot rank"]
    assert table["max_violation.mean"][hot].tolist() == [3.0] * 3
    assert table.imbalance_penalty[hot].round(2).tolist() == [1.02, 1.05, 1.21]
    assert table.imbalance_penalty["balanced"] == 1.0
    assert table["balancedness.mean"]["idle rank"] == pytest.approx(7 / 8, abs=0.002)
    steps = table["step_time_s.mean"]
    assert steps["ragged sources"] > 1.2 * steps["balanced"]
    assert steps["hot rank"] == pytest.approx(steps["rotating hot spot"], rel=1e-3)


@pytest.mark.slow
def test_mixtral_recorded() -> None:
    """Runs on the trace that ships: a global capacity drops, copies even out."""
    table = study("mixtral-recorded").summary
    assert 0.35 < table["max_violation.mean"]["as recorded"] < 0.7
    assert table["drop_rate"]["as recorded"] == 0 < table["drop_rate"]["capacity 1.25"] < 0.1
    assert table["balancedness.mean"]["8 redundant experts"] > table["balancedness.mean"]["as recorded"]


@pytest.mark.slow
def test_deepseek_v3_decode() -> None:
    """Copies of the first, hottest experts help, dealt out the more; one copy a node needs fewer bytes across nodes."""
    table = study("deepseek-v3-decode").summary
    balancedness = table["balancedness.mean"]
    assert balancedness["64 copies, round-robin"] > balancedness["round-robin"]
    assert balancedness["64 copies, contiguous"] > balancedness["contiguous"]
    assert balancedness["round-robin"] > balancedness["contiguous"]  # neighbours are alike
    assert 5 < table["max_violation.mean"]["contiguous"] < 7
    assert table["bytes.across_nodes"]["two-hop network"] < table["bytes.across_nodes"]["contiguous"]
    assert table["drop_rate"]["contiguous"] == 0 < table["drop_rate"]["capacity 1.25"]
    assert table["max_violation.mean"].nunique() == 1


@pytest.mark.slow
def test_switch_capacity() -> None:
    """The smaller the factor the more is dropped; a global scope drops less than one a rank."""
    table = study("switch-capacity").summary
    drops = table["drop_rate"]
    assert drops["dropless"] == 0 < drops["capacity 2.0"] < drops["capacity 1.25"] < drops["capacity 1.0"]
    assert drops["capacity 1.25, global"] < drops["capacity 1.25"]
    assert drops["capacity 1.25, by probability"] == pytest.approx(drops["capacity 1.25"])


@pytest.mark.slow
def test_olmoe_prefill() -> None:
    """One copy per node sends least across nodes, one per selected expert most."""
    across = study("olmoe-prefill").summary["bytes.across_nodes"]
    assert across["one copy per node"] < across["one copy per rank"] < across["one copy per expert"]


@pytest.mark.slow
def test_node_limited() -> None:
    """Four nodes of eight instead of 5.29 on average, were load even; the same tokens to the same number of experts."""
    across = study("node-limited").summary["bytes.across_nodes"]
    assert across["limited"] / across["unlimited"] == pytest.approx(4 / 5.29, abs=0.015)


@pytest.mark.slow
def test_oversubscribed_racks() -> None:
    """Half of what leaves the nodes stays in its rack, so that 2:1 costs little; the README has the table."""
    table = study("oversubscribed-racks").summary
    time, busy = table["step_time_s.mean"] * 1e3, table["uplink_busy"]
    assert time["2:1"] == pytest.approx(time["non-blocking"], rel=0.01)
    assert time["non-blocking"] < time["4:1"] < time["8:1"]
    assert time["8:1, one copy a node"] < 0.7 * time["8:1"]
    assert time["8:1, a group a rack"] < time["non-blocking"]
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]*?) \| ([0-9.]+ ms \| [^|]*?) \|$", readme, re.MULTILINE))
    for variant in time.index:
        share = "-" if np.isnan(busy[variant]) else f"{busy[variant]:.0%}".replace("%", " %")
        assert rows[variant] == f"{time[variant]:.0f} ms | {share}"


@pytest.mark.slow
def test_expert_parallel_size() -> None:
    """Groups of a node send nothing across nodes; two GPUs that share an expert both get its tokens."""
    table = study("expert-parallel-size").summary
    across = table["bytes.across_nodes"]
    assert across["four groups of 8"] == 0 < across["two groups of 16"] < across["one group of 32"]
    assert across["16 ranks of 2 GPUs"] == 2 * across["one group of 32"] == 2 * across["heads shared by 4"]
    penalty = table["imbalance_penalty"]
    assert penalty["four groups of 8"] < penalty["two groups of 16"] < penalty["one group of 32"]


@pytest.mark.slow
def test_two_batch_overlap() -> None:
    """Helps the large batch, hurts the small one."""
    rate = study("two-batch-overlap").summary["tokens_per_s_per_gpu"]
    assert rate["256 requests, overlap"] > rate["256 requests"]
    assert rate["32 requests, overlap"] < rate["32 requests"]


@pytest.mark.slow
def test_nvl72() -> None:
    """A rack beats nodes of eight by what the README says; they gain by faster cards, and by one copy a node."""
    rate = study("nvl72").summary["tokens_per_s_per_gpu"]
    slow, fast, once = (rate[f"nodes of eight, {how}"] for how in ("400 Gb/s", "800 Gb/s", "one copy a node"))
    assert slow < fast < once < rate["one rack"]
    assert [round(rate["one rack"] / least, 1) for least in (once, slow)] == [1.6, 2.5]


MOST_NODES = 128
PAIRS = list(zip(presets("models"), itertools.cycle(presets("gpus")), strict=False))
"""Each model with a GPU, and each GPU with a model."""


@pytest.mark.slow
@pytest.mark.parametrize("model, gpu", PAIRS)
def test_every_model_runs_on_a_gpu_of_its_own(model: str, gpu: str) -> None:
    """Whole, on as many nodes as hold it: each GPU has its turn; on one of 288 GB if none of that GPU hold it."""
    try:
        took = step_time(model, gpu)
    except ScenarioError as error:
        if "does not fit in memory" not in str(error):
            raise
        took = step_time(model, "b300-sxm")
    assert 1e-4 < took < 1


@pytest.mark.parametrize("gpu", presets("gpus"))
def test_every_gpu_runs_a_plain_model_and_one_of_many_experts(gpu: str) -> None:
    """The first layers of Mixtral, and of DeepSeek-V3 with latent attention, dense layers and FP8."""
    for model in ({"preset": "mixtral-8x7b", "n_layers": 4}, {"preset": "deepseek-v3", "n_layers": 5}):
        assert 1e-4 < step_time(model, gpu, gpus_per_node=8) < 0.1


def step_time(model: Any, gpu: str, nodes: int = 1, **cluster: Any) -> float:
    """Seconds of a step of 16 requests a GPU, on the fewest nodes, a power of two, that hold it."""
    document = {
        "model": model,
        "cluster": {"gpu": gpu, "nodes": nodes, **cluster},
        "workload": {"steps": 1, "tokens_per_gpu": 16},
    }
    try:
        return float(simulate(Scenario.from_dict(document)).summary["step_time_s"]["mean"])
    except ScenarioError as error:
        if "does not fit in memory" not in str(error) or nodes >= MOST_NODES:
            raise
        return step_time(model, gpu, 2 * nodes, **cluster)


@pytest.mark.slow
def test_expert_servers() -> None:
    """Room limits the queue; what has no room is dropped, blocks or goes to the next choice."""
    runs = study("expert-servers")
    table = runs.summary
    assert table["drop_rate"]["drop beyond 128"] > table["drop_rate"]["next choice beyond 128"]
    assert table["reroute_rate"]["next choice beyond 128"] > 0
    assert table["drop_rate"]["block beyond 128"] == table["drop_rate"]["queued"] == 0
    assert table["step_time_s.mean"]["block beyond 128"] > table["step_time_s.mean"]["queued"]
    assert table["queue.tokens_max"]["drop beyond 128"] == 128 < table["queue.tokens_max"]["queued"]
    assert table["breakdown_s.wait"]["queued"] < table["breakdown_s.wait"]["rounds of exchanges"]


@pytest.mark.slow
def test_faults() -> None:
    """Each of them costs time or tokens; copies save tokens, a replacement saves all of them and costs its time."""
    table = study("faults").summary
    well = table.loc["all well"]
    for name in ("a GPU 1.5x slower", "a link 4x slower", "10 % jitter", "lost, all wait for a new one"):
        assert table["step_time_s.mean"][name] > well["step_time_s.mean"]
        assert table["drop_rate"][name] == 0
    assert table["drop_rate"]["lost"] > 5 * table["drop_rate"]["lost, a copy of each expert"] > 0
