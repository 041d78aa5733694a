"""Models from configurations of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError

DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "vocab_size": 129280,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "quantization_config": {"quant_method": "fp8"},
}


@pytest.mark.parametrize(
    "config, checks",
    [
        (
            {
                "model_type": "mixtral",
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_local_experts": 8,
                "num_experts_per_tok": 2,
                "vocab_size": 32000,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 14336,
            },
            {"n_experts": 8, "head_dim": 128, "router": "mixtral", "moe_intermediate_size": 14336},
        ),
        (
            {
                "model_type": "qwen3_moe",
                "hidden_size": 2048,
                "num_hidden_layers": 4,
                "num_experts": 128,
                "num_experts_per_tok": 8,
                "vocab_size": 1000,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "head_dim": 128,
                "moe_intermediate_size": 768,
                "intermediate_size": 6144,
                "norm_topk_prob": True,
                "decoder_sparse_step": 2,
            },
            {"dense_layers": (0, 2), "intermediate_size": 6144, "router_parameters": {"norm_topk_prob": True}},
        ),
        (
            DEEPSEEK_V3,
            {"dense_layers": (0, 1, 2), "shared_intermediate_size": 2048, "weights_dtype": "fp8"},
        ),
    ],
    ids=["mixtral", "qwen3", "deepseek-v3"],
)
def test_a_hugging_face_config_is_a_model(tmp_path: Path, config: dict[str, Any], checks: dict[str, Any]) -> None:
    """By its path, relative to the scenario."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "s.yaml"
    path.write_text("model: config.json\ncluster: {gpu: h200-sxm, nodes: 8}\n")
    model = Scenario.from_yaml(path).model
    for field, value in checks.items():
        assert getattr(model, field) == value
    lacking = {name: value for name, value in config.items() if name != "num_experts_per_tok"}
    (tmp_path / "config.json").write_text(json.dumps(lacking))
    with pytest.raises(ScenarioError, match="num_experts_per_tok"):
        Scenario.from_yaml(path)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model_type": "llama"}', '{"model_type": ["mixtral"]}'])
def test_a_config_of_another_model_is_refused(tmp_path: Path, text: str) -> None:
    """Naming the kinds that are known."""
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "s.yaml").write_text("model: config.json\ncluster: {gpu: h200-sxm}\n")
    with pytest.raises(ScenarioError, match=r"s\.yaml:1:1: model: found 'config\.json'"):
        Scenario.from_yaml(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"quantization_config": "fp8"}, "quantization_config is a mapping, not 'fp8'"),
        ({"routed_scaling_factor": "abc"}, "routed_scaling_factor is a number above 0 .*, not 'abc'"),
        ({"routed_scaling_factor": 10**400}, "routed_scaling_factor is a number above 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is at most 10000, not 1000000000"),
        ({"num_hidden_layers": "61"}, "num_hidden_layers is a whole number from 1 to 1000000000, not '61'"),
    ],
)
def test_a_config_with_a_wrong_field_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Before anything is made of it."""
    (tmp_path / "config.json").write_text(json.dumps({**DEEPSEEK_V3, **change}))
    (tmp_path / "s.yaml").write_text("model: config.json\ncluster: {gpu: h200-sxm, nodes: 8}\n")
    with pytest.raises(ScenarioError, match=rf"s\.yaml:1:1: model: found 'config\.json', wanted .*{message}"):
        Scenario.from_yaml(tmp_path / "s.yaml")


def test_a_config_whose_name_is_no_text_can_be_written(tmp_path: Path) -> None:
    """JSON may hold half a surrogate pair."""
    (tmp_path / "config.json").write_text(json.dumps({**DEEPSEEK_V3, "_name_or_path": "a\ud800"}))
    (tmp_path / "s.yaml").write_text("model: config.json\ncluster: {gpu: h200-sxm, nodes: 8}\n")
    scenario = Scenario.from_yaml(tmp_path / "s.yaml")
    assert scenario.model.name == "a?"
    assert scenario.resolved_yaml().encode()


@pytest.mark.parametrize(
    "content, why",
    [
        (b'{"hidden_size": 8', "line 1, column 18 is no JSON"),
        (b'{"a": "\xff"}', "it is no text in UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_damaged_config_is_told_where(tmp_path: Path, content: bytes, why: str) -> None:
    """It is there, so that a preset is not what is missing."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ScenarioError, match=rf"wanted a readable config\.json \({why}"):
        Scenario.from_dict({"model": str(tmp_path), "cluster": {"gpu": "h100-sxm"}})


@pytest.mark.parametrize("name", ["Qwen/Qwen3-235B-A22B-FP8", "qwen3-235b-a22"])
def test_an_unknown_name_brings_the_nearest_preset_and_no_list_of_all(name: str) -> None:
    """Of an organisation/name too."""
    with pytest.raises(ScenarioError, match=r"a preset of 'moesim list models'.*\(did you mean qwen3-235b-a22b\?\)$"):
        Scenario.from_dict({"model": name, "cluster": {"gpu": "h100-sxm"}})


def test_parts_that_a_scenario_does_not_name_keep_the_types_of_the_checkpoint(tmp_path: Path) -> None:
    """One part is stated by `part_dtypes`; the others do not fall to the experts' type."""
    quantized = {"quant_method": "mxfp4", "modules_to_not_convert": []}
    (tmp_path / "config.json").write_text(json.dumps({**DEEPSEEK_V3, "quantization_config": quantized}))
    (tmp_path / "s.yaml").write_text(
        "model: {preset: config.json, part_dtypes: {attention: fp8}}\ncluster: {gpu: h200-sxm, nodes: 8}\n"
    )
    parts = Scenario.from_yaml(tmp_path / "s.yaml").model.part_dtypes
    assert parts == {"attention": "fp8", "shared": "bf16", "dense": "bf16"}
