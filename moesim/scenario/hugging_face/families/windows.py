"""Families whose layers differ in what their attention sees: windows, chunks, heads of another number."""

from __future__ import annotations

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.layers import by_layer
from moesim.scenario.hugging_face.parts import Fields, attention_by_layer, dense_layers, general
from moesim.scenario.hugging_face.registry import family

SIGMOID = {"scoring_func": "sigmoid"}
EXPERT_WIDTH = {"moe_intermediate_size": ("moe_intermediate_size", "intermediate_size")}


@family("gpt_oss", "openai/gpt-oss-120b", keys=EXPERT_WIDTH, defaults={"window": 128}, untold="biases and sinks")
@family("openai_privacy_filter", "openai/privacy-filter", keys=EXPERT_WIDTH, untold="the head that classifies")
def gpt_oss(config: Config) -> Fields:
    """Windows in every other layer, from the first on."""
    if config.family == "openai_privacy_filter":
        return {**general(config.without("window")), "router": "gpt-oss", "router_parameters": {}}
    if config.per_layer("layer_types", str) is None:
        kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(config.n_layers)]
        config = config.updated(layer_types=kinds)
    return {**general(config), "router": "gpt-oss", "router_parameters": {}}


@family(
    "llama4",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    defaults={"chunk": 8192},
    untold="images",
)
@family("llama4_text", "meta-llama/Llama-4-Scout-17B-16E-Instruct", defaults={"chunk": 8192})
def llama4(config: Config) -> Fields:
    """Chunks in all layers but every fourth; a shared expert; dense layers of a width of their own."""
    n_layers, width = config.n_layers, config.count("intermediate_size")
    if config.per_layer("layer_types", str) is None:
        every = config.count("no_rope_layer_interval", 4)
        rope = config.per_layer("no_rope_layers", int) if config.data.get("no_rope_layers") else None
        rope = rope or [(i + 1) % every for i in range(n_layers)]
        config = config.updated(layer_types=["chunked_attention" if each else "full_attention" for each in rope])
    if config.indices("moe_layers") is None:
        step = config.count("interleave_moe_layer_step", 1)
        config = config.updated(moe_layers=list(range(step - 1, n_layers, step)))
    config = config.updated(moe_intermediate_size=width, shared_intermediate_size=width)
    if dense_layers(config):
        config = config.updated(intermediate_size=config.count("intermediate_size_mlp"))
    return {**general(config), "router": "llama4", "router_parameters": {}}


@family("gemma4", "google/gemma-4-26B-A4B-it", untold="images and sound")
@family("gemma4_text", "google/gemma-4-26B-A4B-it")
@family("diffusion_gemma", "google/diffusiongemma-26B-A4B-it", untold="images and self-conditioning")
@family("diffusion_gemma_text", "google/diffusiongemma-26B-A4B-it")
def gemma4(config: Config) -> Fields:
    """A dense network stands beside the experts; layers without a window have wider heads."""
    defaults = {"tied_embeddings": True, "norm_topk_prob": True, "window": 512}
    config = Config(config.data, config.family, {**defaults, **config.defaults}, config.keys)
    if not config.flag("enable_moe_block", default="diffusion" in config.family) or not config.has("n_experts"):
        raise ScenarioError(f"a config.json of {config.family} that has experts in at least one layer")
    n_layers = config.n_layers
    if config.per_layer("layer_types", str) is None:
        kinds = ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(n_layers)]
        config = config.updated(layer_types=kinds)
    fields = general(config)
    full = ["full" in kind for kind in config.per_layer("layer_types", str) or ()]
    wide, same = (
        config.count("global_head_dim", 512),
        config.flag("attention_k_eq_v", default="diffusion" in config.family),
    )
    few = config.count("num_global_key_value_heads", fields["n_kv_heads"]) if same else fields["n_kv_heads"]
    own = {
        int(i): values
        for i, values in config.part("per_layer_config").data.items()
        if str(i).isdecimal() and len(str(i)) < 8
    }
    by_layers = {
        **attention_by_layer(config),
        "head_dim": [wide if each else fields["head_dim"] for each in full],
        "n_kv_heads": [few if each else fields["n_kv_heads"] for each in full],
        "k_eq_v": [same and each for each in full],
    }
    for key, name in (("head_dim", "head_dim"), ("num_key_value_heads", "n_kv_heads")):
        for i, values in own.items():
            if i < n_layers and isinstance(values, dict) and key in values:
                by_layers[name][i] = config.updated(**values).count(name)  # type: ignore[index]
    dense = {"n_shared_experts": 1, "shared_intermediate_size": config.count("intermediate_size")}
    return {**fields, **dense, **by_layer(by_layers)}


