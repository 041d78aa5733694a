"""Files as engines and tools write them, in small: made here, so that every number can be worked by hand."""

from __future__ import annotations

import base64
import json
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.recordings import ImportReport, import_recordings, read_trace
from moesim.recordings.layout import ImportOptions, KnownModel
from moesim.types import Recording

IDS = np.array([[[0, 3], [1, 2]], [[3, 1], [2, 0]], [[3, 2], [1, 3]]], dtype=np.int32)
"""Three tokens in two layers, top-2 of 4: [tokens, layers, k]."""
BY_LAYER = IDS.transpose(1, 0, 2).tolist()
"""The same as a trace has it: [layers, tokens, k]."""
LOADS = [[1, 1, 1, 3], [1, 2, 2, 1]]
"""Assignments to each expert of them."""


SLOTS = [[0, 1, 2, 3, 0, 1]] * 2
"""Six slots in two layers; experts 0 and 1 have two each."""


def json_file(path: Path, value: Any) -> Path:
    """A JSON document."""
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def json_lines(path: Path, records: Sequence[Any]) -> Path:
    """A JSON document a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def text_file(path: Path, text: str) -> Path:
    """A text."""
    path.write_text(text, encoding="utf-8")
    return path


def encoded(ids: np.ndarray[Any, Any], dtype: str = "<i4") -> str:
    """Ids as SGLang sends them."""
    return base64.b64encode(np.ascontiguousarray(ids).astype(dtype).tobytes()).decode()


def trtllm_folder(path: Path, ranks: Sequence[dict[str, list[int]]], n_experts: int) -> Path:
    """TensorRT-LLM's statistics: counts by "iteration_layer" of every rank."""
    from safetensors.numpy import save_file

    path.mkdir()
    json_file(path / "meta_info.json", {"num_experts": n_experts, "num_experts_per_token": 2})
    for rank, counts in enumerate(ranks):
        arrays = {key: np.array(value, dtype=np.int64) for key, value in counts.items()}
        save_file(arrays, path / f"rank{rank}.safetensors")
    return path


def eplb_record(step: int, load: list[list[int]], slots: list[list[int]]) -> dict[str, Any]:
    """A line of vLLM's load dump."""
    facts = {"record_type": "eplb_load_stats", "version": 1, "num_ranks": 2, "num_layers": len(load)}
    return {**facts, "step": step, "tokens": [[0, 0]] * len(load), "expert_load": load, "p2l_map": slots}


def simllm_lines(version: int) -> list[dict[str, Any]]:
    """A preplay trace of a request: a prompt of two tokens and two generated ones, the last of which is not routed."""
    schema = f"simllm-preplay-trace-v{version}"
    facts: dict[str, Any] = {"model_id": "org/model", "expert_count": 4, "top_k": 2, "moe_layer_indices": [1, 2]}
    request: dict[str, Any] = {
        "request_id": "r",
        "input_token_ids": [5, 6],
        "output_token_ids": [7, 8],
        "stop_reason": "length-cap",
    }
    rows: list[dict[str, Any]] = []
    for number, layers in enumerate(IDS.tolist()):
        routing: list[dict[str, Any]] = [{"layer_index": 1 + at, "expert_ids": ids} for at, ids in enumerate(layers)]
        if version == 1:
            routing = [{**each, "gate_weights": [0.75, 0.25]} for each in routing]
        kind = "forward-token" if version == 1 else "observed-dispatch"
        phase = "prefill" if number < 2 else "decode"
        row: dict[str, Any] = {
            "row_type": kind,
            "request_id": "r",
            "phase": phase,
            "token_index": number if number < 2 else number - 2,
            "routing": routing,
        }
        rows.append(row)
    lines = [
        {"row_type": "header", "provenance": facts},
        {"row_type": "request", **request},
        *rows,
        {"row_type": "footer"},
    ]
    return [{"schema": schema, **line} for line in lines]


def regolith_bytes(ids: np.ndarray[Any, Any] = IDS, n_experts: int = 4) -> bytes:
    """The binary trace, with values that nobody reads."""
    n_tokens, n_layers, width = ids.shape
    head = struct.pack("<4sHHHHI", b"Q4RT", 1, n_layers, n_experts, width, n_tokens)
    return head + np.stack([ids, np.full_like(ids, 7)], axis=2).astype("<u2").tobytes()


def sglang_record(step: int, **fields: Any) -> dict[str, Any]:
    """A forward pass of SGLang's recorder."""
    return {"forward_pass_id": step, "rank": 0, "gatherer_key": "primary", **fields}


DATA = Path(os.environ.get("MOESIM_DATA", ""))
needs_data = pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of recordings")

MODEL = KnownModel(name="a-model", n_layers=3, moe_layers=(1, 2), n_experts=4, top_k=2)
"""Its layer 0 is dense."""


def imported(*paths: Path, **options: Any) -> tuple[Recording, ImportReport]:
    """What an import of files writes, read again, and its report."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "imported.parquet")
        report = import_recordings(paths, out, ImportOptions(**options))
        return read_trace(out), report
