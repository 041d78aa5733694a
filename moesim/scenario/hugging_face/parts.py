"""The parts of a model as most families describe them: each function reads some fields of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.layers import by_layer

Fields = dict[str, Any]
LATENT = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
LINEAR = ("linear_key_heads", "linear_value_heads", "linear_key_dim", "linear_value_dim", "conv_kernel")


def general(config: Config) -> Fields:
    """A decoder whose parts are those that the fields of the file name."""
    dense = dense_layers(config)
    return {
        **decoder(config),
        **experts(config),
        **shared_experts(config),
        **networks(config, dense),
        **router(config),
        **attention(config),
        **by_layer(attention_by_layer(config)),
    }


def decoder(config: Config) -> Fields:
    """Layers, width and vocabulary."""
    return {
        "hidden_size": config.count("hidden_size"),
        "n_layers": config.n_layers,
        "vocab_size": config.count("vocab_size"),
        "tied_embeddings": config.flag("tied_embeddings", default=False),
    }


def attention(config: Config) -> Fields:
    """Heads of the attention: latent ones where the file has a rank of keys and values."""
    limited = {"window": config.count("window", 0, least=0)} if config.has("window") else {}
    if config.has("chunk") and not limited:
        limited = {"chunk": config.count("chunk", 0, least=0)}
    own = latent(config) if config.has("kv_lora_rank") else heads(config)
    return {**own, **indexer(config), **limited}


def heads(config: Config) -> Fields:
    """Heads with keys and values of their own, or of groups of them."""
    hidden, n_heads = config.count("hidden_size"), config.count("n_heads")
    if not config.has("head_dim") and hidden < n_heads:
        raise config.wrong(config.find("hidden_size")[0], hidden, f"at least the {n_heads} heads")
    n_kv_heads = config.count("n_kv_heads", n_heads)
    if n_heads % n_kv_heads:
        raise config.wrong(config.find("n_kv_heads")[0], n_kv_heads, f"a number that divides the {n_heads} heads")
    return {
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": config.count("head_dim", hidden // n_heads),
        **({"attention_gate": True} if config.flag("attention_gate", default=False) else {}),
    }


def latent(config: Config) -> Fields:
    """Multi-head latent attention; no q_lora_rank stands for a projection of the queries without a latent."""
    n_heads = config.count("n_heads")
    sizes = {name: config.count(name, least=0 if name == "qk_rope_head_dim" else 1) for name in LATENT}
    return {
        "attention": "mla",
        "n_heads": n_heads,
        "n_kv_heads": config.count("n_kv_heads", n_heads),
        "head_dim": sizes["qk_nope_head_dim"] + sizes["qk_rope_head_dim"],
        "q_lora_rank": config.count("q_lora_rank", 0, least=0),
        **sizes,
    }


def indexer(config: Config) -> Fields:
    """An indexer that selects the tokens to attend to, where there is one."""
    if not config.has("index_top_k"):
        return {}
    return {name: config.count(name) for name in ("index_heads", "index_head_dim", "index_top_k")}


def attention_by_layer(config: Config) -> dict[str, Sequence[Any]]:
    """What differs between the layers' attention, by the layers' types."""
    kinds = config.per_layer("layer_types", str) or _repeated(config)
    values: dict[str, Sequence[Any]] = {}
    if kinds is not None:
        for field, word in (("window", "sliding"), ("chunk", "chunked")):
            size = config.count(field, 0, least=0)
            if size or any(word in kind for kind in kinds):
                values[field] = [config.count(field) if word in kind else 0 for kind in kinds]
    indexers = config.per_layer("indexer_types", str)
    if indexers is not None and config.has("index_top_k"):
        own = config.count("index_heads")
        values["index_heads"] = [0 if kind == "shared" else own for kind in indexers]
    return values


def _repeated(config: Config) -> list[str] | None:
    """The layers' types of a file that states from which layer on, at what distance or by which letters it has windows.

    None where the file has no window, or has it in all layers.
    """
    if not config.has("window"):
        return None
    layers, every = range(config.n_layers), config.find("window_every")[1]
    if not config.flag("use_sliding_window", default=True):
        return ["full_attention" for _ in layers]
    if every is None:
        first = config.count("max_window_layers", 0, least=0)
        return ["full_attention" if i < first else "sliding_attention" for i in layers] if first else None
    if isinstance(every, str) and every:
        whole = [letter == "G" for letter in every]
    else:
        whole = [False] * (config.count("window_every") - 1) + [True]
    return ["full_attention" if whole[i % len(whole)] else "sliding_attention" for i in layers]


def linear(config: Config) -> Fields:
    """Sizes of linear attention."""
    return {name: config.count(name) for name in LINEAR}


def linear_by_layer(config: Config, other: str = "gqa", kind: str = "linear") -> dict[str, Sequence[Any]]:
    """Which layers have linear attention and which the `other` kind, by the layers' types.

    Raises:
        ScenarioError: the file does not say it.
    """
    kinds = config.per_layer("layer_types", str)
    interval = config.count("full_attention_interval", 0, least=0)
    if kinds is None and interval:
        kinds = ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(config.n_layers)]
    if kinds is None:
        raise ScenarioError(f"a config.json of {config.family} with the field layer_types or full_attention_interval")
    states = ("linear_attention", "mamba", "mamba2")
    return {"attention": [kind if each in states else other for each in kinds]}


def experts(config: Config) -> Fields:
    """Experts, how many of them a token chooses, and their width."""
    n_experts, top_k = config.count("n_experts"), config.count("top_k")
    if top_k > n_experts:
        raise config.wrong(config.find("top_k")[0], top_k, f"at most the {n_experts} experts")
    return {"n_experts": n_experts, "top_k": top_k, "moe_intermediate_size": config.count("moe_intermediate_size")}


def shared_experts(config: Config) -> Fields:
    """Shared experts: their width together, or how many there are of an expert's width."""
    number = config.count("n_shared_experts", 0, least=0)
    width = config.count("shared_intermediate_size", 0, least=0) if number or not config.has("n_shared_experts") else 0
    if not number and not width:
        return {}
    number = number or 1
    return {
        "n_shared_experts": number,
        "shared_intermediate_size": width or number * config.count("moe_intermediate_size"),
    }


