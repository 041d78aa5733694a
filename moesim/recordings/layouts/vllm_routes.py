"""Route logs of vLLM: one line a (token of a forward pass, layer), with dummy tokens of warm-up passes.

`token_idx` counts the tokens of one forward pass, and `req_id` may be one
constant: a token is known by its pass, and each time that `token_idx` starts
again a pass begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.json_lines import LAYER, MAX_WEIGHT, Field, KeyCodes, expert_list, read_rows
from moesim.recordings.layout import TOKEN_BITS, ChoiceBlock, ImportJob, Layout
from moesim.recordings.sample import Sample

FIELDS = (
    Field(name="req_id", kind="key"),
    Field(name="token_idx"),
    LAYER,
    expert_list("topk_ids"),
    Field(name="topk_weights", kind="numbers", maximum=MAX_WEIGHT, as_long_as="topk_ids", optional=True),
)


@dataclass
class _LayerPasses:
    """The passes of one layer of a file: the last token, the passes so far, and a digest of all that came."""

    last: int = -1
    passes: int = -1
    digest: Any = field(default_factory=hashlib.sha256)

    def steps(self, token_idx: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pass of each further row of the layer."""
        begins = token_idx <= np.r_[self.last, token_idx[:-1]]
        begins[0] |= self.passes < 0
        steps = self.passes + np.cumsum(begins)
        self.last, self.passes = int(token_idx[-1]), int(steps[-1])
        self.digest.update(np.ascontiguousarray(token_idx).tobytes())
        return np.asarray(steps)


@dataclass
class _Run:
    """Files that record different layers of the same passes, by layer, and the number of its first step."""

    first_step: int
    layers: dict[int, tuple[Path, bytes]] = field(default_factory=dict)
    n_steps: int = 0


def _recognises(sample: Sample) -> bool:
    return sample.has("topk_ids", "token_idx", "layer") or sample.has("layers_logged", "top_k")


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    run = _Run(first_step=0)
    requests = KeyCodes()
    for path in job.files:
        passes: dict[int, _LayerPasses] = {}
        rows_of_file = read_rows(path, FIELDS, keys={"req_id": requests}, only=("type", "route"), progress=job.progress)
        for rows in rows_of_file:
            if not passes and set(np.unique(rows["layer"]).tolist()) & set(run.layers):
                run = _Run(first_step=run.first_step + run.n_steps)
            step = np.empty(len(rows.lines), dtype=np.int64)
            for layer in np.unique(rows["layer"]).tolist():
                of_layer = rows["layer"] == layer
                step[of_layer] = passes.setdefault(layer, _LayerPasses()).steps(rows["token_idx"][of_layer])
            step += run.first_step
            yield ChoiceBlock(
                token=(step << TOKEN_BITS) + rows["token_idx"],
                layer=rows["layer"],
                expert=rows["topk_ids"],
                weight=rows.get("topk_weights"),
                step=step,
                sequence=rows["req_id"],
                where=rows.where,
            )
        for layer, found in passes.items():
            _check_same_passes(run, path, layer, found.digest.digest())
            run.layers[layer] = path, found.digest.digest()
            run.n_steps = max(run.n_steps, found.passes + 1)
    job.note(f"each time that token_idx starts again a forward pass begins: {run.first_step + run.n_steps} steps")
    if len(requests.codes) == 1:
        job.note("req_id is the same in all rows: which tokens are of one sequence is not known")


def _check_same_passes(run: _Run, path: Path, layer: int, digest: bytes) -> None:
    """Refuse layers of different passes, whose tokens would be taken for the same."""
    for other, (file, known) in run.layers.items():
        if digest != known:
            raise TraceError(
                f"{path}: found layer {layer} of other passes than layer {other} in {file.name}, wanted the same "
                "tokens in all layers: import each apart"
            )


VLLM_ROUTES = Layout(
    name="vllm-routes",
    summary="route log of vLLM: JSON lines of type route with req_id, token_idx, layer, topk_ids and topk_weights",
    recognises=_recognises,
    read=_read,
)
