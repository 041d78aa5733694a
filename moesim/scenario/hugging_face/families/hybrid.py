"""Families that mix attention with states: Mamba, lightning attention, short convolutions."""

from __future__ import annotations

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.layers import by_layer
from moesim.scenario.hugging_face.parts import Fields, general, heads, linear_by_layer
from moesim.scenario.hugging_face.registry import family

EXPERT_WIDTH = {"moe_intermediate_size": ("moe_intermediate_size", "intermediate_size")}
CHOSEN = {"scoring_func": "softmax-of-chosen"}
MTP = "layers that predict further tokens"


@family("jamba", "ai21labs/AI21-Jamba-Mini-1.5", keys=EXPERT_WIDTH)
def jamba(config: Config) -> Fields:
    """Mamba-1 in all layers but one of a period, experts in one layer of another."""
    n_layers = config.n_layers

    def within(period: str, offset: str, defaults: tuple[int, int]) -> list[bool]:
        every = config.count(period, defaults[0])
        return [i % every == config.count(offset, defaults[1], least=0) for i in range(n_layers)]

    attends = within("attn_layer_period", "attn_layer_offset", (8, 4))
    sparse = within("expert_layer_period", "expert_layer_offset", (2, 1))
    if config.count("n_experts") == 1:
        sparse = [False] * n_layers
    hidden = config.count("hidden_size")
    rank = config.data.get("mamba_dt_rank")
    return {
        **general(config.without("window").updated(mlp_only_layers=[i for i, each in enumerate(sparse) if not each])),
        "linear_key_heads": 1,
        "linear_value_heads": config.count("mamba_expand", 2) * hidden,
        "linear_key_dim": config.count("mamba_d_state", 16),
        "linear_value_dim": 1,
        "conv_kernel": config.count("conv_kernel", 4),
        "dt_rank": -(-hidden // 16) if rank == "auto" else config.count("mamba_dt_rank", -(-hidden // 16)),
        **by_layer({"attention": ["gqa" if each else "mamba" for each in attends]}),
    }


def mamba2(config: Config, heads_key: str, head_dim: str, groups: str, state: str) -> Fields:
    """Sizes of Mamba-2 by the keys under which a family states them."""
    return {
        "linear_value_heads": config.count(heads_key),
        "linear_value_dim": config.count(head_dim),
        "linear_key_heads": config.count(groups),
        "linear_key_dim": config.count(state),
        "conv_kernel": config.count("conv_kernel", 4),
    }


@family("granitemoehybrid", "ibm-granite/granite-4.0-h-small", keys=EXPERT_WIDTH, defaults=CHOSEN)
def granite_hybrid(config: Config) -> Fields:
    """Mamba-2 in most layers, experts in all."""
    width = config.count("hidden_size") * config.count("mamba_expand", 2)
    n_heads = config.count("mamba_n_heads", 128)
    config = config.updated(
        mamba_n_heads=n_heads,
        mamba_d_head=width // n_heads
        if config.data.get("mamba_d_head") in (None, "auto")
        else config.data["mamba_d_head"],
        mamba_n_groups=config.count("mamba_n_groups", 1),
        mamba_d_state=config.count("mamba_d_state", 256),
    )
    if not config.count("n_experts", least=0):
        raise ScenarioError(f"a config.json of {config.family} that has experts in at least one layer")
    return {
        **general(config.without("layer_types", "window")),
        **mamba2(config, "mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state"),
        **by_layer(linear_by_layer(config, kind="mamba2")),
    }


_BLOCKS = {
    "M": "mamba",
    "E": "moe",
    "*": "attention",
    "-": "mlp",
    "linear_attention": "mamba",
    "full_attention": "attention",
}


@family(
    "nemotron_h",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    defaults={"scoring_func": "sigmoid", "n_group": 1},
    untold=MTP,
)
def nemotron_h(config: Config) -> Fields:
    """A layer is one block: Mamba-2, attention, experts or a dense network."""
    pattern = config.data.get("hybrid_override_pattern") or config.find("layer_types")[1]
    if not isinstance(pattern, list | str) or not pattern or not all(isinstance(each, str) for each in pattern):
        raise config.wrong("hybrid_override_pattern or layers_block_type", pattern, "a block for each layer")
    blocks = [_BLOCKS.get(each, each) for each in pattern]
    wrong = next((each for each in blocks if each not in _BLOCKS.values()), None)
    if wrong is not None:
        raise config.wrong("layers_block_type", wrong, "of mamba, moe, attention and mlp")
    config = config.without("layer_types", "window").updated(
        num_hidden_layers=len(blocks), mlp_only_layers=[i for i, each in enumerate(blocks) if each != "moe"]
    )
    if "mlp" not in blocks:  # the width is then of no layer
        config = config.updated(intermediate_size=config.count("moe_intermediate_size"))
    latent = config.count("moe_latent_size", 0, least=0)
    kinds = {"mamba": "mamba2", "attention": "gqa"}
    fields = general(config)
    return {
        **fields,
        "gated": False,
        **({"moe_latent_size": latent} if latent else {}),
        **mamba2(
            config.updated(n_groups=config.count("n_groups", 8), ssm_state_size=config.count("ssm_state_size", 128)),
            "mamba_num_heads",
            "mamba_head_dim",
            "n_groups",
            "ssm_state_size",
        ),
        **by_layer(
            {
                "attention": [kinds.get(each, "absent") for each in blocks],
                "feed_forward": [each in ("moe", "mlp") for each in blocks],
            }
        ),
    }


_LFM2_ATTENTION = (2, 6, 10, 14, 18, 21)
"""Layers of LFM2-8B-A1B, of 24, that have attention; some files do not say it."""


@family(
    "lfm2_moe",
    "LiquidAI/LFM2-8B-A1B",
    defaults={"tied_embeddings": True, "scoring_func": "sigmoid", "first_dense": 2, "norm_topk_prob": True},
)
def lfm2(config: Config) -> Fields:
    """Short convolutions in most layers."""
    kinds = config.per_layer("layer_types", str)
    full = config.indices("full_attn_idxs")
    estimated = {}
    if kinds is None and full is None and config.n_layers == 24:
        full = list(_LFM2_ATTENTION)
        estimated = {"estimated": "layer_types as of LFM2-8B-A1B, as the file does not state them"}
    if kinds is None and full is None:
        raise ScenarioError(f"a config.json of {config.family} with the field layer_types")
    attends = [i in set(full or ()) for i in range(config.n_layers)] if kinds is None else ["full" in k for k in kinds]
    return {
        **general(config.without("layer_types", "window")),
        **estimated,
        "conv_kernel": config.count("conv_kernel", 3),
        **by_layer({"attention": ["gqa" if each else "conv" for each in attends]}),
    }


@family("minimax", "MiniMaxAI/MiniMax-Text-01-hf", keys=EXPERT_WIDTH, defaults=CHOSEN)
@family("minimax_m1", "MiniMaxAI/MiniMax-M1-80k", keys=EXPERT_WIDTH, defaults=CHOSEN)
@family("minimax_text_01", "MiniMaxAI/MiniMax-Text-01", keys=EXPERT_WIDTH, defaults=CHOSEN)
def minimax(config: Config) -> Fields:
    """Lightning attention in seven layers of eight, by a list."""
    kinds = config.per_layer("attn_type_list", int)
    if kinds is not None:
        config = config.updated(layer_types=["full_attention" if each else "linear_attention" for each in kinds])
    if config.per_layer("layer_types", str) is None:
        kinds_by_name = ["linear_attention" if i % 2 else "full_attention" for i in range(config.n_layers)]
        config = config.updated(layer_types=kinds_by_name)
    own = heads(config)
    return {
        **general(config.without("layer_types", "window")),
        "linear_key_heads": own["n_heads"],
        "linear_value_heads": own["n_heads"],
        "linear_key_dim": own["head_dim"],
        "linear_value_dim": own["head_dim"],
        **by_layer(linear_by_layer(config, kind="lightning")),
    }