def dense_layers(config: Config) -> list[int]:
    """Indices of the layers without experts, by whichever rule the file states."""
    layers = range(config.n_layers)
    only, sparse_step = set(config.indices("mlp_only_layers") or ()), config.count("decoder_sparse_step", 1)
    by_list = [i for i in layers if i in only or (i + 1) % sparse_step]
    if by_list:
        return by_list
    kinds = config.per_layer("mlp_layer_types", str)
    if kinds is not None:
        return [i for i in layers if kinds[i] == "dense"]
    moe = _listed(config)
    if moe is not None:
        return [i for i in layers if i not in set(moe)]
    first, step = config.count("first_dense", 0, least=0), config.find("moe_layer_freq")[1]
    if isinstance(step, list):
        return [i for i, sparse in enumerate(config.per_layer("moe_layer_freq", int) or ()) if not sparse]
    if config.has("first_dense") or step is not None:
        every = config.count("moe_layer_freq", 1)
        return [i for i in layers if i < first or i % every]
    return []


def _listed(config: Config) -> list[int] | None:
    """Layers that the file names as those with experts, in a list or in a text with commas."""
    enumerated = config.data.get("moe_layers_enum")
    if not isinstance(enumerated, str):
        return config.indices("moe_layers") if enumerated is None else config.indices("moe_layers_enum")
    words = [word for word in enumerated.split(",") if word.strip()]
    if not all(word.strip().isdecimal() and len(word) < 8 for word in words):
        raise config.wrong("moe_layers_enum", enumerated, "indices of layers with commas between them")
    return config.updated(moe_layers_enum=[int(word) for word in words]).indices("moe_layers_enum")


def networks(config: Config, dense: Sequence[int], width: str = "intermediate_size") -> Fields:
    """The layers without experts and the width of their network.

    Raises:
        ScenarioError: no layer has experts.
    """
    if len(dense) >= config.n_layers:
        raise ScenarioError(f"a config.json of {config.family} that has experts in at least one layer")
    return {"dense_layers": list(dense), "intermediate_size": config.count(width) if dense else 0}


def router(config: Config) -> Fields:
    """The strategy that scores the experts, and its parameters.

    Raises:
        ScenarioError: the scores are taken by a function that no strategy has.
    """
    key, score = config.find("scoring_func")
    score = score or "softmax"
    if score == "softmax-of-chosen":
        return {"router": "mixtral"}
    parameters: Mapping[str, Any] = {
        "n_group": config.count("n_group", 1),
        "topk_group": config.count("topk_group", 1),
        "norm_topk_prob": config.flag("norm_topk_prob", default=score != "softmax"),
        "routed_scaling_factor": config.number("routed_scaling_factor", 1.0),
    }
    if score in ("sigmoid", "sqrtsoftplus"):
        return {"router": "deepseek-v3", "router_parameters": parameters}
    if score != "softmax":
        raise config.wrong(key, score, "softmax, sigmoid or sqrtsoftplus")
    plain = {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0}
    stated = {name: value for name, value in parameters.items() if plain.get(name) != value}
    if "n_group" in stated:
        stated["group_score"] = "top-2-sum"
    return {"router": "softmax-top-k", "router_parameters": stated}
