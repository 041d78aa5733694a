"""Layers that differ, as a scenario says it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError
from moesim.simulation import check

BASE = {"cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8}}


def test_layers_say_what_differs_and_are_resolved_as_they_were_written() -> None:
    """A resolved scenario has the block of the preset."""
    layers = [{"first": 0, "every": 2, "window": 128}]
    found = Scenario.from_dict({**BASE, "model": "gpt-oss-20b"})
    assert found.resolved()["model"]["layers"] == layers
    assert Scenario.from_dict(found.resolved()).model == found.model
    plain = Scenario.from_dict({**BASE, "model": {"preset": "gpt-oss-20b", "layers": []}})
    assert len(plain.model.layers) == 1


@pytest.mark.parametrize(
    "model, labelled",
    [
        ("mixtral-8x7b", set()),
        ("qwen3-next-80b-a3b", {"linear attention"}),
        ("jamba-1.5-mini", {"state spaces of Mamba-1"}),
        ("nemotron-3-nano-30b-a3b", {"state spaces of Mamba-2"}),
        ("minimax-m1", {"lightning attention"}),
        ("lfm2.5-8b-a1b", {"short convolutions"}),
        ("deepseek-v4-flash", {"compressed attention", "indexers of sparse attention"}),
        ("nllb-moe-54b", {"cross-attention"}),
    ],
)
def test_what_was_never_measured_is_labelled_as_estimated(model: str, labelled: set[str]) -> None:
    """A model without it has no such label."""
    found, plain = (Scenario.from_dict({**BASE, "model": name}).provenance for name in (model, "mixtral-8x7b"))
    assert found.keys() - plain.keys() - {"precision"} == labelled
    assert {found[name] for name in labelled} <= {"estimated: bytes and FLOPs at the published peaks"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"layers": [{"first": 24}]}, "model.layers.0.first: found 24, wanted a layer below 24"),
        ({"layers": [{"windw": 3}]}, "model.layers.0.windw: found an unknown field, wanted window"),
        ({"layers": [{}, {"n_kv_heads": 7}]}, "model.layers.1.n_kv_heads: found 7, wanted a number that divides"),
        ({"window": 3, "chunk": 7}, "model.window: found 3, wanted 0 where a chunk or an indexer limits"),
        ({"index_top_k": 9}, "model.index_top_k: found 9, wanted 0, or an indexer of index_heads and index_head_dim"),
        ({"attention": "linear"}, "model.linear_value_heads: found 0, wanted all sizes of linear attention"),
        ({"layers": 3}, "model.layers: found 3, wanted a list"),
        ({"layers": [{"indices": [3, 24]}]}, "model.layers.0.indices: found 24, wanted layers below 24"),
        ({"layers": [{"indices": [3], "every": 2}]}, "model.layers.0.indices: found (3,), wanted no first and every"),
        ({"attention": "conv"}, "model.conv_kernel: found 0, wanted the tokens of the convolution"),
        ({"attention": "compressed"}, "model.window: found 0, wanted the tokens that compressed attention sees"),
        ({"compress_ratio": 4}, "model.compress_ratio: found 4, wanted 0: only compressed attention has it"),
        ({"feed_forward": False}, "model.feed_forward: found False, wanted true in a layer with experts"),
        ({"dense_layers": [0]}, "model.intermediate_size: found 0, wanted the size of the dense layers"),
        ({"part_dtypes": {"experts": "int4"}}, "model.part_dtypes: found 'int4', wanted experts in fp4"),
        ({"part_dtypes": {"heads": "int4"}}, "model.part_dtypes.heads"),
    ],
)
def test_layers_that_cannot_be_are_refused_at_their_field(changes: dict[str, Any], message: str) -> None:
    """The field and what would be right are named."""
    model = {"preset": "gpt-oss-20b", "layers": [], **changes}
    with pytest.raises(ScenarioError, match=re.escape(message)):
        Scenario.from_dict({**BASE, "model": model})


def test_queues_refuse_experts_that_differ_by_layer() -> None:
    """A queue serves experts of one width."""
    model = {"preset": "olmoe-1b-7b", "layers": [{"first": 3, "moe_intermediate_size": 512}]}
    made = Scenario.from_dict({**BASE, "model": model, "simulation": {"experts": "queued"}})
    wanted = r"found queued, wanted grouped, as the experts of olmoe-1b-7b .* are not equally wide"
    with pytest.raises(ScenarioError, match=wanted):
        check(made)
