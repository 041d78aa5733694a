"""What differs from family to family: layers, widths, routers, and what a file may leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.hardware import parameter_count
from moesim.scenario.hugging_face import FAMILIES
from moesim.types import ModelShape
from tests.scenario.hugging_face.configs import LATENT, SIZES, of, read, shape


def _by_layer(model: ModelShape, field: str) -> list[Any]:
    """The values of a field in every layer."""
    return [getattr(model.layers[i].shape, field) for i in model.class_of_layer]


def test_experts_are_found_under_every_key(tmp_path: Path) -> None:
    """Transformers 5 writes other keys than the files of the models."""
    for key in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        model = shape(tmp_path, of("qwen3_moe", **{"num_experts": None, key: 24}))
        assert model.n_experts == 24


@pytest.mark.parametrize("part", ["text_config", "language_config", "llm_config"])
def test_the_language_model_may_be_a_part(tmp_path: Path, part: str) -> None:
    """Of one that sees images too, whose own type counts where the part's is unknown."""
    inner = of("qwen3_moe")
    whole = {"model_type": "sees_images", part: inner, "vision_config": {"depth": 27}, "tie_word_embeddings": True}
    model = shape(tmp_path, whole)
    assert (model.n_experts, model.tied_embeddings) == (16, True)
    del inner["model_type"]
    other = shape(tmp_path, {**whole, "model_type": "qwen3_vl_moe"})
    assert "not modelled: images" in other.source


def test_qwen3_5_normalises_its_weights(tmp_path: Path) -> None:
    """Though its file does not say so; three layers of four have a gated delta rule."""
    text = of("qwen3_5_moe_text", head_dim=32, intermediate_size=None, shared_expert_intermediate_size=64)
    model = shape(tmp_path, {"model_type": "qwen3_5_moe", "text_config": text})
    assert model.router_parameters == {"norm_topk_prob": True}
    assert _by_layer(model, "attention") == ["linear", "linear", "linear", "gqa"]
    assert (model.linear_value_heads, model.linear_key_heads, model.attention_gate) == (32, 16, True)


def test_minimax_m2_takes_sigmoids(tmp_path: Path) -> None:
    """With a bias, which is what DeepSeek-V3's router does."""
    model = shape(tmp_path, of("minimax_m2", moe_intermediate_size=None))
    assert (model.router, model.moe_intermediate_size) == ("deepseek-v3", 512)
    assert model.router_parameters["norm_topk_prob"] is True


def test_a_tied_head_counts_once(tmp_path: Path) -> None:
    """As in small models of Granite."""
    tied = shape(tmp_path, of("granitemoe", moe_intermediate_size=None, tie_word_embeddings=True))
    own = shape(tmp_path, of("granitemoe", moe_intermediate_size=None, tie_word_embeddings=False))
    assert parameter_count(own)["total"] - parameter_count(tied)["total"] == 1000 * 256


def test_hunyuan_has_lists_of_layers(tmp_path: Path) -> None:
    """One value for all, or one each."""
    lists = {"moe_topk": [4, 4, 2, 4], "num_experts_per_tok": None, "moe_intermediate_size": [64] * 4}
    model = shape(tmp_path, of("hunyuan_v1_moe", num_shared_expert=[1] * 4, **lists))
    assert (model.top_k, _by_layer(model, "top_k")) == (4, [4, 4, 2, 4])
    assert (model.moe_intermediate_size, model.shared_intermediate_size) == (64, 512)
    with pytest.raises(ScenarioError, match="moe_topk is a list with a value for each of 4 layers"):
        read(tmp_path, of("hunyuan_v1_moe", num_experts_per_tok=None, moe_topk=[4, 4]))


