"""Model shapes from a Hugging Face config.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moesim.errors import ScenarioError

Config = Mapping[str, Any]
MAX_BYTES = 1_000_000
MAX_LAYERS = 10_000
"""As a scenario's model may have."""


def read_config(path: Path) -> dict[str, Any]:
    """The fields of a model from a config.json.

    Raises:
        ScenarioError: what would be right; the caller knows the place.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ScenarioError("a config.json of a model, which is smaller")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ScenarioError("a preset of 'moesim list models', or the path of a readable config.json") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in READERS:
        raise ScenarioError(f"a config.json whose model_type is one of {', '.join(READERS)}, not {kind!r:.40}")
    try:
        fields = READERS[kind](config)
    except KeyError as error:
        raise ScenarioError(f"a config.json of {kind} with the field {error.args[0]}") from None
    except (TypeError, ZeroDivisionError):
        raise ScenarioError(f"a config.json of {kind} with whole numbers for its sizes") from None
    # JSON may have halves of surrogate pairs, which no text file can hold
    name = str(config.get("_name_or_path") or path.parent.name or kind).encode("utf-8", "replace").decode()
    return {"name": name, **fields, "source": f"config.json of {name}"}


def _common(config: Config, n_experts: str) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    return {
        "hidden_size": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_experts": config[n_experts],
        "top_k": config["num_experts_per_tok"],
        "vocab_size": config["vocab_size"],
        "n_heads": heads,
        "n_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
    }


def _layers(config: Config) -> range:
    """The indices of the layers, few enough to list.

    Raises:
        ScenarioError: there are more.
    """
    n_layers = config["num_hidden_layers"]
    if n_layers > MAX_LAYERS:
        raise ScenarioError(f"a config.json with at most {MAX_LAYERS} num_hidden_layers, not {n_layers!r:.40}")
    return range(n_layers)


def _scaling_factor(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e38:
        wanted = "a number above 0 and below 1e38"
        raise ScenarioError(f"a config.json whose routed_scaling_factor is {wanted}, not {value!r:.40}")
    return float(value)


def _is_fp8(config: Config) -> bool:
    quantization = config.get("quantization_config") or {}
    if not isinstance(quantization, dict):
        raise ScenarioError(f"a config.json whose quantization_config is a mapping, not {quantization!r:.40}")
    return bool(quantization.get("quant_method") == "fp8")


def _mixtral(config: Config) -> dict[str, Any]:
    return {
        **_common(config, "num_local_experts"),
        "moe_intermediate_size": config["intermediate_size"],
        "router": "mixtral",
    }


def _softmax(config: Config, expert_size: str) -> dict[str, Any]:
    return {
        **_common(config, "num_experts"),
        "moe_intermediate_size": config[expert_size],
        "router": "softmax-top-k",
        "router_parameters": {"norm_topk_prob": bool(config.get("norm_topk_prob", False))},
    }


def _olmoe(config: Config) -> dict[str, Any]:
    return _softmax(config, "intermediate_size")


def _qwen(config: Config) -> dict[str, Any]:
    step = config.get("decoder_sparse_step", 1)
    only_dense = set(config.get("mlp_only_layers") or ())
    dense = [i for i in _layers(config) if i in only_dense or (i + 1) % step]
    shared = config.get("shared_expert_intermediate_size", 0)
    return {
        **_softmax(config, "moe_intermediate_size"),
        "dense_layers": dense,
        "intermediate_size": config.get("intermediate_size", 0) if dense else 0,
        "n_shared_experts": 1 if shared else 0,
        "shared_intermediate_size": shared,
    }


def _deepseek(config: Config) -> dict[str, Any]:
    first, step = config.get("first_k_dense_replace", 0), config.get("moe_layer_freq", 1)
    n_shared = config.get("n_shared_experts") or 0
    return {
        **_common(config, "n_routed_experts"),
        "dense_layers": [i for i in _layers(config) if i < first or i % step],
        "moe_intermediate_size": config["moe_intermediate_size"],
        "intermediate_size": config["intermediate_size"],
        "n_shared_experts": n_shared,
        "shared_intermediate_size": n_shared * config["moe_intermediate_size"],
        "attention": "mla",
        "q_lora_rank": config.get("q_lora_rank") or 0,
        "kv_lora_rank": config["kv_lora_rank"],
        "qk_nope_head_dim": config["qk_nope_head_dim"],
        "qk_rope_head_dim": config["qk_rope_head_dim"],
        "v_head_dim": config["v_head_dim"],
    }


def _deepseek_v2(config: Config) -> dict[str, Any]:
    grouped = config.get("topk_method") == "group_limited_greedy"
    return {
        **_deepseek(config),
        "router": "deepseek-v2",
        "router_parameters": {
            "n_group": config["n_group"] if grouped else 1,
            "topk_group": config["topk_group"] if grouped else 1,
            "routed_scaling_factor": _scaling_factor(config.get("routed_scaling_factor", 1.0)),
        },
    }


def _deepseek_v3(config: Config) -> dict[str, Any]:
    quantised = _is_fp8(config)
    return {
        **_deepseek(config),
        "router": "deepseek-v3",
        "router_parameters": {
            "n_group": config["n_group"],
            "topk_group": config["topk_group"],
            "norm_topk_prob": bool(config.get("norm_topk_prob", True)),
            "routed_scaling_factor": _scaling_factor(config["routed_scaling_factor"]),
        },
        "weights_dtype": "fp8" if quantised else "bf16",
        "dispatch_dtype": "fp8" if quantised else "bf16",
    }


READERS: Mapping[str, Callable[[Config], dict[str, Any]]] = {
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "qwen2_moe": _qwen,
    "qwen3_moe": _qwen,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
}
