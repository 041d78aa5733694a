"""Families of multi-head latent attention: DeepSeek's and those that follow it."""

from __future__ import annotations

from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.layers import by_layer
from moesim.scenario.hugging_face.parts import Fields, attention_by_layer, general, linear, linear_by_layer
from moesim.scenario.hugging_face.registry import family, register

MTP = "layers that predict further tokens"
V3 = {
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "n_group": 8,
    "topk_group": 4,
    "first_dense": 3,
}
"""What transformers takes where a file of DeepSeek-V3's kind is silent."""
UNGROUPED = {**V3, "n_group": 1, "topk_group": 1}
INDEXER = {"index_top_k": 2048, "index_head_dim": 128}


@family("deepseek_v2", "deepseek-ai/DeepSeek-V2")
@family("deepseek_ocr2", "deepseek-ai/DeepSeek-OCR-2", untold="images")
@family("deepseek_ocr2_text", "deepseek-ai/DeepSeek-OCR-2", untold="images")
@family("unlimited_ocr", "baidu/Unlimited-OCR", defaults={"first_dense": 1}, untold="images")
@family("unlimited_ocr_text", "baidu/Unlimited-OCR", defaults={"first_dense": 1}, untold="images")
def deepseek_v2(config: Config) -> Fields:
    """Softmax scores, groups if the method says so; small ones have heads instead of latents."""
    if not config.flag("use_mla", default=True) or config.data.get("qk_nope_head_dim") == 0:
        config = config.without("kv_lora_rank", "v_head_dim")
    grouped = config.word("topk_method", "greedy") == "group_limited_greedy"
    return {
        **general(config.without("scoring_func")),
        "router": "deepseek-v2",
        "router_parameters": {
            "n_group": config.count("n_group") if grouped else 1,
            "topk_group": config.count("topk_group") if grouped else 1,
            "routed_scaling_factor": config.number("routed_scaling_factor", 1.0),
        },
    }


register("deepseek_v3", "deepseek-ai/DeepSeek-V3", defaults=V3, untold=MTP)
register("kimi_k2", "moonshotai/Kimi-K2-Instruct", defaults={**UNGROUPED, "first_dense": 1})
register("kimi_k25", "moonshotai/Kimi-K2.5", defaults={**UNGROUPED, "first_dense": 1}, untold="images")
register("axk1", "skt/A.X-K1", defaults={**V3, "first_dense": 1})
register("deepseek_v32", "deepseek-ai/DeepSeek-V3.2", defaults={**V3, **INDEXER, "index_heads": 64}, untold=MTP)
register(
    "glm4_moe_lite", "zai-org/GLM-4.7-Flash", defaults={**UNGROUPED, "first_dense": 1, "routed_scaling_factor": 1.8}
)
register(
    "axk2",
    "skt/A.X-K2",
    defaults={**UNGROUPED, **INDEXER, "first_dense": 1, "index_heads": 16},
    untold="gates of the queries",
)
register(
    "mistral4",
    "mistralai/Mistral-Small-4-119B-2603",
    defaults={"norm_topk_prob": True},
    untold="images",
)
for _name in ("mistral_large4", "mistral_large4_text"):
    register(
        _name,
        "mistralai/Mistral-Large-4-1T-A52B",
        defaults={"norm_topk_prob": True, **INDEXER, "index_heads": 32, "first_dense": 1},
        untold="images, and layers that share keys and values",
    )


@family("glm_moe_dsa", "zai-org/GLM-5.2", defaults={**UNGROUPED, **INDEXER, "index_heads": 32}, untold=MTP)
@family(
    "hy_v4",
    "tencent/Hy4-preview",
    defaults={**UNGROUPED, **INDEXER, "index_heads": 16, "first_dense": 1, "routed_scaling_factor": 2.827},
)
def shared_indexers(config: Config) -> Fields:
    """Some layers take the selection of a layer before them, by a list, a pattern or a rule."""
    n_layers = config.n_layers
    pattern = config.data.get("index_topk_pattern")
    if isinstance(pattern, str):
        config = config.updated(indexer_types=["shared" if letter == "S" else "full" for letter in pattern])
    if config.per_layer("indexer_types", str) is None:
        every, offset = config.count("index_topk_freq", 1), config.count("index_skip_topk_offset", 2, least=0)
        kinds = ["shared" if max(i - offset + 1, 0) % every else "full" for i in range(n_layers)]
        config = config.updated(indexer_types=kinds)
    streams = config.count("hc_mult", 1)
    return {**general(config), **({"residual_streams": streams} if streams > 1 else {})}