def test_zero_experts_have_no_matrices(tmp_path: Path) -> None:
    """LongCat-Flash: two attentions and dense networks a layer, and experts that compute nothing."""
    sizes = {"num_layers": 2, "ffn_hidden_size": 512, "expert_ffn_hidden_size": 64, "moe_topk": 3, "zero_expert_num": 8}
    absent = dict.fromkeys(("num_hidden_layers", "intermediate_size", "moe_intermediate_size", "num_experts_per_tok"))
    model = shape(tmp_path, of("longcat_flash", **LATENT, **sizes, **absent, num_key_value_heads=None))
    assert (model.n_layers, model.dense_layers, model.shared_intermediate_size) == (4, (1, 3), 512)
    assert model.router_parameters == {"n_zero_experts": 8, "routed_scaling_factor": 6.0}
    count = parameter_count(model)
    assert count["experts"] == 2 * 16 * 3 * 256 * 64
    assert count["router"] == 2 * 256 * (16 + 8)


def test_layers_with_experts_by_every_rule(tmp_path: Path) -> None:
    """A first one, a step, a list of dense ones, of flags, of kinds, of indices, or a text of indices."""
    deepseek: dict[str, Any] = {**LATENT, "n_group": 1, "topk_group": 1}
    for kind, fields, dense in (
        ("qwen3_moe", {"decoder_sparse_step": 2}, (0, 2)),
        ("qwen3_moe", {"mlp_only_layers": [3, 3]}, (3,)),
        ("deepseek_v3", {**deepseek, "first_k_dense_replace": 2}, (0, 1)),
        ("deepseek_v3", {**deepseek, "first_k_dense_replace": 0, "moe_layer_freq": 2}, (1, 3)),
        ("mimo_v2_flash", {"moe_layer_freq": [0, 1, 0, 1], "head_dim": 32, "v_head_dim": 16}, (0, 2)),
        ("glm_moe_dsa", {**deepseek, "mlp_layer_types": ["dense", "sparse", "sparse", "dense"]}, (0, 3)),
        ("llama4_text", {"moe_layers": [1, 2], "intermediate_size_mlp": 1024}, (0, 3)),
        ("llama4_text", {"interleave_moe_layer_step": 2, "intermediate_size_mlp": 1024}, (0, 2)),
        ("step3_text", {"moe_layers_enum": "1,3", "share_expert_dim": 64}, (0, 2)),
        ("ernie4_5_moe", {"moe_layer_start_index": 1, "moe_layer_end_index": 2}, (0, 3)),
        ("jamba", {"expert_layer_period": 2, "expert_layer_offset": 1}, (0, 2)),
    ):
        assert shape(tmp_path, of(kind, **fields)).dense_layers == dense, (kind, fields)


def test_windows_by_layer(tmp_path: Path) -> None:
    """By the layers' types, by a number of layers, in all layers, or where a switch is on."""
    kinds = ["sliding_attention", "full_attention"] * 2
    for kind, fields, windows in (
        ("gpt_oss", {"sliding_window": 128, "layer_types": kinds}, [128, 0, 128, 0]),
        ("mixtral", {"sliding_window": 64}, [64] * 4),
        ("mixtral", {"sliding_window": None}, [0] * 4),
        ("qwen2_moe", {"sliding_window": 64, "use_sliding_window": False}, [0] * 4),
        ("qwen2_moe", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 3}, [0, 0, 0, 64]),
        ("exaone_moe", {"sliding_window": 64, "sliding_window_pattern": "LLG"}, [64, 64, 0, 64]),
    ):
        assert _by_layer(shape(tmp_path, of(kind, **fields)), "window") == windows, (kind, fields)
    chunks = shape(tmp_path, of("llama4_text", attention_chunk_size=512, intermediate_size_mlp=1024))
    assert _by_layer(chunks, "chunk") == [512, 512, 512, 0]


def test_a_layer_of_nemotron_is_one_block(tmp_path: Path) -> None:
    """Mamba-2, experts, attention or a dense network; experts may work in a latent width."""
    fields = {"mamba_num_heads": 8, "mamba_head_dim": 64, "moe_latent_size": 128, "ssm_state_size": 16, "n_groups": 2}
    model = shape(tmp_path, of("nemotron_h", hybrid_override_pattern="ME*-", num_hidden_layers=None, **fields))
    assert _by_layer(model, "attention") == ["mamba2", "absent", "gqa", "absent"]
    assert (model.moe_layers, model.gated) == ((1,), False)
    assert parameter_count(model)["experts"] == 16 * 2 * 128 * 64
    with pytest.raises(ScenarioError, match="layers_block_type is of mamba, moe, attention and mlp, not 'X'"):
        read(tmp_path, of("nemotron_h", hybrid_override_pattern="MEX", **fields))


