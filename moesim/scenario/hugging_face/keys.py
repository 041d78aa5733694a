"""What the fields of a config.json are called: one name of ours, and the keys under which files state it."""

from __future__ import annotations

from collections.abc import Mapping

KEYS: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "d_model", "n_embd"),
    "n_layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    "vocab_size": ("vocab_size",),
    "n_heads": ("num_attention_heads", "n_heads", "num_heads", "n_head"),
    "n_kv_heads": ("num_key_value_heads", "num_attention_groups", "kv_n_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels", "d_kv"),
    "n_experts": (
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
        "num_moe_experts",
        "n_experts",
    ),
    "top_k": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "num_selected_experts",
        "moe_topk",
        "moe_top_k",
        "moe_k",
        "top_k_experts",
    ),
    "moe_intermediate_size": (
        "moe_intermediate_size",
        "expert_ffn_hidden_size",
        "moe_ffn_hidden_size",
        "expert_intermediate_size",
    ),
    "intermediate_size": ("intermediate_size", "ffn_hidden_size", "d_ff"),
    "n_shared_experts": (
        "n_shared_experts",
        "num_shared_experts",
        "moe_num_shared_experts",
        "num_shared_expert",
        "n_shared_expert",
    ),
    "shared_intermediate_size": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_experts_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
    ),
    "first_dense": ("first_k_dense_replace", "num_dense_layers"),
    "n_group": ("n_group", "num_expert_group"),
    "topk_group": ("topk_group", "moe_topk_group"),
    "norm_topk_prob": ("norm_topk_prob", "moe_renormalize", "norm_expert_weight"),
    "routed_scaling_factor": (
        "routed_scaling_factor",
        "moe_router_scaling_factor",
        "moe_routed_scaling_factor",
        "router_scaling_factor",
        "route_scale",
    ),
    "scoring_func": (
        "scoring_func",
        "score_function",
        "moe_router_activation_func",
        "expert_selection_fn",
        "score_func",
    ),
    "attention_gate": ("attn_output_gate", "attention_output_gate"),
    "window": ("sliding_window", "sliding_window_size"),
    "window_every": ("global_attn_every_n_layers", "sliding_window_pattern"),
    "chunk": ("attention_chunk_size",),
    "index_heads": ("index_n_heads",),
    "index_head_dim": ("index_head_dim",),
    "index_top_k": ("index_topk",),
    "layer_types": ("layer_types", "layers_block_type"),
    "linear_key_heads": ("linear_num_key_heads", "linear_num_heads"),
    "linear_value_heads": ("linear_num_value_heads", "linear_num_heads"),
    "linear_key_dim": ("linear_key_head_dim", "linear_head_dim"),
    "linear_value_dim": ("linear_value_head_dim", "linear_head_dim"),
    "conv_kernel": ("linear_conv_kernel_dim", "short_conv_kernel_size", "conv_L_cache", "mamba_d_conv", "conv_kernel"),
    "tied_embeddings": ("tie_word_embeddings",),
}
"""A name that is not here is the key itself. Of several keys the first that the file has counts."""

NESTED = ("text_config", "language_config", "llm_config", "thinker_config")
"""Under which the language model of a model of text and images is described."""
