"""Presets of models, GPUs and networks."""

from __future__ import annotations

import json

import pytest

from moesim import Scenario
from moesim.hardware import parameter_count
from moesim.scenario import presets

BASE = {"model": "mixtral-8x7b", "cluster": {"gpu": "h100-sxm"}}


@pytest.mark.parametrize(
    "model, billions",
    [
        ("switch-base-128", 7.4),
        ("mixtral-8x7b", 46.7),
        ("olmoe-1b-7b", 6.92),
        ("qwen3-30b-a3b", 30.5),
        ("deepseek-v2", 236),
        ("deepseek-v3", 671),
        ("gpt-oss-20b", 20.9),
        ("gpt-oss-120b", 116.8),
        ("llama-4-scout", 107.8),
        ("llama-4-maverick", 400.7),
        ("qwen3-next-80b-a3b", 79.7),
    ],
)
def test_presets_have_the_published_number_of_parameters(model: str, billions: float) -> None:
    """Within half a percent, norms and biases left out."""
    scenario = Scenario.from_dict({**BASE, "model": model})
    assert parameter_count(scenario.model)["total"] / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize("kind", ["models", "gpus", "networks"])
def test_every_preset_is_valid_and_names_its_source(kind: str) -> None:
    """Each can be used."""
    for name, fields in presets(kind).items():
        assert fields["source"]
        data = json.loads(json.dumps(BASE))
        if kind == "models":
            data["model"] = name
        else:
            data["cluster"]["gpu" if kind == "gpus" else "network"] = name
        Scenario.from_dict(data)


@pytest.mark.parametrize(
    "gpu, bus_bits, clock_mhz",
    [
        ("a100-sxm", 5120, 1593),
        ("h100-sxm", 5120, 2619),
        ("h200-sxm", 6144, 3201),
        ("b200-sxm", 7680, 3996),
        ("b300-sxm", 7680, 3996),
        ("gb200", 8192, 3996),
        ("gb300", 8192, 3996),
    ],
)
def test_memory_is_as_fast_as_its_bus(gpu: str, bus_bits: int, clock_mhz: int) -> None:
    """Two bits a wire and clock, as the driver reports width and clock; boards of 8 have fewer wires than racks."""
    gb_per_s = 2 * bus_bits / 8 * clock_mhz / 1e3
    assert presets("gpus")[gpu]["memory_bandwidth_gb_per_s"] == pytest.approx(gb_per_s, rel=0.03)


@pytest.mark.parametrize(
    "gpu, mib",
    [
        ("a100-sxm", 81920),
        ("h100-sxm", 81559),
        ("h200-sxm", 143771),
        ("h20-sxm", 97871),
        ("l40s", 46068),
        ("b200-sxm", 183359),
        ("gb200", 189471),
        ("b300-sxm", 275040),
        ("gb300", 284208),
    ],
)
def test_memory_is_what_the_driver_reports(gpu: str, mib: int) -> None:
    """The total of nvidia-smi: an H100 of 80 GB has 85.5e9 bytes."""
    assert presets("gpus")[gpu]["memory_gb"] == pytest.approx(mib * 2**20 / 1e9, abs=0.01)