def test_selections_of_tokens_are_shared(tmp_path: Path) -> None:
    """GLM-5.2: three layers of four take the selection of the layer before them."""
    index = {"index_topk": 64, "index_n_heads": 4, "index_head_dim": 32, "first_k_dense_replace": 1}
    kinds = ["full", "shared", "shared", "full"]
    model = shape(tmp_path, of("glm_moe_dsa", **LATENT, **index, indexer_types=kinds))
    assert _by_layer(model, "index_heads") == [4, 0, 0, 4]
    assert _by_layer(model, "index_top_k") == [64] * 4


def test_tokens_are_compressed_by_kind_or_ratio(tmp_path: Path) -> None:
    """DeepSeek-V4: none, a few of which an indexer selects, or many of which a token sees all."""
    kinds = ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention", "sliding_attention"]
    for fields, ratios in (
        ({"layer_types": kinds}, [0, 4, 128, 0]),
        ({"layer_types": kinds, "compress_rates": {"compressed_sparse_attention": 8}}, [0, 8, 128, 0]),
        ({"compress_ratios": [128, 4, 0, 0, 0]}, [128, 4, 0, 0]),
        ({}, [128, 128, 128, 4]),
    ):
        model = shape(tmp_path, of("deepseek_v4", **{**fields, "num_key_value_heads": 1}))
        assert _by_layer(model, "compress_ratio") == ratios
        assert [n > 0 for n in _by_layer(model, "index_top_k")] == [0 < ratio < 128 for ratio in ratios]
    with pytest.raises(ScenarioError, match=r"layer_types is one of sliding_attention, .*, not 'mamba'"):
        read(tmp_path, of("deepseek_v4", layer_types=["mamba"] * 4))


def test_an_unknown_type_is_read_by_its_keys(tmp_path: Path) -> None:
    """And labelled so, or refused with the keys that are missing."""
    model = shape(tmp_path, of("brand_new", scoring_func="sigmoid", num_shared_experts=1))
    assert model.source.startswith("estimated: config.json of ")
    assert "the model_type 'brand_new' is read by its keys" in model.source
    assert (model.router, model.n_shared_experts) == ("deepseek-v3", 1)
    with pytest.raises(ScenarioError, match=r"keys that are missing here: num_experts_per_tok or .*moe_topk"):
        read(tmp_path, of("brand_new", num_experts_per_tok=None))
    with pytest.raises(ScenarioError, match=r"'moesim list families' \(here ''\)"):
        read(tmp_path, {"architectures": ["LlamaForCausalLM"]})


def test_an_architecture_names_a_family(tmp_path: Path) -> None:
    """Where the model_type is of another project."""
    config = of("git", architectures=["Qwen3MoeForCausalLM"], norm_topk_prob=True)
    assert "estimated" not in shape(tmp_path, config).source


def test_a_null_is_not_left_out(tmp_path: Path) -> None:
    """DeepSeek-V2-Lite has no rank of its queries, and says so."""
    lite = shape(tmp_path, of("deepseek_v2", **{**LATENT, "n_shared_experts": 2}) | {"q_lora_rank": None})
    silent = shape(tmp_path, of("deepseek_v2", **{**LATENT, "q_lora_rank": None, "n_shared_experts": 2}))
    assert (lite.q_lora_rank, silent.q_lora_rank) == (0, 1536)


def test_models_without_experts_are_refused(tmp_path: Path) -> None:
    """In one sentence, whatever the family calls them."""
    for config in (
        of("gemma4", enable_moe_block=False),
        of("granitemoehybrid", num_experts=0, layer_types=["mamba"] * 4),
        of("qwen3_moe", mlp_only_layers=[0, 1, 2, 3]),
    ):
        with pytest.raises(ScenarioError, match="has experts in at least one layer"):
            read(tmp_path, config)
    with pytest.raises(ScenarioError, match="experts that are networks"):
        read(tmp_path, of("doge"))


