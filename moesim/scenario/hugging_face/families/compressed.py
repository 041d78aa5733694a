"""DeepSeek-V4: compressed attention, streams of the residual, and experts that the first layers choose by a table."""

from __future__ import annotations

from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.layers import by_layer
from moesim.scenario.hugging_face.parts import Fields, decoder, dense_layers, experts, networks, router, shared_experts
from moesim.scenario.hugging_face.registry import family

_RATIOS = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}


@family(
    "deepseek_v4",
    "deepseek-ai/DeepSeek-V4-Flash",
    defaults={
        "scoring_func": "sqrtsoftplus",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.5,
        "n_shared_experts": 1,
        "n_kv_heads": 1,
        "window": 128,
        "hc_mult": 4,
    },
    untold="layers that predict further tokens, the table by which the first layers choose (the gate is taken), "
    "weights by sqrtsoftplus (those of the sigmoid are taken)",
)
def deepseek_v4(config: Config) -> Fields:
    """Every layer sees a window; most see compressed tokens too, all of them or those that an indexer selects."""
    ratios = _ratios(config)
    top_k, index_heads = config.count("index_top_k"), config.count("index_heads")
    selects = [0 < ratio < max(_RATIOS.values()) for ratio in ratios]
    return {
        **decoder(config),
        **experts(config),
        **shared_experts(config),
        **networks(config, dense_layers(config)),
        **router(config),
        "attention": "compressed",
        "n_heads": config.count("n_heads"),
        "n_kv_heads": config.count("n_kv_heads"),
        "head_dim": config.count("head_dim"),
        "q_lora_rank": config.count("q_lora_rank"),
        "o_groups": config.count("o_groups"),
        "o_lora_rank": config.count("o_lora_rank"),
        "window": config.count("window"),
        "index_head_dim": config.count("index_head_dim"),
        "residual_streams": config.count("hc_mult"),
        **by_layer(
            {
                "compress_ratio": ratios,
                "index_heads": [index_heads if each else 0 for each in selects],
                "index_top_k": [top_k if each else 0 for each in selects],
            }
        ),
    }


def _ratios(config: Config) -> list[int]:
    """Tokens of a compressed one in each layer, 0 where there are none."""
    ratios = config.per_layer("compress_ratios", int)
    if ratios is not None:
        return ratios
    kinds = config.per_layer("layer_types", str)
    if kinds is None:
        kinds = [
            "compressed_sparse_attention" if i > 1 and i % 2 else "heavily_compressed_attention"
            for i in range(config.n_layers)
        ]
    if not set(kinds) <= set(_RATIOS):
        raise config.wrong("layer_types", min(set(kinds) - set(_RATIOS)), f"one of {', '.join(_RATIOS)}")
    own = config.part("compress_rates")
    rates = {kind: own.count(kind, usual, least=0) for kind, usual in _RATIOS.items()}
    return [rates[kind] for kind in kinds]
