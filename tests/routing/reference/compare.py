"""Logits to compare on, and what it means that our result is that of a reference.

A reference leaves open which of equal scores it takes, so experts are compared
as sets, exactly, on every row whose cut between the last expert in and the
first one out is not a tie of two equal float32 scores; and on all rows where
torch is made to take the lowest index first (fixture `lowest_first`).

One difference is by design. References rank by softmax probabilities; we rank
by logits, whose order is the same except for probabilities that underflow or
round to one number. On rows where different logits tie at the cut in this way
the chosen probabilities must be equal, not the experts.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest

from moesim import Assignment


def reference(module: str) -> ModuleType:
    """A module of a reference; a skip where its package is not installed, an error where it does not import."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what else is not installed
        return importlib.import_module(module)


torch = reference("torch")
torch.set_num_threads(1)  # rows are few: threads would wait for each other

TOKENS = 300
FAMILIES = ("normal", "quantised", "bfloat16", "extreme", "degenerate")
SIZES = ((8, 1), (8, 2), (60, 4), (64, 6), (64, 8), (128, 4), (128, 8), (256, 8), (256, 1), (512, 16))
GROUPED = ((60, 4, 6, 2), (64, 6, 8, 3), (128, 4, 4, 2), (256, 8, 8, 4), (512, 16, 8, 8))
"""(E, k, groups, groups kept)"""
DROPPED_SIZES = ((8, 1), (8, 2), (64, 6), (128, 8), (512, 16))
FACTORS = (0.3, 1.0, 1.25, 5.0)