@pytest.mark.parametrize(
    "kind", ["mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "minimax_m2", "dots1", "arctic", "grok-1"]
)
def test_a_family_reads_what_most_files_state(tmp_path: Path, kind: str) -> None:
    """And names a field that is missing."""
    assert shape(tmp_path, of(kind, **LATENT, first_k_dense_replace=1)).n_experts == 16
    for name in SIZES.keys() - {"num_key_value_heads", "moe_intermediate_size", "intermediate_size"}:
        with pytest.raises(ScenarioError, match=f"a config.json of {kind} with the field .*{name}"):
            read(tmp_path, of(kind, **{**LATENT, name: None}))


def _chosen(experts: int, top_k: int) -> dict[str, int]:
    return {"num_experts": experts, "num_experts_per_tok": top_k}


def _sizes(hidden: int, layers: int, heads: int, kv_heads: int, vocabulary: int, **fields: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        **fields,
    }


@pytest.mark.parametrize(
    "total, active, config",
    [
        (
            314e9,
            86e9,
            {"model_type": "grok-1", **_sizes(6144, 64, 48, 8, 131072), "intermediate_size": 32768, **_chosen(8, 2)},
        ),
        (
            270e9,
            115e9,
            {
                "model_type": "git",
                "architectures": ["Grok1ForCausalLM"],
                **_sizes(8192, 64, 64, 8, 131072, head_dim=128, tie_word_embeddings=False),
                "intermediate_size": 32768,
                "moe_intermediate_size": 16384,
                "residual_moe": True,
                **_chosen(8, 2),
            },
        ),
        (
            480e9,
            17e9,
            {
                "model_type": "arctic",
                **_sizes(7168, 35, 56, 8, 32000, use_residual=True, moe_layer_frequency=1),
                "intermediate_size": 4864,
                **_chosen(128, 2),
            },
        ),
        (
            16.3e9,
            1.4e9,
            {
                "model_type": "bailing_moe_v2",
                **_sizes(2048, 20, 16, 4, 157184, head_dim=128, n_group=8, topk_group=4),
                "intermediate_size": 5120,
                "moe_intermediate_size": 512,
                "num_shared_experts": 1,
                **_chosen(256, 8),
                "first_k_dense_replace": 1,
            },
        ),
        (
            80e9,
            13e9,
            {
                "model_type": "hunyuan_v1_moe",
                **_sizes(4096, 32, 32, 8, 128167, head_dim=128, tie_word_embeddings=True),
                "intermediate_size": 3072,
                "moe_intermediate_size": [3072] * 32,
                "moe_topk": [8] * 32,
                "num_experts": 64,
                "num_shared_expert": [1] * 32,
            },
        ),
        (
            316e9,
            38e9,
            {
                "model_type": "step3_vl",
                "text_config": {
                    "model_type": "step3_text",
                    **_sizes(7168, 61, 64, 1, 128815, head_dim=256, share_q_dim=2048, share_expert_dim=5120),
                    "intermediate_size": 18432,
                    "moe_intermediate_size": 5120,
                    "moe_num_experts": 48,
                    "moe_top_k": 3,
                    "moe_layers_enum": ",".join(str(i) for i in range(4, 60)),
                },
            },
        ),
    ],
    ids=["grok-1", "grok-2", "arctic", "ling-mini-2.0", "hunyuan-a13b", "step3"],
)
def test_families_that_transformers_lacks(tmp_path: Path, total: float, active: float, config: dict[str, Any]) -> None:
    """Against what their publishers say, in round numbers."""
    count = parameter_count(shape(tmp_path, config))
    assert count["total"] == pytest.approx(total, rel=0.02)
    assert count["active"] == pytest.approx(active, rel=0.1)


def test_every_family_names_an_example() -> None:
    """As organisation/name."""
    assert len(FAMILIES) > 90
    assert all(each.example.count("/") == 1 for each in FAMILIES.values())
