"""Families of calibrated kernels in a whole run: what a scenario names, what suits it, what the result says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import ScenarioError
from moesim.hardware import calibrated_families, default_family, families, step_durations
from moesim.hardware.constants import load
from moesim.simulation import check
from moesim.types import Precision

BASE = """
model: olmoe-1b-7b
cluster: {gpu: h100-sxm, nodes: 1, gpus_per_node: 4}
workload: {steps: 1, tokens_per_gpu: 32}
"""


def scenario(folder: Path, **overrides: Any) -> Scenario:
    """The small scenario; dots of a field are written as __."""
    path = folder / "small.yaml"
    path.write_text(BASE)
    return Scenario.from_yaml(path, overrides={name.replace("__", "."): v for name, v in overrides.items()})


def run(folder: Path, **overrides: Any) -> Result:
    return simulate(scenario(folder, **overrides))


def precision(weights: str, activations: str) -> Precision:
    return Precision(weights=weights, activations=activations, dispatch="bf16", combine="bf16", kv_cache="bf16")


def test_the_default_suits_the_data_types(tmp_path):
    named = run(tmp_path, cluster__kernels="trtllm-bf16")
    default = run(tmp_path)
    assert default.summary["step_time_s"] == named.summary["step_time_s"]
    assert run(tmp_path, cluster__kernels="vllm-bf16").summary["step_time_s"] != named.summary["step_time_s"]
    assert run(tmp_path, cluster__kernels="none").summary["step_time_s"] == named.summary["step_time_s"]
    assert default_family(precision("fp8", "fp8")) == "sglang-deepep-fp8"
    assert default_family(precision("fp4", "bf16")) == "trtllm-mxfp4"


def test_the_result_says_whose_constants_and_what_changed(tmp_path):
    own = run(tmp_path).manifest["provenance"]["kernel times"]
    other = run(tmp_path, cluster__gpu="h200-sxm").manifest["provenance"]["kernel times"]
    assert own == "estimated: formulas with constants of trtllm-bf16 on h100-sxm"
    assert other == (
        "estimated: formulas with constants of trtllm-bf16 on h100-sxm, "
        "for h200-sxm only the published specifications changed"
    )


@pytest.mark.parametrize(
    "name, message",
    [
        ("trtllm-bf61", r"cluster\.kernels: found trtllm-bf61, wanted one of .*did you mean trtllm-bf16"),
        ("trtllm-fp8", r"cluster\.kernels: found trtllm-fp8, wanted a family for activations in bf16; .* fp8"),
    ],
)
def test_a_wrong_family_is_an_error_at_its_line(tmp_path, name, message):
    path = tmp_path / "s.yaml"
    path.write_text(BASE.replace("gpus_per_node: 4}", f"gpus_per_node: 4, kernels: {name}}}"))
    with pytest.raises(ScenarioError, match=r"s\.yaml:3:.*" + message):
        check(Scenario.from_yaml(path))


def test_resolved_scenarios_keep_the_family(tmp_path):
    kept = scenario(tmp_path, cluster__kernels="vllm-bf16").resolved()
    assert kept["cluster"]["kernels"] == "vllm-bf16"
    assert Scenario.from_dict(kept).resolved() == kept


def test_every_family_names_groups_that_are_calibrated():
    assert calibrated_families("h100-sxm") == [*families()]
    assert calibrated_families("h200-sxm") == []
    for name, family in families().items():
        assert family["summary"], name
        groups = [family[part] for part in ("experts", "experts_prefill") if part in family]
        assert set(groups) <= load("experts").keys()


def test_other_layers_take_the_constants_of_the_framework(tmp_path):
    whole = {name: run(tmp_path, cluster__kernels=name).summary["breakdown_s"] for name in ("trtllm-bf16", "vllm-bf16")}
    assert whole["trtllm-bf16"]["attention"] != whole["vllm-bf16"]["attention"]
    assert {family["layers"] for family in families().values()} == {"sglang", "trtllm", "vllm"}


def test_the_router_of_fused_kernels_is_not_counted_twice(tmp_path):
    small = scenario(tmp_path)

    def router(family: str) -> float:
        made = step_durations(
            small.model,
            small.cluster,
            precision("fp8", "fp8"),
            phase="decode",
            tokens_per_gpu=np.full(4, 32),
            context_tokens=128,
            sequence_tokens=128,
            slot_tokens=np.full((1, 64), 16),
            slot_rank=np.repeat(np.arange(4, dtype=np.int32), 16),
            kernels=family,
        )
        return float(made.router[0])

    assert router("trtllm-fp8") == router("trtllm-fp8-block") < router("sglang-deepep-fp8")
    assert router("sglang-fp8-block") < router("sglang-deepep-fp8")
