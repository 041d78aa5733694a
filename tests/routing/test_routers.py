"""Routers equal plain NumPy references, on random, tied and extreme logits."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import moesim
from moesim.errors import InputError
from tests.interpreted import enough


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The k best columns of each row, the lowest index first among equals."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def softmax(x: np.ndarray) -> np.ndarray:
    """In float64, over the last axis."""
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def logits(max_experts: int = 24) -> st.SearchStrategy[np.ndarray]:
    """Matrices of random, heavily tied or extreme float32 logits."""
    values = st.one_of(
        st.floats(-20, 20, width=32),
        st.sampled_from([0.0, 1.0, -1.0]),
        st.sampled_from([3.0e38, -3.0e38, 1e-30, 80.0, -80.0]).map(lambda x: float(np.float32(x))),
    )
    shapes = st.tuples(st.integers(0, 12), st.integers(1, max_experts))
    return shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=values))


@given(logits(), st.booleans(), st.integers(1, 8))
def test_softmax_top_k_is_the_softmax_of_the_best(x: np.ndarray, normalise: bool, k: int) -> None:
    """Experts are the k best logits; weights their probabilities, normalised or not."""
    k = min(k, x.shape[1])
    got = moesim.route(x, strategy="softmax-top-k", top_k=k, norm_topk_prob=normalise)
    np.testing.assert_array_equal(got.expert, best(x, k))
    weight = np.take_along_axis(softmax(x), best(x, k), axis=1)
    if normalise:
        weight = softmax(np.take_along_axis(x, best(x, k), axis=1))
    np.testing.assert_allclose(got.weight, weight, rtol=5e-6, atol=1e-35)


@given(logits(), st.integers(1, 8))
def test_mixtral_is_the_softmax_over_the_chosen(x: np.ndarray, k: int) -> None:
    """The weights of a token sum to one."""
    k = min(k, x.shape[1])
    got = moesim.route(x, strategy="mixtral", top_k=k)
    np.testing.assert_array_equal(got.expert, best(x, k))
    weight = softmax(np.take_along_axis(x, best(x, k), axis=1))
    np.testing.assert_allclose(got.weight, weight, rtol=5e-6, atol=1e-35)


@given(logits())
def test_switch_is_the_argmax_with_its_probability(x: np.ndarray) -> None:
    """Top-1, never renormalised."""
    got = moesim.route(x, strategy="switch", top_k=1)
    np.testing.assert_array_equal(got.expert, best(x, 1))
    np.testing.assert_allclose(got.weight, np.take_along_axis(softmax(x), best(x, 1), axis=1), rtol=5e-6, atol=1e-35)


def deepseek_v3(
    x: np.ndarray, bias: np.ndarray, k: int, groups: int, kept: int, scale: float, norm: bool
) -> tuple[Any, ...]:
    """The reference, in float32 as the published code; also the gap at each cut, by which a row is tied or not."""
    with np.errstate(over="ignore"):
        s = (np.float32(1) / (np.float32(1) + np.exp(-x))).astype(np.float32)
    c = s + bias
    by_group = c.reshape(len(x), groups, -1)
    gap = np.full(len(x), np.inf)
    if kept < groups:
        two_best = -np.sort(-by_group, axis=2)[:, :, :2]
        score = two_best.sum(axis=2, dtype=np.float32)
        ordered = -np.sort(-score, axis=1)
        gap = ordered[:, kept - 1] - ordered[:, kept]
        mask = np.zeros_like(score, dtype=bool)
        np.put_along_axis(mask, best(score, kept), True, axis=1)
        c = np.where(np.repeat(mask, by_group.shape[2], axis=1), c, -np.inf)
    ordered = -np.sort(-c, axis=1)
    with np.errstate(invalid="ignore"):
        for j in range(min(k, c.shape[1] - 1)):
            gap = np.minimum(gap, np.nan_to_num(ordered[:, j] - ordered[:, j + 1], nan=np.inf, posinf=np.inf))
    expert = best(c, k)
    w = np.take_along_axis(s, expert, axis=1)
    if norm:
        w = w / (w.sum(axis=1, keepdims=True) + np.float32(1e-20))
    return expert, w * np.float32(scale), gap


@pytest.mark.parametrize("groups, kept", [(1, 1), (8, 4), (8, 8), (4, 1)])
@pytest.mark.parametrize("norm", [True, False])
def test_deepseek_v3_equals_its_reference(groups: int, kept: int, norm: bool) -> None:
    """Experts are equal on every row whose scores are apart by more than rounding, weights to 5e-6."""
    rng = np.random.default_rng(groups * 10 + kept)
    x = rng.normal(scale=2, size=(2000, 64)).astype(np.float32)
    bias = rng.normal(scale=0.2, size=64).astype(np.float32)
    expert, weight, gap = deepseek_v3(x, bias, 6, groups, kept, 2.5, norm)
    got = moesim.route(
        x,
        strategy="deepseek-v3",
        top_k=6,
        n_group=groups,
        topk_group=kept,
        routed_scaling_factor=2.5,
        norm_topk_prob=norm,
        bias=bias,
    )
    clear = gap > 1e-6
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(got.expert[clear], expert[clear])
    np.testing.assert_allclose(got.weight[clear], weight[clear], rtol=5e-6)


@given(logits(), st.integers(1, 8), st.integers(0, 3))
def test_deepseek_v3_takes_the_best_scores_where_they_are_tied_or_extreme(x: np.ndarray, k: int, seed: int) -> None:
    """Without groups: the scores of the chosen are the k largest, ties by index, weights as defined."""
    k = min(k, x.shape[1])
    bias = np.random.default_rng(seed).integers(-1, 2, x.shape[1]).astype(np.float32)
    with np.errstate(over="ignore"):
        s = (np.float32(1) / (np.float32(1) + np.exp(-x))).astype(np.float32)
    got = moesim.route(x, strategy="deepseek-v3", top_k=k, bias=bias)
    chosen = np.take_along_axis(s + bias, got.expert, axis=1)
    np.testing.assert_allclose(chosen, -np.sort(-(s + bias), axis=1)[:, :k], rtol=0, atol=3e-7)
    tied = chosen[:, 1:] == chosen[:, :-1]
    same_score = np.take_along_axis(x, got.expert, axis=1)
    tied &= same_score[:, 1:] == same_score[:, :-1]
    assert (np.diff(got.expert, axis=1)[tied] > 0).all()
    weight = np.take_along_axis(s, got.expert, axis=1).astype(np.float64)
    weight /= weight.sum(axis=1, keepdims=True) + 1e-20
    np.testing.assert_allclose(got.weight, weight, rtol=5e-6, atol=1e-30)


def test_deepseek_v3_prefers_the_lowest_index_among_saturated_scores() -> None:
    """Sigmoids of large logits are equal in float32: the first group and the first experts win."""
    x = np.full((3, 16), 100.0, dtype=np.float32)
    got = moesim.route(x, strategy="deepseek-v3", top_k=3, n_group=4, topk_group=2)
    np.testing.assert_array_equal(got.expert, [[0, 1, 2]] * 3)
    np.testing.assert_allclose(got.weight, 1 / 3, rtol=5e-6)


def test_deepseek_v3_bias_selects_but_does_not_weigh() -> None:
    """A biased expert is chosen, its weight is the score without the bias."""
    x = np.array([[2.0, 1.0, 0.0, -1.0]], dtype=np.float32)
    got = moesim.route(x, strategy="deepseek-v3", top_k=1, norm_topk_prob=False, bias=[0, 0, 0, 5])
    assert got.expert.tolist() == [[3]]
    np.testing.assert_allclose(got.weight, 1 / (1 + np.exp(1.0)), rtol=5e-6)


def test_deepseek_v3_chooses_among_negative_corrected_scores() -> None:
    """Groups that were not kept stay out even where every bias is below -1."""
    x = np.array([[5.0, 5.0, 0.0, 0.0]], dtype=np.float32)
    got = moesim.route(x, strategy="deepseek-v3", top_k=2, n_group=2, topk_group=1, bias=[-3.0] * 4)
    assert got.expert.tolist() == [[0, 1]]


def test_random_draws_every_set_of_experts_alike() -> None:
    """Choices are distinct, uniform, a function of the seed and not of the logits."""
    x = np.zeros((enough(30_000), 6), dtype=np.float32)
    got = moesim.route(x, strategy="random", top_k=2, seed=3)
    assert (got.expert[:, 0] != got.expert[:, 1]).all()
    pairs = np.bincount(got.expert[:, 0] * 6 + got.expert[:, 1], minlength=36).reshape(6, 6)
    expected = len(x) / 30
    off_diagonal = pairs[~np.eye(6, dtype=bool)]
    assert ((off_diagonal - expected) ** 2 / expected).sum() < 58.3  # chi-square, 29 degrees of freedom, p = 0.001
    np.testing.assert_array_equal(got.expert, moesim.route(x + 1, strategy="random", top_k=2, seed=3).expert)
    assert (got.expert != moesim.route(x, strategy="random", top_k=2, seed=4).expert).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"strategy": "mixtrall", "top_k": 2}, "did you mean mixtral"),
        ({"strategy": "mixtral", "top_k": 9}, "top_k: found 9, wanted 1 to the 8 experts"),
        ({"strategy": "mixtral", "top_k": 0}, "top_k: found 0, wanted 1 to the 8 experts"),
        ({"strategy": "switch", "top_k": 2}, "top_k: found 2, wanted 1, as switch"),
        ({"strategy": "mixtral", "top_k": 2, "temperature": 1.0}, "not temperature"),
        (
            {"strategy": "softmax-top-k", "top_k": 2, "norm_topk_prob": 1},
            "norm_topk_prob: found 1, wanted true",
        ),
        (
            {"strategy": "deepseek-v3", "top_k": 2, "n_group": 3},
            "n_group: found 3, wanted a number that divides",
        ),
        (
            {"strategy": "deepseek-v3", "top_k": 2, "n_group": 8, "topk_group": 9},
            "topk_group: found 9, wanted 1 to",
        ),
        (
            {"strategy": "deepseek-v3", "top_k": 5, "n_group": 2, "topk_group": 1},
            "top_k: found 5, wanted at most",
        ),
        ({"strategy": "deepseek-v3", "top_k": 2, "bias": [1.0]}, r"bias: found shape \(1,\), wanted shape \(8,\)"),
        ({"strategy": "deepseek-v3", "top_k": 2, "bias": [np.nan] * 8}, "bias: found nan, wanted finite"),
        ({"strategy": "random", "top_k": 2, "bias": [1.0] * 8}, "bias: found one for random, wanted none"),
        ({"strategy": "mixtral", "top_k": 2, "score": "tanh"}, "score: found tanh, wanted one of softmax, "),
        ({"strategy": "mixtral", "top_k": 2, "norm_epsilon": -1.0}, "norm_epsilon: found -1.0, wanted 0 or more"),
        ({"strategy": "mixtral", "top_k": 2, "n_grup": 1}, "did you mean n_group"),
        ({"strategy": "mixtral", "top_k": 2.0}, "top_k: found 2.0, wanted a whole number"),
        ({"strategy": "random", "top_k": 2, "seed": 1.5}, "seed: found 1.5, wanted a whole number"),
        ({"strategy": "random", "top_k": 2, "seed": 2**64}, "seed: found 18446744073709551616, wanted a whole number"),
        ({"strategy": "mixtral", "top_k": 2, "token_ids": [1.5, 2.5]}, "token_ids: found float64"),
        (
            {"strategy": "mixtral", "top_k": 1, "n_group": 4, "topk_group": 2, "group_score": "top-k-sum"},
            r"topk_group: found 2, wanted at most top_k \(1\)",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The error says what would be right, and is a ValueError."""
    with pytest.raises(InputError, match=message):
        moesim.route(np.zeros((2, 8)), **arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    """NaN would make every comparison false and the choice a matter of chance."""
    with pytest.raises(ValueError, match="finite"):
        moesim.route([[0.0, bad]], strategy="mixtral", top_k=1)
    wrong: Any
    for wrong in ([0.0, 1.0], [["a"]], [[1.0, 2.0], [3.0]], None):
        with pytest.raises(InputError, match="shape"):
            moesim.route(wrong, strategy="mixtral", top_k=1)
    with pytest.raises(InputError, match="logits: found complex128, wanted real numbers"):
        moesim.route([[0.0, 1j]], strategy="mixtral", top_k=1)


def test_masked_experts_are_never_chosen_while_others_are_left() -> None:
    """Whatever their logits; the weights are those of the others alone."""
    asked: dict[str, Any] = {"strategy": "softmax-top-k", "top_k": 2}
    got = moesim.route([[9.0, 0.0, 1.0, 9.0]], mask=[[False, True, True, False]], **asked)
    assert got.expert.tolist() == [[2, 1]]
    np.testing.assert_allclose(got.weight, softmax(np.array([[1.0, 0.0]])), rtol=1e-6)
    for mask, message in (
        ([[True, True]], "mask: found bool of shape"),
        ([[1, 1, 1, 1]], "mask: found int64 of shape"),
        ([[True, False, False, False]], "mask: found 1 experts for token 0, wanted top_k"),
    ):
        with pytest.raises(ValueError, match=message):
            moesim.route(np.zeros((1, 4)), mask=mask, **asked)


@pytest.mark.parametrize(
    "name, bias", [("deepseek-v3", [0, -0.1, -0.1, -0.1]), ("longcat", [0, -0.5, -0.5, -0.5]), ("mixtral", [0] * 4)]
)
def test_a_masked_expert_is_not_chosen_for_its_bias(name: str, bias: list[float]) -> None:
    """Its score is 0, which is more than the scores with a negative bias of those within reach."""
    got = moesim.route(np.full((1, 4), -3.0), strategy=name, top_k=2, bias=bias, mask=[[False, True, True, True]])
    assert got.expert.tolist() == [[1, 2]]


@pytest.mark.parametrize("masked_score", ["-inf", "0"])
def test_groups_without_experts_within_reach_are_refused(masked_score: str) -> None:
    """The best group has one, a token needs two; with another group all is well, and what is masked stays out."""
    mask = np.ones((1, 8), dtype=bool)
    mask[0, 1] = False
    asked: dict[str, Any] = {
        "strategy": "mixtral",
        "top_k": 2,
        "n_group": 4,
        "mask": mask,
        "masked_score": masked_score,
    }
    logits = [[5.0, 4, -1, -1, -1, -1, -1, -1]]
    if masked_score == "-inf":
        with pytest.raises(InputError, match="mask: found fewer experts for token 0, wanted top_k"):
            moesim.route(logits, topk_group=1, **asked)
    assert moesim.route(logits, topk_group=2, **asked).expert.tolist() == [[0, 4 if masked_score == "0" else 2]]


def test_numbers_of_numpy_are_numbers() -> None:
    """Counts, seeds and parameters may be NumPy's."""
    x = np.zeros((2, 8))
    asked = {"n_group": np.int64(2), "norm_topk_prob": np.bool_(True), "routed_scaling_factor": np.float32(2)}
    got = moesim.route(
        x, strategy="softmax-top-k", top_k=cast("int", np.int64(2)), seed=cast("int", np.int64(3)), **asked
    )
    np.testing.assert_array_equal(got.weight, np.ones((2, 2), dtype=np.float32))
