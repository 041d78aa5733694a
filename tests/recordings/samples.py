"""One whole file of each layout that is a single file, made here: what a fuzzer damages."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moesim.recordings import write_trace
from moesim.types import Trace, token_columns
from tests.recordings.engine_files import IDS, LOADS, eplb_record, regolith_bytes, simllm_lines


def document(value: Any) -> bytes:
    """A JSON document."""
    return json.dumps(value).encode()


def lines(values: list[Any]) -> bytes:
    """A JSON document a line."""
    return b"".join(document(value) + b"\n" for value in values)


def arrays(**values: np.ndarray[Any, Any]) -> bytes:
    """An `.npz`."""
    file = io.BytesIO()
    np.savez(file, **values)  # type: ignore[arg-type]
    return file.getvalue()


def array(value: np.ndarray[Any, Any]) -> bytes:
    """An `.npy`."""
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def _routes(name: str, **fields: Callable[[int, int], Any]) -> bytes:
    """A line a (token, layer), with the experts under a name."""
    return lines(
        [
            {**{field: make(token, layer) for field, make in fields.items()}, name: IDS[token, layer].tolist()}
            for token in range(3)
            for layer in range(2)
        ]
    )


def table(**columns: list[Any]) -> bytes:
    """A parquet table."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def trace() -> bytes:
    """A trace as moesim writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.parquet")
        expert = np.ascontiguousarray(IDS.transpose(1, 0, 2))
        write_trace(Trace(expert=expert, weight=None, layer_ids=(0, 1), n_experts=4, **token_columns(3)), path)
        return path.read_bytes()


SAMPLES: dict[str, tuple[str, bytes]] = {
    "sglang-counts": ("a.json", document({"rank": 0, "logical_count": [[[0] * 4, LOADS[0]], [[0] * 4, LOADS[1]]]})),
    "csv-counts": ("a.csv", b"layer_id,expert_id,count\n3,0,7\n3,2,4\n"),
    "routed-experts-responses": (
        "a.json",
        document({"prompt_routed_experts": IDS[:2].tolist(), "choices": [{"routed_experts": IDS[2:].tolist()}]}),
    ),
    "routed-experts-arrays": (
        "a.npz",
        arrays(routed_experts=IDS, prompt_token_ids=np.arange(2), output_token_ids=np.arange(1)),
    ),
    "vllm-eplb-dump": ("a.jsonl", lines([eplb_record(1, [[1, 2, 3]], [[0, 1, 0]]), {"record_type": "other"}])),
    "simllm-preplay": ("a.jsonl", lines(simllm_lines(2))),
    "simllm-preplay-1": ("a.jsonl", lines(simllm_lines(1))),
    "core12345": ("a.json", document([{"0": None, "1": IDS[:, 0].tolist()}, {"0": None, "1": [[1, 2]]}])),
    "moe-balance-batches": (
        "a.jsonl",
        lines([{"layer": at, "batch_id": 1, "topk_experts": IDS[:, at].tolist()} for at in range(2)]),
    ),
    "llama-cpp-csv": ("a.csv", b"layer,expert\n0,1\n0,2\n1,3\n"),
    "expert-selection-csv": ("a.csv", b"layer_id,expert_ids\n3,1 2\n3,0 2\n"),
    "imp-json": (
        "a.json",
        document([[layer, *IDS[token, layer].tolist()] for token in range(3) for layer in range(2)]),
    ),
    "route-sim": ("a.jsonl", _routes("experts", t=lambda token, layer: token, layer=lambda token, layer: layer)),
    "regolith": ("a.bin", regolith_bytes()),
    "training-csv": ("a.csv", b"Step,x_layer0_expert0,x_layer0_expert1\n1,4,5\n2,6,7\n"),
    "deepspeed-counts": ("a.json", document({"exp_counts": [[LOADS[0]], [LOADS[1]]]})),
    "jsonl": (
        "a.jsonl",
        _routes(
            "experts",
            problem_id=lambda token, layer: 0,
            token_idx=lambda token, layer: token,
            layer=lambda token, layer: layer,
            gating_probs=lambda token, layer: [0.75, 0.25],
        ),
    ),
    "vllm-routes": (
        "a.jsonl",
        document({"type": "meta", "model_id": "m", "layers_logged": [0, 1], "top_k": 2})
        + b"\n"
        + _routes(
            "topk_ids",
            type=lambda token, layer: "route",
            req_id=lambda token, layer: "r1",
            token_idx=lambda token, layer: token,
            layer=lambda token, layer: layer,
            topk_weights=lambda token, layer: [0.5 + token / 10, 0.25],
        ),
    ),
    "csv-counts-1": ("a.csv", b"step,layer,expert,count\n0,3,0,7\n0,3,2,4\n1,3,0,1\n"),
    "parquet-counts": ("a.parquet", table(layer=[0, 0, 1], expert=[0, 1, 1], count=[5, 6, 7])),
    "moesim-trace": ("a.parquet", trace()),
    "npy-counts": ("a.npy", array(np.array([[[1, 2, 3, 1], [0, 0, 5, 2]]] * 2))),
    "npy-logits": ("a.npy", array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))),
}
"""By name: a file name and its bytes."""
