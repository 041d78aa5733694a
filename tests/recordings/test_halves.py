"""Fits of one half of a recording, held against the other half.

A half has every second run of 16 tokens (Mixtral) or 64 tokens (Qwen1.5-MoE), so that both have neighbours. A statistic
of generated tokens, as many and in as many sequences, is compared with the recorded one of the other half; the standard
errors of both halves make its z. Were fit and generator perfect, 5 % of all |z| would be above 1.96.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim.recordings.fitting import fit_popularity
from moesim.recordings.reading import read_recording
from moesim.recordings.statistics import Estimate, layer_statistics, token_relations
from moesim.recordings.synthetic_twin import draw_choices
from moesim.scenario.fitted import fitted_path, read_popularity
from moesim.types import Trace

DATA = Path(os.environ.get("MOESIM_DATA", "/nowhere")) / "traces" / "routing"
NAMES = ("max_violation", "cv", "entropy", "top_share", "overlap")
SEEDS = 4
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.exists(), reason="MOESIM_DATA has no recordings")]


def half(trace: Trace, which: int, run: int) -> Trace:
    """Every second run of tokens; the places keep tokens of different runs apart."""
    place = np.arange(trace.n_tokens)
    kept = place // run % 2 == which
    known = (trace.position >= 0).all() and len(np.unique(trace.sequence)) > 1
    columns = {name: getattr(trace, name)[kept] for name in ("sequence", "step", "phase", "topic")}
    position = (trace.position if known else place).astype(np.int32)[kept]
    return dataclasses.replace(trace, expert=np.ascontiguousarray(trace.expert[:, kept]), position=position, **columns)


def statistics(
    expert: NDArray[np.int32], n_experts: int, sequence: NDArray[np.int32], position: NDArray[np.int32]
) -> dict[str, list[Estimate]]:
    """By name, of each layer."""
    tokens = token_relations(sequence, np.full(len(sequence), -1, dtype=np.int32), position)
    found = [
        layer_statistics(
            np.ascontiguousarray(layer),
            layer=0,
            phase="",
            n_experts=n_experts,
            tokens=tokens,
        ).values
        for layer in expert
    ]
    return {name: [row[name] for row in found] for name in NAMES}


def z_scores(fitted_to: Trace, judged_by: Trace) -> NDArray[np.float64]:
    """(generated - recorded) / standard error, by statistic and layer."""
    fit = fit_popularity(fitted_to)
    own, other = (
        statistics(part.expert, part.n_experts, part.sequence, part.position) for part in (fitted_to, judged_by)
    )
    n_sequences = len(np.unique(judged_by.sequence))
    drawn = []
    for seed in range(100, 100 + SEEDS):
        expert, sequence, _ = draw_choices(
            fit.shares,
            fit.top_k,
            seed=seed,
            n_sequences=n_sequences,
            sequence_tokens=judged_by.n_tokens // n_sequences,
            topic_count=fit.topic_count,
            topic_strength=fit.topic_strength,
            locality=fit.locality,
        )
        drawn.append(statistics(expert, fit.n_experts, sequence, np.full(len(sequence), -1, dtype=np.int32)))
    scores = []
    for name in NAMES:
        mean = np.mean([[each.value for each in one[name]] for one in drawn], axis=0)
        value = np.array([each.value for each in other[name]])
        error = np.hypot([each.error for each in own[name]], [each.error for each in other[name]])
        scores.append((mean - value) / error)
    return np.array(scores)


def both_ways(trace: Trace, run: int) -> NDArray[np.float64]:
    """The scores of either half against the other, [2, statistics, layers]."""
    halves = half(trace, 0, run), half(trace, 1, run)
    return np.stack([z_scores(*halves), z_scores(*halves[::-1])])


def test_mixtral_is_reproduced_within_sampling_error() -> None:
    """Of 320 scores of 32 layers at most a tenth above 1.96, and the mean statistic is right to within one error."""
    trace = read_recording(DATA / "mixtral_8x7b_gsm8k.jsonl.gz")
    assert isinstance(trace, Trace)
    scores = both_ways(trace, 16)
    assert scores.size == 320
    assert (np.abs(scores) > 1.96).mean() < 0.10
    assert (np.abs(scores) > 3).mean() < 0.02
    assert np.abs(scores.mean(axis=2)).max() < 1


def test_qwen_is_reproduced_within_sampling_error() -> None:
    """Of 30 scores of three layers at most two above 1.96."""
    trace = read_recording(*sorted(DATA.glob("qwen1.5_moe_a2.7b_gsm8k_layer*.jsonl.gz")))
    assert isinstance(trace, Trace)
    scores = both_ways(trace, 64)
    assert scores.size == 30
    assert (np.abs(scores) > 1.96).sum() <= 2


@pytest.mark.parametrize("name, pattern", [("mixtral-8x7b-gsm8k", "mixtral*"), ("qwen1.5-moe-gsm8k", "qwen1.5*")])
def test_what_ships_is_what_the_command_fits(name: str, pattern: str) -> None:
    """The numbers of the shipped fits are those of the recordings that they name."""
    found = fit_popularity(read_recording(*sorted(DATA.glob(pattern))))
    shipped, _ = read_popularity(fitted_path(name))
    assert shipped.shares == pytest.approx(found.shares, rel=1e-3)
    assert shipped.locality == pytest.approx(found.locality, abs=1e-3)
    assert (shipped.topic_count, shipped.topic_strength) == pytest.approx(
        (found.topic_count, found.topic_strength), abs=1e-3
    )