@family("step3p5", "stepfun-ai/Step-3.5-Flash", defaults=SIGMOID, untold="layers that predict further tokens")
@family(
    "step3p7",
    "stepfun-ai/Step-3.7-Flash",
    defaults=SIGMOID,
    untold="images and layers that predict further tokens",
)
def step3p7(config: Config) -> Fields:
    """Layers with a window may have more heads."""
    other = config.part("attention_other_setting")
    n_heads = config.count("n_heads")
    more = config.count("num_sliding_attention_heads", other.count("n_heads", n_heads))
    if not config.has("first_dense") and "mlp_layer_types" not in config.data and "moe_layers_enum" not in config.data:
        config = config.updated(first_k_dense_replace=3)
    config = config.updated(n_shared_experts=1)
    by_layers = {**attention_by_layer(config)}
    if more != n_heads:
        kinds = config.per_layer("layer_types", str) or []
        by_layers["n_heads"] = [more if "sliding" in kind else n_heads for kind in kinds]
    return {**general(config), **by_layer(by_layers)}


@family("step3_vl", "stepfun-ai/step3", untold="images")
@family("step3_text", "stepfun-ai/step3")
def step3(config: Config) -> Fields:
    """Queries come from a latent, and all heads have the same keys and values."""
    rank = config.count("share_q_dim", 0, least=0)
    fields = general(config.updated(num_shared_experts=1))
    return {**fields, **({"q_lora_rank": rank} if rank else {})}


@family("mimo_v2_flash", "XiaomiMiMo/MiMo-V2-Flash", defaults={**SIGMOID, "first_dense": 1, "window": 128})
def mimo(config: Config) -> Fields:
    """Layers with a window have heads of their own number and sizes; values are narrower than keys."""
    kinds = config.per_layer("hybrid_layer_pattern", int)
    if kinds is None:
        named = config.per_layer("layer_types", str)
        kinds = [int(i % 6 != 5 and i > 0) for i in range(config.n_layers)] if named is None else None
        kinds = kinds if named is None else [int("sliding" in kind) for kind in named]
    fields = general(config.without("layer_types"))
    assert kinds is not None
    values = {"window": [config.count("window") if slides else 0 for slides in kinds]}
    doubled = {"swa_num_key_value_heads": 2 * fields["n_kv_heads"]}
    for name, key in (
        ("n_heads", "swa_num_attention_heads"),
        ("n_kv_heads", "swa_num_key_value_heads"),
        ("head_dim", "swa_head_dim"),
    ):
        own = config.count(key, doubled.get(key, fields[name]))
        values[name] = [own if slides else fields[name] for slides in kinds]
    return {**fields, "v_head_dim": config.count("v_head_dim", fields["head_dim"]), **by_layer(values)}