def logits(family: str, n_experts: int, *, seed: int = 0, n_tokens: int = TOKENS) -> np.ndarray:
    """Float32 logits [T, E] of a family.

    quantised: to 0.5, with many ties; bfloat16: with 8 bits of precision;
    extreme: times 10^4, half of the rows of few values at which exponentials
    overflow or sigmoids saturate; degenerate: all experts equal.
    """
    rng = np.random.default_rng([seed, n_experts, FAMILIES.index(family)])
    x = rng.normal(size=(n_tokens, n_experts))
    if family == "quantised":
        x = np.round(x * 2) / 2
    if family == "extreme":
        x *= 1e4
        x[::2] = rng.choice([-1e4, -100, -20, 0, 20, 100, 1e4], size=x[::2].shape)
    if family == "degenerate":
        x[:] = rng.choice([-1e4, -20, 0, 1.5, 1e4], size=(n_tokens, 1))
    x = x.astype(np.float32)
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) if family == "bfloat16" else x


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Experts [T, K] and weights [T, K] of a reference, the scores [T, E] it ranked, and those of groups [T, G].

    Scores outside the groups that it kept are what it filled in for them.
    """

    expert: np.ndarray
    weight: np.ndarray
    score: np.ndarray
    group_score: np.ndarray | None = None
    groups_kept: int = 0


def grouped(
    expert: np.ndarray,
    weight: np.ndarray,
    score: np.ndarray,
    *,
    n_group: int,
    topk_group: int,
    best_in_group: int,
    fill: float = -np.inf,
) -> Chosen:
    """Of a reference that scores a group by the sum of its best, and fills in `fill` outside the groups it keeps."""
    by_group = np.sort(score.reshape(len(score), n_group, -1), axis=-1)
    group_score = by_group[:, :, -best_in_group:].sum(axis=-1)
    best = np.argsort(-group_score, axis=1, kind="stable")[:, :topk_group]
    within = np.repeat(kept_of(best, n_group), score.shape[1] // n_group, axis=1)
    return Chosen(
        expert=expert,
        weight=weight,
        score=np.where(within, score, np.float32(fill)),
        group_score=group_score,
        groups_kept=topk_group,
    )


def check_chosen(
    got: Assignment, reference: Chosen, *, lowest_first: bool, ranked_by: np.ndarray | None = None
) -> np.ndarray:
    """Compare experts and weights; the rows [T] whose experts had to be equal.

    `ranked_by` [T, E] are the logits, for a reference that ranks by their softmax.
    """
    order, expected_order = np.argsort(got.expert, axis=1), np.argsort(reference.expert, axis=1)
    expert, expected = _take(got.expert, order), _take(reference.expert, expected_order)
    weight, expected_weight = _take(got.weight, order), _take(reference.weight, expected_order)
    k = expert.shape[1]
    open_groups = np.zeros(len(expert), dtype=bool)
    if reference.group_score is not None:
        per_group = None
        if ranked_by is not None:
            per_group = ranked_by.reshape(*reference.group_score.shape, -1).max(axis=-1)
        open_groups = _open(reference.group_score, reference.groups_kept, per_group, lowest_first)
    rows = ~open_groups & ~_open(reference.score, k, ranked_by, lowest_first)
    np.testing.assert_array_equal(expert[rows], expected[rows])
    np.testing.assert_allclose(weight[rows], expected_weight[rows], rtol=5e-6, atol=1e-37)
    # where either of two experts would do, theirs is as good as ours
    np.testing.assert_array_equal(
        np.sort(_take(reference.score, expert)[~open_groups]), np.sort(_take(reference.score, expected)[~open_groups])
    )
    if ranked_by is not None:
        np.testing.assert_allclose(
            np.sort(weight[~open_groups]), np.sort(expected_weight[~open_groups]), rtol=5e-6, atol=1e-37
        )
    return np.asarray(rows)


def tied(score: np.ndarray, k: int) -> np.ndarray:
    """The rows [T] of score [T, N] whose k-th largest equals the next."""
    if k >= score.shape[1]:
        return np.zeros(len(score), dtype=bool)
    ranked = np.sort(score, axis=1)
    return np.asarray(ranked[:, -k] == ranked[:, -k - 1])


def _open(score: np.ndarray, k: int, ranked_by: np.ndarray | None, lowest_first: bool) -> np.ndarray:
    """Rows on which the reference may take another of equal scores than we do."""
    ties = tied(score, k)
    if not lowest_first:
        return ties
    if ranked_by is None:
        return np.zeros(len(score), dtype=bool)
    at_cut = score == np.sort(score, axis=1)[:, -k, None]
    least = ranked_by.min(axis=1, where=at_cut, initial=np.inf)
    most = ranked_by.max(axis=1, where=at_cut, initial=-np.inf)
    return np.asarray(ties & (least < most))


def _take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, columns.astype(np.int64), axis=1)


def softmax(x: np.ndarray) -> np.ndarray:
    """As the references compute it, [T, E]."""
    return np.asarray(torch.softmax(torch.from_numpy(x), dim=-1, dtype=torch.float32))


def kept_of(expert: np.ndarray, n_experts: int) -> np.ndarray:
    """Which pairs [T, E] are served by experts [T, K], -1 = none."""
    kept = np.zeros((len(expert), n_experts + 1), dtype=bool)
    np.put_along_axis(kept, expert.astype(np.int64), True, axis=1)
    return kept[:, :-1]


def check_kept(ours: np.ndarray, theirs: np.ndarray, weight: np.ndarray, capacity: int, *, lowest_first: bool) -> float:
    """Compare pairs kept [T, E] by the weight [T, E] of those asked for; the share of experts that had to be equal.

    Published code ranks all tokens of an expert, with 0 for those that did not
    ask, so that a pair whose weight underflowed to 0 may lose its place to one
    that nobody asked for. We serve it; only pairs of some weight are compared.
    """
    some = weight > 0
    np.testing.assert_array_equal((ours & some).sum(axis=0), (theirs & some).sum(axis=0))
    defined = lowest_first | ~tied(weight.T, capacity) | (some.sum(axis=0) <= capacity)
    np.testing.assert_array_equal((ours & some)[:, defined], (theirs & some)[:, defined])
    assert (theirs.sum(axis=0) <= ours.sum(axis=0)).all()
    assert (theirs <= ours).all() or not lowest_first
    return float(defined.mean())


def check_flags(got: Assignment) -> None:
    """Every choice is served or dropped, not both."""
    asked = got.expert >= 0
    np.testing.assert_array_equal(got.served >= 0, asked & ~got.dropped)


def no_choices(n_tokens: np.ndarray, top_k: int) -> tuple[Assignment, np.ndarray]:
    """Sequences of so many tokens that ask for nothing, whose capacity is of interest; the sequence of each token."""
    expert = np.full((int(n_tokens.sum()), top_k), -1, dtype=np.int32)
    request = Assignment.of(expert, np.zeros(expert.shape, dtype=np.float32))
    return request, np.repeat(np.arange(len(n_tokens)), n_tokens)


def chosen_of(chosen: np.ndarray, k: int) -> np.ndarray:
    """The K experts of each token, by index, from pairs [T, E]."""
    return np.nonzero(chosen)[1].reshape(-1, k)


def spread(n_experts: int, around: float = 0.0) -> np.ndarray:
    """A selection bias [E] of few values, which make ties."""
    values = np.random.default_rng(n_experts).normal(size=n_experts)
    return (around + np.round(values * 4) / 32).astype(np.float32)
