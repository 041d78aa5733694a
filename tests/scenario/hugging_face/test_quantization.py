"""Data types of quantised checkpoints, by method and by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face import METHODS
from tests.scenario.hugging_face.configs import of, read, shape

INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
FLOAT8 = {"num_bits": 8, "type": "float"}
FLOAT4 = {"num_bits": 4, "type": "float", "group_size": 16}


def groups(weights: Any, inputs: Any = None, targets: Any = ("Linear",), **rest: Any) -> dict[str, Any]:
    """A quantization_config of compressed-tensors with one group."""
    group = {"weights": weights, "input_activations": inputs, "targets": list(targets)}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **rest}


@pytest.mark.parametrize(
    "quantization, weights, dispatch, parts",
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "fp8", {}),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", "fp8", {}),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["self_attn"]}, "fp8", "fp8", {"attention": "bf16"}),
        ({"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["gate"]}, "int4", "bf16", {}),
        ({"quant_method": "gptq", "bits": 8}, "int8", "bf16", {}),
        ({"quant_method": "gptq", "bits": 4, "modules_to_not_convert": None}, "int4", "bf16", {}),
        ({"quant_method": "auto-round", "bits": 4}, "int4", "bf16", {}),
        (groups(INT4, ignore=["lm_head", "re:.*self_attn.*"]), "int4", "bf16", {"attention": "bf16"}),
        (groups(FLOAT8, FLOAT8), "fp8", "fp8", {}),
        (groups({"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "int"}), "int8", "bf16", {}),
        (
            groups(FLOAT4, FLOAT4, targets=["re:.*mlp.experts.*"]),
            "fp4",
            "bf16",
            {"attention": "bf16", "shared": "bf16", "dense": "bf16"},
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["model.layers.*.self_attn*"]}, "fp4", "bf16",
         {"attention": "bf16"}),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", "fp8", {}),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, "int4", "bf16", {}),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {
                    **{
                        f"model.layers.{i}.mlp.experts.{expert}.{matrix}_proj": {"quant_algo": "NVFP4"}
                        for i in (1, 2, 3)
                        for expert in (0, 1)
                        for matrix in ("gate", "up")
                    },
                    **{f"model.layers.{i}.self_attn": {"quant_algo": "FP8"} for i in range(4)},
                },
            },
            "fp4",
            "bf16",
            {"attention": "fp8", "shared": "bf16", "dense": "bf16"},
        ),
        ({"quant_method": "mxfp4"}, "fp4", "bf16", {"attention": "bf16", "shared": "bf16", "dense": "bf16"}),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp4"}},
                "exclude": ["re:.*self_attn.*", "lm_head"],
            },
            "fp4",
            "bf16",
            {"attention": "bf16"},
        ),
        # every layer named by itself, and one layer wholly left out
        (
            {"quant_method": "fp8", "ignored_layers": [f"model.layers.{i}.mlp.shared_expert" for i in range(4)]},
            "fp8",
            "fp8",
            {"shared": "bf16"},
        ),
        ({"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0*"]}, "fp8", "fp8", {"dense": "bf16"}),
        # of modules that are no part of their own, nothing changes
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "embed_tokens", "mlp.gate"]}, "fp8", "fp8", {}),
    ],
)  # fmt: skip
def test_a_quantised_checkpoint_has_the_types_of_its_parts(
    tmp_path: Path, quantization: dict[str, Any], weights: str, dispatch: str, parts: dict[str, str]
) -> None:
    """Of a model whose first layer is dense and which has a shared expert."""
    config = of(
        "qwen3_moe",
        mlp_only_layers=[0],
        shared_expert_intermediate_size=64,
        quantization_config=quantization,
    )
    model = shape(tmp_path, config)
    assert (model.weights_dtype, model.dispatch_dtype, dict(model.part_dtypes)) == (weights, dispatch, parts)
    assert str(quantization["quant_method"]) in model.source


def test_a_file_of_modelopt_beside_the_config_counts(tmp_path: Path) -> None:
    """As engines take it; one in the config itself comes first."""
    beside = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "NVFP4", "exclude_modules": ["model.layers.*.self_attn*", "lm_head"]},
    }
    model = shape(tmp_path, of("qwen3_moe"), beside)
    assert (model.weights_dtype, dict(model.part_dtypes)) == ("fp4", {"attention": "bf16"})
    own = shape(tmp_path, of("qwen3_moe", quantization_config={"quant_method": "fp8"}), beside)
    assert (own.weights_dtype, dict(own.part_dtypes)) == ("fp8", {})
    for wrong, message in (({}, "with the mapping quantization"), ([1], "that holds an object")):
        with pytest.raises(ScenarioError, match=message):
            read(tmp_path, of("qwen3_moe"), wrong)
    (tmp_path / "hf_quant_config.json").write_text("{")
    with pytest.raises(ScenarioError, match=r"a readable hf_quant_config\.json \(line 1"):
        read(tmp_path, of("qwen3_moe"))


def test_a_narrow_cache_is_told(tmp_path: Path) -> None:
    """It is the scenario that says in which type the cache is."""
    narrow = groups(FLOAT4, FLOAT4, kv_cache_scheme={"num_bits": 8, "type": "float"})
    for quantization, told in ((narrow, True), (groups(FLOAT4, FLOAT4), False)):
        source = shape(tmp_path, of("qwen3_moe", quantization_config=quantization)).source
        assert ("precision.kv_cache fp8" in source) == told


def test_integers_of_weights_alone_say_so(tmp_path: Path) -> None:
    """As a GPU that computes in 8-bit integers would take them for activations too."""
    both = groups({"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "int"})
    for quantization, alone in (({"quant_method": "gptq", "bits": 8}, True), (both, False)):
        source = shape(tmp_path, of("qwen3_moe", quantization_config=quantization)).source
        assert ("of weights alone: set precision.activations to bf16" in source) == alone


def test_experts_of_another_type_than_the_rest(tmp_path: Path) -> None:
    """DeepSeek-V4 states the type of its experts apart."""
    config = of("deepseek_v3", first_k_dense_replace=1, n_group=1, topk_group=1, n_shared_experts=1, expert_dtype="fp4")
    model = shape(tmp_path, {**config, "quantization_config": {"quant_method": "fp8"}})
    assert model.weights_dtype == "fp4"
    assert dict(model.part_dtypes) == {"attention": "fp8", "shared": "fp8", "dense": "fp8"}


@pytest.mark.parametrize("method", ["bitsandbytes", "hqq", "torchao", "aqlm", None, 4, ["fp8"]])
def test_an_unknown_method_is_refused_by_its_name(tmp_path: Path, method: Any) -> None:
    """Never is it 16 bits without a word."""
    with pytest.raises(ScenarioError, match="quant_method of fp8, ") as error:
        read(tmp_path, of("qwen3_moe", quantization_config={"quant_method": method}))
    assert repr(method) in str(error.value)
    assert all(known in str(error.value) for known in METHODS)


@pytest.mark.parametrize(
    "quantization, message",
    [
        ("fp8", "quantization_config is a mapping, not 'fp8'"),
        ({"quant_method": "gptq", "bits": 3}, "has 4 or 8 bits, not 3"),
        ({"quant_method": "awq", "bits": True}, "has 4 or 8 bits, not True"),
        ({"quant_method": "modelopt", "quant_algo": "NF4"}, "quant_algo is one of FP8, .*, not 'NF4'"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quantized_layers is a mapping of modules"),
        ({"quant_method": "compressed-tensors"}, "config_groups is a mapping of groups, not None"),
        (groups({"num_bits": 6, "type": "float"}), "weights of 4 or 8 bits, int or float, not 6 'float'"),
        (groups(None), "has weights, a mapping, not None"),
        (groups(INT4, ignore="lm_head"), "ignore is a list of modules, not 'lm_head'"),
        (groups(INT4, ignore=["re:("]), r"expressions of Python's re, not '\('"),
        (groups(INT4, ignore=["re:(a+)+b"]), "simple expressions"),
        (groups(INT4, ignore=[3]), "named by words, not 3"),
        (groups(INT4, ignore=[f"re:{i}" for i in range(300)]), "at most 100 expressions"),
        (groups(INT4, ignore=[f"module{i}" for i in range(3000)]), "at most 1000 different names"),
        ({"quant_method": "quark"}, r"global_quant_config\.weight\.dtype is one of"),
    ],
)
def test_a_quantisation_that_says_too_little_is_refused(tmp_path: Path, quantization: Any, message: str) -> None:
    """In one sentence that names the field."""
    with pytest.raises(ScenarioError, match=message):
        read(tmp_path, of("qwen3_moe", quantization_config=quantization))


@pytest.mark.parametrize("name, told", [("Some-Model-NVFP4", True), ("some-awq-model", True), ("Some-Model-8B", False)])
def test_a_quantised_name_without_facts_is_told(tmp_path: Path, name: str, told: bool) -> None:
    """A file that does not say that it is quantised is read in 16 bits, which is said where its name says otherwise."""
    folder = tmp_path / name
    folder.mkdir()
    model = shape(folder, of("qwen3_moe"))
    assert (model.weights_dtype, "read in 16 bits" in model.source) == ("bf16", told)
