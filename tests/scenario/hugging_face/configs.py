"""Small configurations of Hugging Face and what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moesim.scenario.hugging_face import read_config
from moesim.scenario.model_shape import model_rules, model_shape
from moesim.scenario.schema import ModelSpec
from moesim.types import ModelShape

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "intermediate_size": 512,
}
"""What most families state."""
LATENT = {"kv_lora_rank": 64, "q_lora_rank": 96, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32}


def of(kind: str, **fields: Any) -> dict[str, Any]:
    """A config.json of a model type, with fields of its own; None leaves one out."""
    stated = {"model_type": kind, **SIZES, **fields}
    return {name: value for name, value in stated.items() if value is not None}


def read(folder: Path, config: Any, beside: Any = None) -> dict[str, Any]:
    """The fields of the model of a config.json in a folder, with an hf_quant_config.json beside it or without."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if beside is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps(beside), encoding="utf-8")
    return read_config(folder)


def shape(folder: Path, config: Any, beside: Any = None) -> ModelShape:
    """The model of a config.json, which fulfils all rules of a scenario's model."""
    spec = ModelSpec.model_validate(read(folder, config, beside))
    assert all(holds for holds, *_ in model_rules(spec))
    return model_shape(spec)
