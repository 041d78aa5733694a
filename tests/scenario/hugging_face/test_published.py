"""Published configurations against what transformers builds of them, which is recorded beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from moesim.hardware import parameter_count
from moesim.scenario.hugging_face import read_config
from moesim.scenario.model_shape import model_rules, model_shape
from moesim.scenario.schema import ModelSpec
from moesim.types import ModelShape

FOLDER = Path(os.environ.get("MOESIM_DATA", "/nowhere")) / "configs"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="MOESIM_DATA has no configs")
DENSE = {"aic__nvidia--Gemma-4-31B-IT-NVFP4"}
"""A model without experts."""
ROUNDED = {"LFM2.5-8B-A1B": 0.021}
"""The published total is that of a vocabulary of half the size, and rounded."""
ENCODER_DECODER = {"nllb-moe-54b", "switch-base-8"}
"""Recorded with the MoE layers of one of the two, and nllb-moe with one choice of a token, where it has two."""


def _truths() -> dict[str, Any]:
    path = FOLDER / "parameters.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    assert isinstance(found, dict)
    return found


def _read(name: str) -> ModelShape:
    spec = ModelSpec.model_validate(read_config(FOLDER / f"{name}.json"))
    assert all(holds for holds, *_ in model_rules(spec))
    return model_shape(spec)


@pytest.mark.parametrize("name", sorted(set(_truths()) - DENSE))
def test_parameters_are_those_of_the_model(name: str) -> None:
    """Total, active and routed parameters, MoE layers, experts and choices, within 2 % and mostly within 0.1 %."""
    truth = _truths()[name]
    model = _read(name)
    count = parameter_count(model)
    if "published_total" in truth:
        assert count["total"] == pytest.approx(truth["published_total"], rel=ROUNDED.get(name, 0.02))
        return
    vision = truth["vision"]
    assert count["total"] == pytest.approx(truth["total"] - vision, rel=0.001)
    assert count["experts"] == pytest.approx(truth["routed_experts"], rel=0.001)
    layers = 2 * truth["moe_layers"] if name in ENCODER_DECODER else truth["moe_layers"]
    assert len(model.moe_layers) == layers
    assert model.n_experts == truth["experts"]
    assert truth["top_k"] in (None, model.top_k)
    if name != "nllb-moe-54b":
        assert count["active"] == pytest.approx(truth["active_total_minus_idle_experts"] - vision, rel=0.004)


def test_every_published_file_is_read() -> None:
    """But for one of a model without experts, and every file has its truth."""
    files = {path.stem for path in FOLDER.glob("*.json")} - {"parameters"}
    assert files == set(_truths())
    from moesim.errors import ScenarioError

    for name in DENSE:
        with pytest.raises(ScenarioError, match="that has experts in at least one layer"):
            _read(name)


@pytest.mark.parametrize(
    "name, weights, parts, dispatch",
    [
        ("Mixtral-8x7B-Instruct-AWQ", "int4", {}, "bf16"),
        ("aic__deepseek-ai--DeepSeek-R1", "fp8", {}, "fp8"),
        ("aic__deepseek-ai--DeepSeek-V4-Flash", "fp4", {"attention": "fp8", "shared": "fp8"}, "fp8"),
        ("aic__nvidia--DeepSeek-V4-Flash-NVFP4", "fp4", {"attention": "fp8", "shared": "fp8"}, "fp8"),
        ("aic__sgl-project--DeepSeek-V4-Flash-FP8", "fp8", {}, "fp8"),
        ("aic__moonshotai--Kimi-K2.5", "int4", {"attention": "bf16", "shared": "bf16", "dense": "bf16"}, "bf16"),
        ("aic__nvidia--GLM-5.2-NVFP4", "fp4", {"attention": "bf16", "shared": "bf16", "dense": "bf16"}, "bf16"),
        ("aic__nvidia--Qwen3.5-397B-A17B-NVFP4", "fp4", {"attention": "bf16", "shared": "bf16"}, "bf16"),
        ("aic__nvidia--MiniMax-M2.5-NVFP4", "fp4", {"attention": "bf16"}, "bf16"),
        ("aic__MiniMaxAI--MiniMax-M2.5", "fp8", {}, "fp8"),
        ("infersim__qwen3.5-122B-A10B", "fp8", {}, "fp8"),
        ("aic__openai--gpt-oss-120b", "fp4", {"attention": "bf16"}, "bf16"),
    ],
)
def test_quantised_checkpoints_have_the_types_of_their_parts(
    name: str, weights: str, parts: dict[str, str], dispatch: str
) -> None:
    """What a list of modules leaves out stays in 16 bits."""
    model = _read(name)
    assert (model.weights_dtype, dict(model.part_dtypes), model.dispatch_dtype) == (weights, parts, dispatch)
