"""Every family reads a small model, whatever else of transformers is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moesim.hardware import parameter_count
from moesim.scenario.hugging_face import FAMILIES
from tests.scenario.hugging_face.configs import LATENT, of, shape

_GEMMA = {"enable_moe_block": True, "global_head_dim": 64, "per_layer_config": {"1": {"head_dim": 64}, "3": {}}}
_STATES = {"layer_types": ["linear_attention", "full_attention"] * 2, "linear_conv_kernel_dim": 4}
_SWITCH = {"d_model": 256, "d_ff": 512, "num_heads": 8, "num_layers": 4, "num_sparse_encoder_layers": 2, "d_kv": 32}
_INDEXER = {"indexer_n_heads": 4, "indexer_head_dim": 32, "indexer_budget": 64}
_MINIMAX_M3 = {
    "dense_intermediate_size": 512,
    "moe_layer_freq": [0, 1, 1, 1],
    "sparse_attention_config": {
        "sparse_attention_freq": [0, 1, 1, 1],
        "sparse_topk_blocks": 2,
        "sparse_block_size": 32,
    },
}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 64}
NEEDED: dict[str, dict[str, Any]] = {
    "switch_transformers": _SWITCH,
    "nllb-moe": {"d_model": 256, "encoder_ffn_dim": 512, "encoder_layers": 4, "decoder_layers": 4},
    "nemotron_h": {"hybrid_override_pattern": "MEM*", "mamba_num_heads": 8, "mamba_head_dim": 64},
    "lfm2_moe": {"full_attn_idxs": [2], "num_dense_layers": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2, "mamba_d_head": "auto", "mamba_n_heads": 8},
    "jamba": {"mamba_dt_rank": "auto", "attn_layer_period": 2, "attn_layer_offset": 1},
    "dbrx": {
        "d_model": 256,
        "n_layers": 4,
        "n_heads": 8,
        "attn_config": {"kv_n_heads": 4},
        "ffn_config": {
            "moe_num_experts": 16,
            "moe_top_k": 2,
            "ffn_hidden_size": 64,
            "moe_normalize_expert_weights": None,
        },
    },
    "longcat_flash": {"num_layers": 2, "zero_expert_num": 8},
    "cohere2_moe": {
        "first_k_dense_replace": 1,
        "prefix_dense_intermediate_size": 1024,
        "expert_selection_fn": "sigmoid",
    },
    "arctic": {"use_residual": True, "moe_layer_frequency": 2},
    "laguna": {**_WINDOWS, "num_attention_heads_per_layer": [8, 16, 8, 16]},
    "step3p7": {**_WINDOWS, "attention_other_setting": {"num_attention_heads": 16}},
    "step3_vl": {"share_q_dim": 96},
    "kimi_linear": {"linear_attn_config": {"full_attn_layers": [2, 4], "num_heads": 8, "head_dim": 32}},
    "minimax_m1": {"attn_type_list": [0, 1, 0, 1]},
    "llama4": {"no_rope_layers": [1, 1, 1, 0], "interleave_moe_layer_step": 2, "intermediate_size_mlp": 1024},
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [0, 1, 1, 0],
        "swa_num_attention_heads": 16,
        "swa_num_key_value_heads": 8,
    },
    "deepseek_v2": {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
    "deepseek_ocr2": {"use_mla": False, "first_k_dense_replace": 1},
    "deepseek_v4": {"compress_ratios": [0, 4, 128, 4, 0]},
    "glm_moe_dsa": {"index_topk_pattern": "FSSF", "index_topk": 64},
    "hy_v4": {"index_topk_freq": 2, "hc_mult": 2},
    "bailing_hybrid": {"layer_group_size": 2, "head_dim": 32},
    "mistral4": {"n_group": 4, "topk_group": 2},
    "qwen2_moe": {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2},
    "afmoe": {"sliding_window": 64},
    "ernie4_5_vl_moe": {"moe_intermediate_size": [64, 32], "moe_num_experts": [16, 16], "num_experts": None},
}
"""What a small model of the family states besides the sizes that most state."""
NEEDED |= dict.fromkeys(("gemma4", "gemma4_text", "diffusion_gemma", "diffusion_gemma_text"), _GEMMA)
NEEDED |= dict.fromkeys(("qwen3_next", "qwen3_5_moe"), _STATES)
NEEDED |= {key: {**_STATES, **_INDEXER} for key in ("qwen4_exp", "qwen4_exp_text")}
NEEDED |= dict.fromkeys(("minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"), _MINIMAX_M3)
NEEDED |= {key: {**_WINDOWS, "swa_num_key_value_heads": 8} for key in ("inkling_text", "inkling2")}
NETWORKS_OF_TWO = {"switch_transformers", "nllb-moe", "nemotron_h"}


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "doge"])
def test_a_family_reads_a_small_model(tmp_path: Path, kind: str) -> None:
    """With as many experts and choices as stated, and matrices of the stated sizes."""
    model = shape(tmp_path, of(kind, **{**LATENT, **NEEDED.get(kind, {})}))
    assert model.n_experts == 16
    assert model.top_k in (1, 2)
    assert model.moe_layers
    matrices = 2 if kind in NETWORKS_OF_TWO else 3
    one = matrices * model.expert_hidden_size * model.moe_intermediate_size
    assert parameter_count(model)["experts"] == len(model.moe_layers) * 16 * one
    assert (FAMILIES[kind].untold in model.source) or kind == "lfm2_moe"
