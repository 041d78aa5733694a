"""Presets of models, GPUs and networks."""

from __future__ import annotations

import json

import pytest

from moesim import Scenario
from moesim.scenario import presets

BASE = {"model": "mixtral-8x7b", "cluster": {"gpu": "h100-sxm"}}


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
        ("a100-sxm-40gb", 5120, 1215),
        ("h100-pcie", 5120, 1593),
        ("h20-141gb", 6144, 3201),
        ("gh200", 6144, 2619),
        ("gh200-144gb", 6144, 3201),
        ("l40s", 384, 9001),
        ("l20", 384, 9001),
        ("l4", 192, 6251),
        ("rtx-4090", 384, 10501),
        ("rtx-5090", 512, 14001),
        ("rtx-pro-6000", 512, 14001),
        ("rtx-pro-6000-server", 512, 12481),
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
        ("a100-sxm-40gb", 40960),
        ("a800-sxm", 81920),
        ("h100-pcie", 81559),
        ("h800-sxm", 81559),
        ("h20-141gb", 143771),
        ("gh200", 97871),
        ("l20", 46068),
        ("l4", 23034),
        ("rtx-4090", 24564),
        ("rtx-5090", 32607),
        ("rtx-pro-6000", 97887),
        ("mi300x", 192 * 1024 - 16),
        ("tpu-v7", 192 * 1024),
    ],
)
def test_memory_is_what_the_driver_reports(gpu: str, mib: int) -> None:
    """The total of nvidia-smi: an H100 of 80 GB has 85.5e9 bytes."""
    assert presets("gpus")[gpu]["memory_gb"] == pytest.approx(mib * 2**20 / 1e9, abs=0.01)


FLOP_A_CLOCK = {
    "a100": 2048,
    "a800": 2048,
    "h100": 4096,
    "h800": 4096,
    "h200": 4096,
    "gh200": 4096,
    "l40s": 1024,
    "l20": 512,  # cut to half, as the cards of consumers are
    "l4": 1024,
    "rtx-4090": 512,
    "rtx-5090": 512,
    "rtx-pro": 1024,
    "b200": 8192,
    "b300": 8192,
    "gb200": 8192,
    "gb300": 8192,
    "mi300x": 2048,
    "mi325x": 2048,
    "mi355x": 4096,
}
"""FLOP of a compute unit in a clock, bf16 with sums in fp32, by the first letters of the GPU."""


@pytest.mark.parametrize("gpu", [name for name in presets("gpus") if name.startswith(tuple(FLOP_A_CLOCK))])
def test_the_peak_is_that_of_the_units_at_their_clock(gpu: str) -> None:
    """Dense, as sparsity would double it; narrower types never compute slower but int8 on Blackwell Ultra."""
    entry = presets("gpus")[gpu]
    flop = next(flop for prefix, flop in FLOP_A_CLOCK.items() if gpu.startswith(prefix))
    peaks = entry["peak_tflops"]
    assert peaks["bf16"] * 1e12 == pytest.approx(entry["n_sms"] * entry["clock_ghz"] * 1e9 * flop, rel=0.01)
    assert all(peaks.get(narrow, peaks["bf16"]) >= peaks["bf16"] for narrow in ("fp16", "fp8", "fp4"))


def test_devices_without_units_have_as_many_as_their_memory_feeds() -> None:
    """One for each 25.4 GB/s, as an H100 has; the field is marked as estimated."""
    h100 = presets("gpus")["h100-sxm"]
    each = h100["memory_bandwidth_gb_per_s"] / h100["n_sms"]
    guessed = {name: gpu for name, gpu in presets("gpus").items() if "n_sms" in gpu.get("estimated", ())}
    assert guessed.keys() >= {"ascend-910b", "tpu-v5e", "gaudi-3"}
    for gpu in guessed.values():
        assert gpu["n_sms"] == pytest.approx(gpu["memory_bandwidth_gb_per_s"] / each, abs=1)
