"""Families whose router takes the softmax, of all experts or of the chosen ones, and whose attention has heads."""

from __future__ import annotations

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.layers import by_layer
from moesim.scenario.hugging_face.parts import Fields, general, linear, linear_by_layer
from moesim.scenario.hugging_face.registry import family, register

EXPERT_WIDTH = {"moe_intermediate_size": ("moe_intermediate_size", "intermediate_size")}
"""The width of an expert where the family has no dense network."""
CHOSEN = {"scoring_func": "softmax-of-chosen"}
NORMALISED = {"norm_topk_prob": True}

register("mixtral", "mistralai/Mixtral-8x7B-v0.1", keys=EXPERT_WIDTH, defaults=CHOSEN)
register(
    "phimoe",
    "microsoft/Phi-3.5-MoE-instruct",
    keys=EXPERT_WIDTH,
    untold="the weights of SparseMixer (those of the softmax are taken)",
)
register("olmoe", "allenai/OLMoE-1B-7B-0924", keys=EXPERT_WIDTH)
register("flex_olmo", "allenai/FlexOlmo-7x7B-1T", keys=EXPERT_WIDTH)
register("granitemoe", "ibm-granite/granite-3.0-1b-a400m-base", keys=EXPERT_WIDTH, defaults=CHOSEN)
register("granitemoeshared", "ibm-granite/moe-7b-1b-active-shared-experts", keys=EXPERT_WIDTH, defaults=CHOSEN)
register("granitemoe_swa", "ibm-granite/granite-swash-3b-a600m", keys=EXPERT_WIDTH, defaults={**CHOSEN, "window": 128})
for _name in ("aria", "aria_text"):
    register(_name, "rhymes-ai/Aria", keys=EXPERT_WIDTH, defaults=CHOSEN, untold="images")
register("mellum", "JetBrains/Mellum2-12B-A2.5B-Base", defaults=NORMALISED)


@family("arctic", "Snowflake/snowflake-arctic-base", keys=EXPERT_WIDTH, defaults=CHOSEN)
def arctic(config: Config) -> Fields:
    """A dense residual network of the width of the model stands beside the experts."""
    every = config.count("moe_layer_frequency", 1)
    only = [i for i in range(config.n_layers) if (i + 1) % every]
    fields = general(config.updated(mlp_only_layers=only))
    residual = config.flag("parallel_attn_mlp_res", default=False) or config.flag("use_residual", default=False)
    return {
        **fields,
        **({"n_shared_experts": 1, "shared_intermediate_size": fields["hidden_size"]} if residual else {}),
    }


@family("grok-1", "hpcai-tech/grok-1", keys=EXPERT_WIDTH, defaults={"tied_embeddings": True})
def grok(config: Config) -> Fields:
    """Grok-2 has a dense network beside the experts."""
    residual = config.flag("residual_moe", default=False)
    width = config.count("intermediate_size") if residual else 0
    return {**general(config), **({"n_shared_experts": 1, "shared_intermediate_size": width} if residual else {})}


@family(
    "jetmoe",
    "jetmoe/jetmoe-8b",
    keys=EXPERT_WIDTH,
    defaults={**CHOSEN, "tied_embeddings": True},
    untold="experts of the attention that a token does not choose",
)
def jetmoe(config: Config) -> Fields:
    """Queries and outputs of the attention come from as many experts as a token chooses."""
    n_heads = config.count("n_kv_heads") * config.count("top_k")
    return general(config.updated(num_attention_heads=n_heads))


@family(
    "dbrx",
    "databricks/dbrx-instruct",
    keys={"hidden_size": ("d_model",), "moe_intermediate_size": ("ffn_hidden_size",)},
)
def dbrx(config: Config) -> Fields:
    """Attention and experts are described in parts of their own."""
    parts = {**config.part("ffn_config").data, **config.part("attn_config").data}
    normalised = parts.get("moe_normalize_expert_weights", 1) is not None
    return general(config.updated(**{**parts, **config.data}, norm_topk_prob=normalised))


@family(
    "cohere2_moe",
    "CohereLabs/command-a-plus-05-2026",
    keys=EXPERT_WIDTH,
    defaults={"tied_embeddings": True, "norm_topk_prob": True, "window": 4096},
)
def cohere2_moe(config: Config) -> Fields:
    """The first layers may be dense, of another width; scores are those of the chosen experts."""
    by_sigmoid = config.word("scoring_func", "softmax") == "sigmoid"
    width = config.data.get("prefix_dense_intermediate_size") or config.data.get("intermediate_size")
    fields = general(config.without("scoring_func").updated(dense_width=width, scoring_func="softmax-of-chosen"))
    if fields["dense_layers"]:
        fields["intermediate_size"] = config.updated(dense_width=width).count("dense_width")
    if by_sigmoid:
        normalised = config.flag("norm_topk_prob", default=True)
        fields |= {"router": "llama4", "router_parameters": {"norm_topk_prob": normalised}}
    return fields


