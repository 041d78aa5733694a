"""Small measured tables, made for tests: columns as collectors write them, times of round numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

_SYSTEM = {"system": "h100_sxm", "framework": "TRTLLM"}
_EXPERTS = {
    **_SYSTEM,
    "kernel_source": "moe_torch_flow_cutlass",
    "moe_dtype": "bfloat16",
    "distribution": "balanced",
    "hidden_size": 4096,
    "inter_size": 14336,
    "topk": 2,
    "num_experts": 8,
    "moe_tp_size": 1,
    "moe_ep_size": 1,
}
_WIDEEP = {
    **_EXPERTS,
    "framework": "SGLang",
    "kernel_source": "deepepmoe",
    "moe_dtype": "fp8_block",
    "distribution": "uniform",
    "hidden_size": 7168,
    "inter_size": 2048,
    "topk": 8,
    "num_experts": 256,
    "moe_ep_size": 4,
}
_HEADS = {**_SYSTEM, "num_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
_MODULE = {
    **_SYSTEM,
    "scope": "module",
    "kernel_source": "default",
    "gemm_type": "fp8_block",
    "kv_cache_dtype": "bfloat16",
    "num_heads": 128,
}


def experts(sizes: dict[int, float], **changes: Any) -> pd.DataFrame:
    """`moe_*`: {global tokens: ms}; Mixtral on one rank in TensorRT-LLM."""
    return _table(_EXPERTS, "num_tokens", sizes, changes)


def wide_experts(sizes: dict[int, float], **changes: Any) -> pd.DataFrame:
    """`wideep_generation_*` and `wideep_context_*`: {global tokens: ms}; DeepSeek-V3 on four ranks in SGLang."""
    return _table(_WIDEEP, "num_tokens", sizes, changes)


def products(sizes: dict[int, float], **changes: Any) -> pd.DataFrame:
    """`gemm_*`: {rows: ms} of a product with 4,096 x 4,096 weights in bf16."""
    return _table({**_SYSTEM, "gemm_dtype": "bfloat16", "n": 4096, "k": 4096}, "m", sizes, changes)


def decode(sizes: dict[int, float], context: int, **changes: Any) -> pd.DataFrame:
    """`attention_generation_*`: {requests: ms} of so many tokens, the new one counted, on Mixtral's heads."""
    own = {**_HEADS, "past_kv_tokens": context - 1, "kv_cache_dtype": "bfloat16"}
    return _table(own, "batch_size", sizes, changes)


def prefill(sizes: dict[int, float], prompt: int, **changes: Any) -> pd.DataFrame:
    """`attention_context_*`: {prompts: ms} of so many tokens each."""
    return _table({**_HEADS, "isl": prompt, "attn_dtype": "bfloat16"}, "batch_size", sizes, changes)


def latent(sizes: dict[int, float], context: int, **changes: Any) -> pd.DataFrame:
    """`mla_generation_*`: {requests: ms} of DeepSeek-V3's module in fp8."""
    return _table({**_MODULE, "past_kv_tokens": context - 1}, "batch_size", sizes, changes)


def save(folder: Path, **tables: pd.DataFrame) -> Path:
    """The tables as a folder of CSV files, named by their first word."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}_test.csv", index=False)
    return folder


def _table(own: dict[str, Any], along: str, sizes: dict[int, float], changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({**own, along: [*sizes], "latency_ms": [*sizes.values()], **changes})