@family("minimax_m3", "MiniMaxAI/MiniMax-M3", defaults=SIGMOID, untold="images and layers that predict further tokens")
@family("minimax_m3_vl", "MiniMaxAI/MiniMax-M3", defaults=SIGMOID, untold="images")
@family("minimax_m3_vl_text", "MiniMaxAI/MiniMax-M3", defaults=SIGMOID)
def minimax_m3(config: Config) -> Fields:
    """Most layers attend to blocks of tokens that an indexer selects; dense layers have a width of their own."""
    width = config.count("intermediate_size")
    config = config.updated(moe_intermediate_size=width, n_shared_experts=config.count("n_shared_experts", 1, least=0))
    if dense_layers(config):
        config = config.updated(intermediate_size=config.count("dense_intermediate_size"))
    fields = general(config.without("layer_types", "index_top_k"))
    sparse = config.part("sparse_attention_config")
    counted = {**sparse.data, "num_hidden_layers": config.n_layers}
    chosen = Config(counted, config.family).per_layer("sparse_attention_freq", int)
    if chosen is None:
        named = config.per_layer("layer_types", str) or []
        chosen = [int("sparse" in kind) for kind in named]
    if not any(chosen):
        return fields
    stated = {**config.data, **sparse.data}
    flat = config.updated(
        index_n_heads=stated.get("sparse_num_index_heads", stated.get("index_n_heads", 4)),
        index_head_dim=stated.get("sparse_index_dim", stated.get("index_head_dim", 128)),
        blocks=stated.get("sparse_topk_blocks", stated.get("index_topk_blocks", 16)),
        block_size=stated.get("sparse_block_size", stated.get("index_block_size", 128)),
    )
    heads, top_k = flat.count("index_heads"), flat.count("blocks") * flat.count("block_size")
    return {
        **fields,
        "index_head_dim": flat.count("index_head_dim"),
        **by_layer(
            {
                "index_heads": [heads if each else 0 for each in chosen],
                "index_top_k": [top_k if each else 0 for each in chosen],
            }
        ),
    }


@family("laguna", "poolside/laguna-XS.2", defaults={**SIGMOID, "first_dense": 1})
def laguna(config: Config) -> Fields:
    """A number of heads for each layer."""
    n_heads = config.per_layer("num_attention_heads_per_layer", int)
    by_layers = {**attention_by_layer(config), **({"n_heads": n_heads} if n_heads else {})}
    return {**general(config), **by_layer(by_layers)}


@family(
    "inkling_text",
    "thinkingmachines/Inkling",
    defaults={**SIGMOID, "window": 512},
    untold="short convolutions",
)
@family("inkling_mm_model", "thinkingmachines/Inkling", defaults={**SIGMOID, "window": 512}, untold="images")
@family(
    "inkling2_text",
    "thinkingmachines/Inkling-2-Small-MXFP8",
    defaults={**SIGMOID, "window": 1024},
    untold="convolutions",
)
@family("inkling2", "thinkingmachines/Inkling-2-Small-MXFP8", defaults={**SIGMOID, "window": 1024}, untold="images")
def inkling(config: Config) -> Fields:
    """Layers with a window have heads of their own number."""
    fields = general(config)
    kinds = config.per_layer("layer_types", str) or ["hybrid"] * config.n_layers
    slides = ["sliding" in kind for kind in kinds]
    n_heads = config.count("swa_num_attention_heads", fields["n_heads"])
    n_kv_heads = config.count("swa_num_key_value_heads", fields["n_kv_heads"])
    return {
        **fields,
        "attention_gate": "inkling2" in config.family,
        **by_layer(
            {
                **attention_by_layer(config),
                "n_heads": [n_heads if each else fields["n_heads"] for each in slides],
                "n_kv_heads": [n_kv_heads if each else fields["n_kv_heads"] for each in slides],
            }
        ),
    }


@family(
    "zaya",
    "Zyphra/ZAYA1-8B",
    defaults={"tied_embeddings": True},
    untold="convolutions of queries and keys, and the network of the router",
)
def zaya(config: Config) -> Fields:
    """One choice more than there are experts computes nothing."""
    router = {"router": "longcat", "router_parameters": {"n_zero_experts": 1}}
    return {**general(config.without("layer_types")), **router}
