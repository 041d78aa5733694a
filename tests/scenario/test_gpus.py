"""GPUs by the names that people use, and by the few numbers that they know."""

from __future__ import annotations

from typing import Any

import pytest

from moesim import Scenario, simulate
from moesim.errors import ScenarioError
from moesim.scenario.presets import aliases, canonical, names, presets

FOUR = {"peak_tflops": 400, "memory_gb": 64, "memory_bandwidth_gb_per_s": 1600, "n_sms": 96}


def scenario(gpu: Any, **cluster: Any) -> Scenario:
    """Mixtral on this GPU."""
    return Scenario.from_dict({"model": "mixtral-8x7b", "cluster": {"gpu": gpu, **cluster}})


@pytest.mark.parametrize(
    "written, preset",
    [
        ("H100", "h100-sxm"),
        ("h100_sxm", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("A100", "a100-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("H200", "h200-sxm"),
        ("B200", "b200-sxm"),
        ("NVIDIA B300 SXM6 AC", "b300-sxm"),
        ("GB200 NVL72", "gb200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        (4090, "rtx-4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("AMD Instinct MI300X", "mi300x"),
        ("Ascend910B", "ascend-910b"),
        ("TPU v5 lite", "tpu-v5e"),
        ("Ironwood", "tpu-v7"),
        ("Intel Gaudi 3", "gaudi-3"),
    ],
)
def test_a_gpu_is_found_by_what_people_and_drivers_call_it(written: Any, preset: str) -> None:
    """The preset's name is what results show."""
    found = scenario(written)
    assert found.cluster.gpu.name == preset
    assert found.resolved()["cluster"]["gpu"]["name"] == preset


def test_every_gpu_has_a_line_of_other_names_and_no_two_share_one() -> None:
    """None of the other names is a preset's own, and each leads to its preset."""
    assert list(aliases("gpus")) == list(names("gpus"))
    for preset, others in aliases("gpus").items():
        for name in (*others, preset.upper(), preset.replace("-", " ")):
            assert canonical("gpus", name) == preset


@pytest.mark.parametrize("written, meant", [("h1000", "h100-sxm"), ("rtx 5090 ti", "rtx-5090"), ("mi355", "mi355x")])
def test_an_unknown_name_is_answered_by_the_nearest(written: str, meant: str) -> None:
    """By other names too; and a mapping may change a preset that it names like people do."""
    if canonical("gpus", written) != meant:
        with pytest.raises(ScenarioError, match=f"did you mean {meant}"):
            scenario(written)
    changed = scenario({"preset": meant.upper(), "memory_gb": 500.0}).cluster.gpu
    assert (changed.name, changed.memory_gb) == (f"{meant} (changed)", 500)


def test_four_numbers_are_a_gpu() -> None:
    """It computes in bf16 alone, has links of PCIe, and its provenance says what no one stated."""
    found = scenario(FOUR)
    gpu = found.cluster.gpu
    assert gpu.peak_tflops == {"bf16": 400}
    assert (gpu.n_sms, gpu.link_gb_per_s, gpu.network) == (96, (32, 25), "pcie4-ib200")
    assert found.precision.activations == "bf16"
    assert found.provenance["gpu"] == (
        "synthetic: inline; by default: l2_cache_mb 50, clock_ghz 1.83, link_gb_per_s 32 / 25"
    )
    assert Scenario.from_dict(found.resolved()).provenance == found.provenance


def test_a_fuller_inline_gpu_says_what_it_leaves_out() -> None:
    """Data types as stated; links are those of the network that it names."""
    peaks = {"bf16": 400, "fp8": 800}
    gpu = {**FOUR, "peak_tflops": peaks, "network": "nvlink4-efa400", "l2_cache_mb": 40, "clock_ghz": 1.5}
    found = scenario(gpu)
    assert found.cluster.gpu.peak_tflops == peaks
    assert found.cluster.gpu.link_gb_per_s == (450, 50)
    assert found.provenance["gpu"] == "synthetic: inline; by default: link_gb_per_s 450 / 50"
    assert scenario({**gpu, "link_gb_per_s": [100, 10]}).provenance["gpu"] == "synthetic: inline"


@pytest.mark.parametrize(
    "gpu, message",
    [
        (
            {**FOUR, "peak_tflops": "fast"},
            "peak_tflops: found 'fast', wanted a number, the peak of bf16 in TFLOP/s, or",
        ),
        ({**FOUR, "peak_tflops": True}, "peak_tflops: found True, wanted a number"),
        ({**FOUR, "peak_tflops": 0}, "peak_tflops.bf16: found 0, wanted greater than"),
        ({**FOUR, "peak_tflops": {"fp8": 800}}, "peak_tflops: found .'fp8'., wanted bf16 among the types"),
        ({**FOUR, "memory_gb": "64 GB"}, "memory_gb: found '64 GB', wanted a valid number"),
        ({**FOUR, "memory_bandwidth_gb_per_s": 0}, "memory_bandwidth_gb_per_s: found 0, wanted greater than"),
        ({**FOUR, "n_sms": 1.5}, "n_sms: found 1.5, wanted a valid integer"),
        (
            {**FOUR, "memory_bandwidth": 1600},
            "memory_bandwidth: found an unknown field, wanted memory_bandwidth_gb_per",
        ),
        ({"peak_tflops": 400, "n_sms": 96}, "memory_gb: found nothing, wanted this field"),
        (["h100"], "gpu: found .'h100'., wanted"),
    ],
)
def test_a_wrong_inline_gpu_is_refused_in_one_sentence(gpu: Any, message: str) -> None:
    """With the field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=f"cluster.gpu[.]?{message.removeprefix('gpu')}") as caught:
        scenario(gpu)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "gpu, a_node", [("gb200", 72), ("GB300", 72), ("gh200", 4), ("ascend-910c-die", 16), ("H100", 8)]
)
def test_a_node_has_the_gpus_that_its_links_join(gpu: str, a_node: int) -> None:
    """A rack of 72 is one node; a stated number counts, and an inline GPU may have its own."""
    assert scenario(gpu).cluster.n_gpus == a_node
    assert scenario(gpu, gpus_per_node=8, nodes=2).cluster.n_gpus == 16
    assert scenario({**FOUR, "gpus_per_node": 4}).cluster.n_gpus == 4


def test_what_no_one_published_is_said_beside_the_source() -> None:
    """And no more of what a scenario states itself."""
    assert scenario("gaudi-3").provenance["gpu"].endswith("; not published, estimated: n_sms 144, clock_ghz 1.75")
    assert scenario("h100").provenance["gpu"].endswith("dense values")
    changed = scenario({"preset": "gaudi-3", "n_sms": 64}).provenance["gpu"]
    assert changed == "synthetic: gaudi-3 (changed); not published, estimated: clock_ghz 1.75"
    fields = presets("gpus").values()
    assert all(set(gpu.get("estimated", ())) <= set(gpu) for gpu in fields)


def test_results_say_whose_kernels_were_never_measured() -> None:
    """Those of H100 stand in; a network that was measured on it is scaled, not measured, on any other."""
    small = {"preset": "olmoe-1b-7b", "n_layers": 1}
    document = {"model": small, "cluster": {"gpu": "MI300X", "network": "deepep-low-latency"}}
    told = simulate(Scenario.from_dict({**document, "workload": {"steps": 1, "tokens_per_gpu": 8}})).manifest[
        "provenance"
    ]
    assert told["kernel times"].endswith(
        "on h100-sxm, for mi300x only the published specifications changed, as none of the kernels of AMD was measured"
    )
    assert told["network"].startswith("estimated: deepep-low-latency")
    assert "(448 instead of 450 GB/s within a node); the software of AMD was not measured" in told["network"]


def test_a_rack_of_72_exchanges_through_nvlink() -> None:
    """Nine nodes of eight of the same GPUs take longer, and so does a second rack."""
    model = {"preset": "deepseek-v3", "n_layers": 5}
    took = {
        (nodes, a_node): simulate(
            Scenario.from_dict(
                {
                    "model": model,
                    "cluster": {"gpu": "GB200", "nodes": nodes, "gpus_per_node": a_node},
                    "workload": {"steps": 1, "tokens_per_gpu": 64},
                }
            )
        ).summary["breakdown_s"]["dispatch"]
        for nodes, a_node in ((1, 72), (9, 8), (2, 72))
    }
    assert 4 * took[1, 72] < took[9, 8]
    assert took[1, 72] < took[2, 72] < took[9, 8]
