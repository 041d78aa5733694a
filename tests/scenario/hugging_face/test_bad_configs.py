"""Configurations that are wrong are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face import FAMILIES, read_config
from moesim.scenario.model_shape import model_rules
from moesim.scenario.schema import ModelSpec
from tests.scenario.hugging_face.configs import LATENT, of, read


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hidden_size": float("nan")}, "hidden_size is a whole number from 1 to 1000000000, not nan"),
        ({"hidden_size": -1}, "hidden_size is a whole number .*, not -1"),
        ({"hidden_size": True}, "hidden_size is a whole number .*, not True"),
        ({"hidden_size": "2048"}, "hidden_size is a whole number .*, not '2048'"),
        ({"hidden_size": 2048.5}, "hidden_size is a whole number .*, not 2048.5"),
        ({"hidden_size": 10**30}, "hidden_size is a whole number .*, not 1000000"),
        ({"hidden_size": 4}, "hidden_size is at least the 8 heads, not 4"),
        ({"num_hidden_layers": 10_001}, "num_hidden_layers is at most 10000"),
        ({"num_experts_per_tok": 17}, "num_experts_per_tok is at most the 16 experts, not 17"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is a number that divides the 8 heads, not 3"),
        ({"mlp_only_layers": [0, -1]}, r"mlp_only_layers is a list of indices of layers, not \[0, -1\]"),
        ({"mlp_only_layers": 0}, "mlp_only_layers is a list of indices of layers, not 0"),
        ({"layer_types": ["full_attention"]}, "layer_types is a list with a value for each of 4 layers"),
        ({"layer_types": [1, 2, 3, 4]}, "layer_types is a list of words, not 1"),
        ({"norm_topk_prob": "yes"}, "norm_topk_prob is true or false, not 'yes'"),
        ({"scoring_func": "entmax"}, "scoring_func is softmax, sigmoid or sqrtsoftplus, not 'entmax'"),
        ({"scoring_func": ["sigmoid"]}, "scoring_func is softmax, sigmoid or sqrtsoftplus"),
        ({"tie_word_embeddings": 2}, "tie_word_embeddings is true or false, not 2"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    """With what was found and what would be right."""
    with pytest.raises(ScenarioError, match=f"a config.json of qwen3_moe whose {message}"):
        read(tmp_path, of("qwen3_moe", **fields))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '"mixtral"',
        "null",
        "[" * 100_000,
        '{"model_type": ' * 5000,
        '{"a": ' + "9" * 5000 + "}",
        "\x00",
    ],
)
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever the depth of its nesting and the length of its numbers."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ScenarioError, match=r"config\.json"):
        read_config(tmp_path)


def test_a_file_may_be_large(tmp_path: Path) -> None:
    """As those are that list modules or labels, up to a limit."""
    labels = {str(i): "x" * 100 for i in range(20_000)}
    assert read(tmp_path, of("qwen3_moe", id2label=labels))["n_experts"] == 16
    stated = (tmp_path / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + stated)  # as editors of Windows begin a file
    assert read_config(tmp_path)["n_experts"] == 16
    (tmp_path / "config.json").write_bytes(b" " * 16_000_001)
    with pytest.raises(ScenarioError, match="smaller than 16 MB"):
        read_config(tmp_path)


def test_a_cached_model_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By organisation/name, as the hub's cache on this machine has it."""
    from moesim import Scenario

    folder = tmp_path / "hub" / "models--org--small-moe"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(of("qwen3_moe")))
    (tmp_path / "s.yaml").write_text("model: org/small-moe\ncluster: {gpu: h100-sxm, nodes: 1}\n")
    with pytest.raises(ScenarioError, match="found 'org/small-moe'"):
        Scenario.from_yaml(tmp_path / "s.yaml")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert Scenario.from_yaml(tmp_path / "s.yaml").model.name == "org/small-moe"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 20)
    | st.sampled_from(
        [10**9, 10**12, -(10**12), 1e300, float("nan"), float("inf"), 0.5, "", "softmax", "dense", "\ud800"]
    )
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
# fmt: off
NAMES = [
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "num_experts",
    "num_experts_per_tok", "moe_intermediate_size", "intermediate_size", "n_shared_experts",
    "first_k_dense_replace", "moe_layer_freq", "mlp_layer_types", "layer_types", "mlp_only_layers",
    "decoder_sparse_step", "sliding_window", "scoring_func", "n_group", "topk_group", "routed_scaling_factor",
    "kv_lora_rank", "index_topk", "indexer_types", "tie_word_embeddings", "text_config", "quantization_config",
    "moe_topk", "hybrid_override_pattern", "layers_block_type", "attn_config", "ffn_config", "linear_attn_config",
    "per_layer_config", "sparse_attention_config", "compress_ratios", "moe_layers_enum", "attention_other_setting",
    "architectures", "model_type", "mamba_d_head", "num_layers", "encoder_layers", "compress_rates",
    "index_topk_pattern", "full_attn_layers", "layer_group_size", "sliding_window_pattern", "hybrid_layer_pattern",
    "num_attention_heads_per_layer", "attn_type_list",
]
# fmt: on


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(FAMILIES)), changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_a_config_is_read_or_refused(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    """Whatever its fields hold: a sentence, or a model that a scenario can check."""
    config = {**of(kind, **LATENT), **changes}
    try:
        (tmp_path / "config.json").write_text(json.dumps(config))
        fields = read_config(tmp_path)
    except ScenarioError as error:
        refusal = str(error)
        fields = None
    if fields is None:
        assert "\n" not in refusal
        return
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        raise AssertionError(f"{kind} {changes} gave fields that no model has: {error}") from None
    model_rules(spec)


def test_a_file_without_end_is_refused_in_bounded_memory() -> None:
    """A device has no size that would tell."""
    with pytest.raises(ScenarioError, match="smaller than 16 MB"):
        read_config(Path("/dev/zero"))
