"""Dummy tokens of warm-up passes are found; real tokens, however skewed, are kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim.recordings import ImportOptions, read_recordings
from moesim.recordings.warm_up import dummy_tokens, without_tokens
from moesim.types import Trace, token_columns


def trace(expert: Any, weight: Any = None) -> Trace:
    """A trace of choices [L, T, K]."""
    expert = np.asarray(expert, dtype=np.int32)
    return Trace(
        expert=expert,
        weight=None if weight is None else np.asarray(weight, dtype=np.float32),
        layer_ids=tuple(range(len(expert))),
        n_experts=60,
        **token_columns(expert.shape[1], position=np.arange(expert.shape[1])),
    )


def zipf_tokens(rng: np.random.Generator, n_tokens: int, top_k: int, exponent: float) -> NDArray[np.int32]:
    """Choices [T, K] of 8 experts, popular as Zipf's law with this exponent says."""
    logits = -exponent * np.log(np.arange(1, 9)) + rng.gumbel(size=(n_tokens, 8))
    return np.argsort(-logits, axis=1)[:, :top_k].astype(np.int32)


def test_long_runs_of_one_route_are_found_wherever_they_stand() -> None:
    """200 dummies at the start and, of the same route, 40 in the middle; 100 real tokens on both sides stay."""
    rng = np.random.default_rng(0)
    real = zipf_tokens(rng, 200, 2, 1.0)
    dummy = np.tile([[3, 5]], (200, 1))
    expert = np.concatenate([dummy, real[:100], dummy[:40], real[100:]])
    found = dummy_tokens(trace(expert[None]))
    assert np.flatnonzero(found).tolist() == [*range(200), *range(300, 340)]
    left = without_tokens(trace(expert[None]), found)
    assert left.expert[0].tolist() == real.tolist()
    assert left.position.tolist() == [*range(200, 300), *range(340, 440)]


def test_the_warm_up_of_two_recordings_is_found_in_each() -> None:
    """Two servers that warm up alike: their equal runs are no evidence for each other."""
    rng = np.random.default_rng(2)
    expert = np.concatenate([np.tile([[3, 5]], (500, 1)), zipf_tokens(rng, 200, 2, 1.0)])
    weight = rng.random((700, 2))
    weight[:500] = weight[0]
    twice = trace(np.concatenate([expert, expert])[None], np.concatenate([weight, weight])[None])
    assert np.flatnonzero(dummy_tokens(twice)).tolist() == [*range(500), *range(700, 1200)]


def test_equal_weights_tell_a_short_run() -> None:
    """Four tokens with the same experts and the same weights are dummies, with other weights they are not."""
    rng = np.random.default_rng(1)
    expert = np.tile([[1, 2]], (60, 1))
    expert[4:] = zipf_tokens(rng, 56, 2, 0.5)
    weight = rng.random((60, 2))
    assert not dummy_tokens(trace(expert[None], weight[None])).any()
    weight[:4] = weight[0]
    assert np.flatnonzero(dummy_tokens(trace(expert[None], weight[None]))).tolist() == [0, 1, 2, 3]


def test_a_recording_of_one_route_alone_is_kept() -> None:
    """There is nothing that would tell these tokens from real ones."""
    assert not dummy_tokens(trace(np.tile([[0, 1]], (1, 64, 1)))).any()


def test_routes_are_those_of_all_layers() -> None:
    """A layer whose tokens all choose alike is no sign of dummies where another one tells them apart."""
    rng = np.random.default_rng(2)
    expert = np.stack([np.tile([[0, 1]], (500, 1)), zipf_tokens(rng, 500, 2, 0.0)])
    assert not dummy_tokens(trace(expert)).any()


@pytest.mark.parametrize("top_k, exponent", [(1, 0.0), (1, 1.0), (1, 4.0), (2, 3.0)])
def test_real_tokens_are_kept(top_k: int, exponent: float) -> None:
    """At most one in a thousand recordings of independent tokens loses any: of 200 more than 3 have odds below 1e-4.

    With the highest exponent nine of ten tokens choose the same expert, in runs of up to a hundred.
    """
    lost = sum(
        bool(dummy_tokens(trace(zipf_tokens(np.random.default_rng(seed), 1_000, top_k, exponent)[None])).any())
        for seed in range(200)
    )
    assert lost <= 3


@pytest.mark.parametrize("keep", [False, True])
def test_an_import_says_what_it_left_out(tmp_path: Path, keep: bool) -> None:
    """A pass of 20 dummies, one of 5 real tokens; the switch keeps all."""
    rng = np.random.default_rng(3)
    rows = [(i, [4, 7], [0.5, 0.25]) for i in range(20)]
    rows += [(i, [i, i + 1], rng.random(2).tolist()) for i in range(5)]
    lines = [
        {"type": "route", "req_id": "r", "token_idx": i, "layer": 3, "topk_ids": ids, "topk_weights": weights}
        for i, ids, weights in rows
    ]
    path = tmp_path / "routes.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in [{"type": "meta", "top_k": 2}, *lines]), encoding="utf-8")
    found = read_recordings([path], ImportOptions(keep_warm_up=keep))
    assert isinstance(found, Trace)
    assert (found.n_tokens, found.layer_ids, found.step.min()) == (25 if keep else 5, (3,), 0 if keep else 1)
    said = "20 of 25 tokens are of warm-up or padding"
    assert any(note.startswith(said) for note in found.notes) is not keep
    assert found.step.tolist()[-5:] == [1] * 5


@pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of recordings")
def test_the_recordings() -> None:
    """Qwen1.5-MoE: 4,357 tokens are real, and their maximum over mean is about 1.4 and not 10; Mixtral loses none."""
    folder = Path(os.environ["MOESIM_DATA"]) / "traces" / "routing"
    found = read_recordings(sorted(folder.glob("qwen1.5_moe_a2.7b_gsm8k_layer*.jsonl.gz")))
    assert isinstance(found, Trace)
    assert (found.n_tokens, found.layer_ids) == (4_357, (0, 12, 23))
    loads = [np.bincount(layer.ravel(), minlength=60) for layer in found.expert]
    assert [round(float(load.max() / load.mean()), 2) for load in loads] == [1.41, 1.45, 1.59]
    kept = read_recordings([folder / "qwen1.5_moe_a2.7b_gsm8k_layer0.jsonl.gz"], ImportOptions(keep_warm_up=True))
    assert isinstance(kept, Trace)
    load = np.bincount(kept.expert.ravel(), minlength=60)
    assert load.max() / load.mean() > 10
    mixtral = read_recordings([folder / "mixtral_8x7b_gsm8k.jsonl.gz"])
    assert isinstance(mixtral, Trace)
    assert mixtral.n_tokens == 247