@family("dots3_note", "dots-studio/dots3-note-prev", untold="images and sound")
@family("dots3_note_text", "dots-studio/dots3-note-prev")
def dots3_note(config: Config) -> Fields:
    """Layers with a window have fewer heads and no indexer."""
    defaults = {**UNGROUPED, **INDEXER, "index_heads": 64, "first_dense": 1, "routed_scaling_factor": 1.0}
    config = Config(config.data, config.family, {**defaults, **config.defaults}, config.keys)
    kinds = config.per_layer("layer_types", str) or [
        "indexed_attention" if i < 2 or not (i - 1) % 4 else "sliding_attention" for i in range(config.n_layers)
    ]
    config = config.updated(layer_types=kinds)
    slides = ["sliding" in kind for kind in kinds]
    fewer, heads = config.count("swa_num_attention_heads", config.count("n_heads") // 2), config.count("n_heads")
    top_k = config.count("index_top_k")
    return {
        **general(config),
        **by_layer(
            {
                "window": [config.count("window", 513) if slide else 0 for slide in slides],
                "n_heads": [fewer if slide else heads for slide in slides],
                "index_top_k": [0 if slide else top_k for slide in slides],
            }
        ),
    }


@family(
    "kimi_linear",
    "moonshotai/Kimi-Linear-48B-A3B-Instruct",
    defaults={**UNGROUPED, "first_dense": 1, "routed_scaling_factor": 2.446},
)
@family("bailing_hybrid", "inclusionAI/Ling-3.0-Flash", defaults={**V3, "first_dense": 1}, untold=MTP)
@family("glm5_next", "zai-org/GLM-5.3-Flash", defaults={**UNGROUPED, **INDEXER, "index_heads": 32})
@family("glm5_next_text", "zai-org/GLM-5.3-Flash", defaults={**UNGROUPED, **INDEXER, "index_heads": 32})
def delta_and_latent(config: Config) -> Fields:
    """Most layers have a gated delta rule, every fourth or so latent attention."""
    part = config.part("linear_attn_config")
    sizes = {
        "linear_num_heads": "num_heads",
        "linear_head_dim": "head_dim",
        "linear_conv_kernel_dim": "short_conv_kernel_size",
    }
    stated = {ours: part.data[theirs] for ours, theirs in sizes.items() if theirs in part.data}
    config = config.updated(**stated)
    n_heads = config.count("n_heads")
    config = config.updated(
        linear_num_heads=config.count("linear_num_heads", n_heads),
        linear_head_dim=config.count("linear_head_dim", 128),
    )
    if config.per_layer("layer_types", str) is None:
        config = config.updated(layer_types=_kinds(config, part))
    fields = general(config.without("attention_gate"))
    by_layers = {**linear_by_layer(config, other="mla"), **attention_by_layer(config)}
    if "index_top_k" in fields:
        states = [kind == "linear" for kind in by_layers["attention"]]
        by_layers["index_top_k"] = [0 if state else fields["index_top_k"] for state in states]
        by_layers["index_heads"] = [0 if state else fields["index_heads"] for state in states]
    streams = config.count("hc_mult", 1)
    return {
        **fields,
        **linear(config),
        **by_layer(by_layers),
        **({"residual_streams": streams} if streams > 1 else {}),
    }


def _kinds(config: Config, part: Config) -> list[str]:
    """The layers' kinds by the list of those with attention, counted from 1, or by groups of layers."""
    full = part.data.get("full_attn_layers")
    if full is None:
        every = config.count("layer_group_size", 4)
        return ["linear_attention" if (i + 1) % every else "full_attention" for i in range(config.n_layers)]
    if not isinstance(full, list) or not all(isinstance(i, int) for i in full):
        raise config.wrong("full_attn_layers", full, "a list of layers")
    return ["full_attention" if i + 1 in set(full) else "linear_attention" for i in range(config.n_layers)]


@family("longcat_flash", "meituan-longcat/LongCat-Flash-Chat", untold=MTP)
def longcat(config: Config) -> Fields:
    """A layer has attention and a dense network twice, and experts beside the first network: two layers here."""
    fields = general(config.without("first_dense"))
    n_layers, dense = 2 * config.n_layers, config.count("intermediate_size")
    factor, zero = config.number("routed_scaling_factor", 1.0), config.count("zero_expert_num", 0, least=0)
    if zero and config.word("zero_expert_type", "identity") != "identity":
        raise config.wrong("zero_expert_type", config.data["zero_expert_type"], "identity")
    return {
        **fields,
        "n_layers": n_layers,
        "dense_layers": list(range(1, n_layers, 2)),
        "intermediate_size": dense,
        "n_shared_experts": 1,
        "shared_intermediate_size": dense,
        "router": "longcat",
        "router_parameters": {"n_zero_experts": zero, "routed_scaling_factor": factor},
    }