def qwen(config: Config) -> Fields:
    """Windows count where the file switches them on."""
    if not config.flag("use_sliding_window", default=False):
        config = config.without("window")
    return general(config)


family("qwen2_moe", "Qwen/Qwen2-57B-A14B")(qwen)
family("qwen3_moe", "Qwen/Qwen3-30B-A3B")(qwen)
for _name in ("qwen3_vl_moe", "qwen3_vl_moe_text"):
    family(_name, "Qwen/Qwen3-VL-235B-A22B-Instruct", defaults=NORMALISED, untold="images")(qwen)
for _name in ("qwen3_omni_moe", "qwen3_omni_moe_thinker", "qwen3_omni_moe_text"):
    family(
        _name,
        "Qwen/Qwen3-Omni-30B-A3B-Instruct",
        defaults=NORMALISED,
        untold="images, sound and the talker",
    )(qwen)


def qwen_linear(config: Config) -> Fields:
    """Three layers of a gated delta rule, then one of attention with a gate."""
    fields = general(config.without("layer_types", "window"))
    values = linear_by_layer(config)
    if "index_top_k" in fields:
        attends = [kind == "gqa" for kind in values["attention"]]
        for name in ("index_top_k", "index_heads"):
            values[name] = [fields[name] if each else 0 for each in attends]
    streams = config.count("hc_count", 1)
    more = {"residual_streams": streams} if streams > 1 else {}
    return {**fields, "attention_gate": True, **more, **linear(config), **by_layer(values)}


family(
    "qwen3_next",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    defaults={**NORMALISED, "full_attention_interval": 4},
    untold="layers that predict further tokens",
)(qwen_linear)
for _name in ("qwen3_5_moe", "qwen3_5_moe_text"):
    family(
        _name,
        "Qwen/Qwen3.5-397B-A17B",
        defaults={**NORMALISED, "full_attention_interval": 4},
        untold="images and layers that predict further tokens",
    )(qwen_linear)


for _name in ("qwen4_exp", "qwen4_exp_text"):
    family(
        _name,
        "Qwen/Qwen4-Exp",
        keys={
            "index_heads": ("indexer_n_heads",),
            "index_head_dim": ("indexer_head_dim",),
            "index_top_k": ("indexer_budget",),
        },
        defaults={**NORMALISED, "full_attention_interval": 4, "hc_count": 4},
        untold="images, embeddings of n-grams, and that tokens are compressed before they are selected",
    )(qwen_linear)


@family("hunyuan_v1_moe", "tencent/Hunyuan-A13B-Instruct", keys=EXPERT_WIDTH, defaults=CHOSEN)
def hunyuan(config: Config) -> Fields:
    """Some fields are a list with a value for each layer."""
    values = {}
    for name in ("top_k", "moe_intermediate_size", "n_shared_experts"):
        key, value = config.find(name)
        if isinstance(value, list):
            values[name] = config.per_layer(name, int) or []
            config = config.updated(**{key: values[name][0]})
    if any(0 in each for name, each in values.items() if name != "n_shared_experts"):
        raise ScenarioError(f"a config.json of {config.family} whose lists hold numbers above 0")
    fields = general(config.updated(shared_intermediate_size=config.count("intermediate_size")))
    shared = values.pop("n_shared_experts", [1])
    if not config.has("n_shared_experts"):
        fields |= {"n_shared_experts": 1, "shared_intermediate_size": config.count("intermediate_size")}
    elif len(set(shared)) > 1:
        raise config.wrong("num_shared_expert", shared, "the same number for every layer")
    return {**fields, **by_layer(values)}


for _name in ("ernie4_5_moe", "ernie4_5_vl_moe", "ernie4_5_vl_moe_text"):

    @family(
        _name,
        "baidu/ERNIE-4.5-VL-28B-A3B-PT" if "vl" in _name else "baidu/ERNIE-4.5-21B-A3B-PT",
        defaults={"tied_embeddings": True, **NORMALISED},
        untold="images, and the experts of images" if "vl" in _name else "",
    )
    def ernie(config: Config) -> Fields:
        """A first and a last layer with experts; models of images state two values, that of the text first."""
        for name in ("n_experts", "moe_intermediate_size", "moe_layer_start_index", "moe_layer_end_index"):
            key, value = config.find(name)
            if isinstance(value, list) and value:
                config = config.updated(**{key: value[0]})
        if config.per_layer("mlp_layer_types", str) is None:
            n_layers = config.n_layers
            first, every = config.count("moe_layer_start_index", 1, least=0), config.count("moe_layer_interval", 1)
            last = config.count("moe_layer_end_index", n_layers - 1, least=-1)
            last = n_layers - 1 if last == -1 else last
            dense = [i for i in range(n_layers) if not first <= i <= last or (i + 1) % every]
            config = config.updated(mlp_only_layers=dense)
        return general(config)
