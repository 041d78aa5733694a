"""Steps in which prompts and sequences that decode share a GPU: by hand, and equal ones as before."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.hardware import step_durations
from moesim.hardware.attention import attention_in_seconds, attention_seconds
from moesim.hardware.decode import decode_seconds
from moesim.hardware.dense import elementwise_seconds, gemm_seconds
from moesim.hardware.durations import is_throttled
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.prefill import mixed_seconds
from moesim.types import AttentionWork, ModelShape, Precision, Sequences, attention_work, equal_decodes, equal_prompts
from tests.hardware.shapes import BF16, DEEPSEEK_V3, FP8, H100, MIXTRAL, cluster

KERNELS = LayerKernels()
CONTEXTS = (10, 200, 200, 3000, 5000)


def step(
    prompts: list[tuple[int, int, int]], decodes: list[tuple[int, int]], n_gpus: int = 1, *, heads_shared: int = 1
) -> AttentionWork:
    """Prompts of (GPU, new tokens, cached tokens) and sequences of (GPU, cached tokens) that decode, in one batch."""
    rows = [(gpu, new, cached, False) for gpu, new, cached in prompts]
    rows += [(gpu, 1, cached, True) for gpu, cached in decodes]
    tokens = [
        (gpu, i, cached + j, is_decode) for i, (gpu, new, cached, is_decode) in enumerate(rows) for j in range(new)
    ]
    source, sequence, context, is_decode = (np.array(column, dtype=np.int32) for column in zip(*tokens, strict=True))
    order = np.random.default_rng(3).permutation(len(tokens))  # the order of the tokens says nothing
    return attention_work(
        source[order],
        sequence[order],
        context[order],
        is_decode[order].astype(np.bool_),
        n_gpus,
        heads_shared=heads_shared,
    )


MIXED = step([(0, 100, 0), (0, 300, 0)], [(0, context) for context in CONTEXTS])


def kinds(own: Sequences, group: int = 0) -> list[tuple[int, ...]]:
    """(Count, new tokens, cached tokens) of a group."""
    columns = (getattr(own, each.name)[:, group] for each in fields(Sequences))
    return sorted(kind for kind in zip(*(each.tolist() for each in columns), strict=True) if kind[0])


def test_a_batch_is_grouped_by_gpu_and_sequence() -> None:
    """Prompts and decodes of a GPU are counted by tokens and context."""
    assert kinds(MIXED.prompts) == [(1, 100, 0), (1, 300, 0)]
    assert kinds(MIXED.decodes) == [(1, 1, 10), (1, 1, 3000), (1, 1, 5000), (2, 1, 200)]
    assert (MIXED.tokens.tolist(), MIXED.logit_rows.tolist()) == ([405], [7])
    assert (MIXED.prompt_tokens, MIXED.decode_tokens) == (400, 5)


def test_gpus_that_share_heads_have_the_sequences_of_all() -> None:
    """Both GPUs of a group attend to the same sequences."""
    shared = step([(0, 100, 0), (1, 100, 0), (3, 7, 50)], [(2, 9)], 4, heads_shared=2)
    assert kinds(shared.prompts, 0) == [(2, 100, 0)]
    assert kinds(shared.prompts, 1) == [(1, 7, 50)]
    assert (kinds(shared.decodes, 0), kinds(shared.decodes, 1)) == ([], [(1, 1, 9)])
    assert shared.tokens.tolist() == [100, 100, 1, 7]
    assert shared.group_tokens.tolist() == [200, 8]


def kernels_of(requests: float, mean: float, longest: float) -> float:
    """The kernel of Mixtral over caches, seconds."""
    return float(
        decode_seconds(
            KERNELS.decode(MIXTRAL, BF16),
            H100,
            requests=requests,
            context_tokens=mean,
            longest_tokens=longest,
            heads=32.0,
            kv_heads=8.0,
            head_width=128.0,
            cache_bytes=2.0,
        )
    )


def prompt_kernel(count: list[int], new: list[int], cached: list[int]) -> float:
    """The kernel of Mixtral over prompts, seconds."""
    return float(
        mixed_seconds(
            KERNELS.prefill(MIXTRAL, BF16),
            H100,
            prompts=np.array(count),
            prompt_tokens=np.array(new),
            cached_tokens=np.array(cached),
            heads=32.0,
            kv_heads=8.0,
            key_width=128.0,
            value_width=128.0,
            compute="bf16",
        )
    )


def test_a_mixed_step_by_hand() -> None:
    """One kernel over both prompts, one over five caches; projections, norms and everything else see 405 tokens."""
    rows = np.array([405])
    norms = 2 * elementwise_seconds(H100, rows, 8.0 * 4096, KERNELS)[0]
    products = [
        gemm_seconds(H100, rows, n, 4096, weights="bf16", activations="bf16", kernels=KERNELS)[0]
        for n in ((32 + 2 * 8) * 128, 4096)
    ]
    caches = kernels_of(5.0, sum(CONTEXTS) / 5, 5000.0)
    both = prompt_kernel([1, 1], [100, 300], [0, 0])
    found = float(attention_seconds(MIXTRAL, H100, BF16, MIXED, kernels=KERNELS)[0])
    assert found == pytest.approx(norms + sum(products) + caches + both, rel=1e-12)


def test_one_kernel_over_unlike_sequences_is_their_sum_with_one_launch() -> None:
    """As the units of all keep the SMs busy: prompts of 20,000 and 30,000 tokens, caches of 4,000 and 12,000."""
    launch = KERNELS.prefill(MIXTRAL, BF16).launch_s
    apart = prompt_kernel([1], [20_000], [0]) + prompt_kernel([1], [30_000], [0]) - launch
    assert prompt_kernel([1, 1], [20_000, 30_000], [0, 0]) == pytest.approx(apart, rel=1e-6)
    launch = KERNELS.decode(MIXTRAL, BF16).launch_s
    apart = kernels_of(300.0, 4000.0, 4000.0) + kernels_of(300.0, 12_000.0, 12_000.0) - launch
    assert kernels_of(600.0, 8000.0, 12_000.0) == pytest.approx(apart, rel=5e-3)


def test_the_longest_cache_bounds_the_kernel() -> None:
    """A GPU whose other sequences are short waits for the SMs of the long one."""
    alike, unlike = kernels_of(8.0, 8000.0, 8000.0), kernels_of(8.0, 8000.0, 57_000.0)
    assert unlike > alike


def test_a_chunk_of_a_prompt_attends_to_what_is_cached_of_it() -> None:
    """A prompt of 4,096 tokens in two halves visits as many blocks as in one piece, launch and tiles apart."""
    whole = prompt_kernel([8], [8192], [0])
    halves = prompt_kernel([8], [4096], [0]) + prompt_kernel([8], [4096], [4096])
    assert halves == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("model, precision", [(MIXTRAL, BF16), (DEEPSEEK_V3, FP8)])
def test_what_comes_before_the_kernels_is_a_part_of_a_mixed_step(model: ModelShape, precision: Precision) -> None:
    """It is positive, and below the whole."""
    before = attention_in_seconds(model, H100, precision, MIXED, kernels=KERNELS)
    assert 0 < before[0] < attention_seconds(model, H100, precision, MIXED, kernels=KERNELS)[0]


def test_latent_modules_share_their_linear_layers() -> None:
    """Between the longer of both modules and their sum: the weights are read once."""
    prompts = replace(MIXED, decodes=replace(MIXED.decodes, count=MIXED.decodes.count * 0))
    decodes = replace(MIXED, prompts=replace(MIXED.prompts, count=MIXED.prompts.count * 0))
    one, other, both = (
        float(attention_seconds(DEEPSEEK_V3, H100, FP8, own, kernels=KERNELS)[0]) for own in (prompts, decodes, MIXED)
    )
    assert max(one, other) < both < one + other


@pytest.mark.parametrize("more, throttled", [(4, False), (6, True)])
def test_a_step_is_at_the_power_limit_if_most_of_its_tokens_are_of_prompts(more: int, throttled: bool) -> None:
    """Four of nine are not; six of eleven are."""
    assert is_throttled(step([(0, more, 0)], [(0, 10)] * 5)) == throttled


def test_experts_and_head_of_a_mixed_step_see_all_tokens() -> None:
    """405 tokens: dense parts as in any step of as many at the power limit; 7 rows want a next token."""
    arguments = {"slot_tokens": np.full((32, 8), 102), "slot_rank": np.zeros(8, dtype=np.int32)}
    prompts = equal_prompts(np.array([405]), 405)
    mixed, plain = (
        step_durations(MIXTRAL, cluster(1, 1), BF16, own, **arguments)  # type: ignore[arg-type]
        for own in (MIXED, prompts)
    )
    assert (mixed.experts == plain.experts).all()
    assert (mixed.router == plain.router).all()
    seven = replace(prompts, logit_rows=np.array([7]))
    assert mixed.head == step_durations(MIXTRAL, cluster(1, 1), BF16, seven, **arguments).head  # type: ignore[arg-type]


def same_times(one: AttentionWork, other: AttentionWork) -> bool:
    """Whether all durations of two steps are equal to the last bit."""
    n_gpus = len(one.tokens)
    found = [
        step_durations(
            model,
            cluster(1, n_gpus),
            precision,
            own,
            slot_tokens=np.full((len(model.moe_layers), model.n_experts), 9),
            slot_rank=(np.arange(model.n_experts) % n_gpus).astype(np.int32),
        )
        for model, precision in ((replace(MIXTRAL, n_layers=1), BF16), (replace(DEEPSEEK_V3, n_layers=4), FP8))
        for own in (one, other)
    ]
    return all(
        (getattr(a, each.name) == getattr(b, each.name)).all()
        for a, b in zip(found[::2], found[1::2], strict=True)
        for each in fields(a)
    )


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any), st.integers(0, 9000))
def test_a_batch_of_equal_decodes_takes_what_a_scalar_context_takes(counts: list[int], context: int) -> None:
    """To the last bit, on any number of GPUs."""
    made = step([], [(gpu, context) for gpu, n in enumerate(counts) for _ in range(n)], len(counts))
    assert same_times(made, equal_decodes(np.array(counts), context))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=4).filter(any), st.integers(1, 200))
def test_a_batch_of_equal_prompts_takes_what_a_scalar_length_takes(counts: list[int], length: int) -> None:
    """The last prompt of a GPU may be short."""
    prompts = [(gpu, min(length, n - first), 0) for gpu, n in enumerate(counts) for first in range(0, n, length)]
    assert same_times(step(prompts, [], len(counts)), equal_prompts(np.array(counts), length))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60), st.integers(0, 500)), min_size=1, max_size=12))
def test_tokens_are_conserved(prompts: list[tuple[int, int, int]]) -> None:
    """Each GPU has the tokens of its prompts and decodes."""
    made = step(prompts, [(2, 7)], 3)
    expected = np.bincount([gpu for gpu, _, _ in prompts] + [2], [n for _, n, _ in prompts] + [1], 3)
    assert made.tokens.tolist() == made.group_tokens.tolist() == expected.tolist()
    assert made.logit_rows.sum() == len(prompts) + 1
