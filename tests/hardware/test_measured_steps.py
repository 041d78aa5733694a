"""Parts of a step out of measured tables: each at its own size and shape, the formula everywhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.calibration.lookup import with_table
from moesim.hardware import Backend, ExpertShape, backend_of, step_durations
from moesim.hardware.backends import expert_kernel
from moesim.hardware.decode import decode_seconds
from moesim.hardware.dense import elementwise_seconds, gemm_seconds
from moesim.hardware.token_loads import balanced, uniform
from moesim.types import Parallelism
from tests.hardware.measured_rows import decode, experts, latent, prefill, products, save, wide_experts
from tests.hardware.shapes import BF16, DEEPSEEK_V3, FP8, H100, MIXTRAL, cluster, work
from tests.hardware.steps import measured_by, step

TIMED = ("attention", "router", "dense", "shared_experts", "experts", "head")


def family(folder: Path, name: str = "trtllm-bf16", **tables: pd.DataFrame) -> Backend:
    """The kernels of a backend, with measured tables."""
    return with_table(backend_of(name), save(folder / "tables", **tables), H100, {})


def test_even_loads_take_what_was_measured_and_in_between_a_power_law(tmp_path: Path) -> None:
    """1 ms for 64 tokens, 4 ms for 256, so 2 ms for 128; 63 and 257 are by the formula."""
    kernels = family(tmp_path, moe=experts({64: 1.0, 256: 4.0}))
    times = {n: step(MIXTRAL, BF16, [n], kernels).experts[0, 0] for n in (63, 64, 128, 256, 257)}
    assert (times[64], times[256]) == (1e-3, 4e-3)
    assert times[128] == pytest.approx(2e-3, rel=1e-12)
    for n in (63, 257):
        assert times[n] == step(MIXTRAL, BF16, [n], None).experts[0, 0]
    slowed = "times the slowdown of the actual loads by formula"
    assert measured_by(kernels).provenance()["experts"] == (
        f"estimated: 2 of 5 sizes measured, then {slowed}, 1 of 5 sizes interpolated, then {slowed}, "
        "2 of 5 sizes by formula (outside the measured sizes)"
    )


def test_skewed_loads_take_the_measured_level_with_the_slowdown_of_the_formula(tmp_path: Path) -> None:
    """The formula's ratio to an even load."""
    kernels = family(tmp_path, moe=experts({64: 1.0}))
    skewed = [64, 30, 20, 10, 4, 0, 0, 0]
    of_formula = [step(MIXTRAL, BF16, [64], None, loads=loads).experts[0, 0] for loads in (skewed, [16] * 8)]
    found = step(MIXTRAL, BF16, [64], kernels, loads=skewed).experts[0, 0]
    assert found == pytest.approx(1e-3 * of_formula[0] / of_formula[1], rel=1e-12)
    assert found != pytest.approx(1e-3, rel=0.01)


def test_several_ranks_share_the_tokens_of_all(tmp_path: Path) -> None:
    """64 tokens on each of four ranks are 256; a rank that is delivered its rows takes what was measured."""
    kernels = family(tmp_path, "sglang-deepep-fp8", wideep_generation=wide_experts({256: 0.5}))
    loads = np.tile(uniform(256, 256, 8, 4), 4)
    assert step(DEEPSEEK_V3, FP8, [64] * 4, kernels, loads=loads).experts.tolist() == [[0.5e-3] * 4]
    # prefill runs another kernel
    plain, found = (
        step(DEEPSEEK_V3, FP8, [64] * 4, own, loads=loads, phase="prefill").experts
        for own in (backend_of("sglang-deepep-fp8"), kernels)
    )
    assert plain.tolist() == found.tolist()
    assert measured_by(kernels).sizes()["experts"] == {"measured": 1, "no rows of sglang/deepep-prefill/fp8_block": 1}


@pytest.mark.parametrize("name, table", [("moe", experts), ("wideep_context", wide_experts)])
def test_a_rank_that_was_handed_all_tokens_was_timed_with_more_than_an_exchange_delivers(
    tmp_path: Path, name: str, table: Callable[..., Any]
) -> None:
    """The measurement over the formula of what was timed, times the formula of what is delivered."""
    model, precision, phase = (MIXTRAL, BF16, "decode") if name == "moe" else (DEEPSEEK_V3, FP8, "prefill")
    own = "trtllm-bf16" if name == "moe" else "sglang-deepep-fp8"
    kernels = family(tmp_path, own, **{name: table({8192: 3.0}, moe_ep_size=4)})
    loads = (balanced if name == "moe" else uniform)(8192, model.n_experts, model.top_k, 4)
    shape = ExpertShape.of(model, n_ranks=4)
    kernel = expert_kernel(backend_of(own), H100, precision, prompts=phase == "prefill", throttled=phase == "prefill")
    mean = 8192 * model.top_k / model.n_experts
    all_tokens, delivered = (kernel.time(loads, shape, mean_load=mean, tokens=tokens) for tokens in (8192, None))
    found = step(model, precision, [2048] * 4, kernels, loads=np.tile(loads, 4), phase=phase).experts
    assert found[0] == pytest.approx([3e-3 * float(delivered) / float(all_tokens)] * 4, rel=1e-12)
    assert found[0, 0] < 3e-3


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"hidden_size": 2048}, "no rows of this shape"),
        ({"topk": 1}, "no rows of this shape"),
        ({"moe_tp_size": 2}, "no rows of this shape"),
        ({"moe_ep_size": 2}, "no rows of this shape"),
        ({"moe_dtype": "fp8"}, "no rows of trtllm/cutlass/bfloat16"),
        ({"kernel_source": "moe_triton"}, "no rows of trtllm/cutlass/bfloat16"),
    ],
)
def test_rows_of_another_shape_or_kernel_change_nothing(
    tmp_path: Path, changes: dict[str, int | str], reason: str
) -> None:
    """All parts take what the formulas say."""
    kernels = family(tmp_path, moe=experts({64: 1.0}, **changes))
    found, plain = (step(MIXTRAL, BF16, [64], k) for k in (kernels, None))
    for part in TIMED:
        assert getattr(found, part).tolist() == getattr(plain, part).tolist()
    assert measured_by(kernels).provenance()["experts"] == f"estimated: 1 of 1 sizes by formula ({reason})"


def test_other_distributions_and_artefacts_are_left_out(tmp_path: Path) -> None:
    """Rows that are flagged, and skewed ones."""
    rows = pd.concat(
        [
            experts({64: 1.0}, flag=""),
            experts({64: 9.0}, flag="spike"),
            experts({64: 9.0}, flag="", distribution="power_law_1.2"),
        ]
    )
    kernels = family(tmp_path, moe=rows)
    assert step(MIXTRAL, BF16, [64], kernels).experts[0, 0] == 1e-3


def test_networks_without_gates_and_narrower_weights_are_not_what_was_measured(tmp_path: Path) -> None:
    """They take the formula."""
    kernels = family(tmp_path, moe=experts({64: 1.0}))
    ungated = dataclasses.replace(MIXTRAL, gated=False)
    stored = dataclasses.replace(BF16, weights="fp8")
    for model, precision in ((ungated, BF16), (MIXTRAL, stored)):
        found = step(model, precision, [64], kernels).experts.tolist()
        assert found == step(model, precision, [64], backend_of("trtllm-bf16")).experts.tolist()
    assert sorted(measured_by(kernels).sizes()["experts"]) == [
        "no rows of trtllm/cutlass/bfloat16 with fp8 weights",
        "no rows of trtllm/cutlass/bfloat16 without gates",
    ]


def test_products_of_a_measured_shape(tmp_path: Path) -> None:
    """Mixtral's output projection is 4,096 x 4,096: half a millisecond for 64 rows instead of the formula's time."""
    kernels = family(tmp_path, gemm=products({64: 0.5}))
    rows = np.array([64])
    plain = gemm_seconds(
        H100,
        rows,
        4096,
        4096,
        weights="bf16",
        activations="bf16",
        kernels=backend_of("trtllm-bf16").layers(throttled=False),
    )
    found = step(MIXTRAL, BF16, [64, 64], kernels).attention - step(MIXTRAL, BF16, [64, 64], None).attention
    assert found[0].tolist() == pytest.approx([0.5e-3 - plain[0]] * 2)
    # QKV, gate and vocabulary have other shapes; idle GPUs look nothing up
    assert measured_by(kernels).sizes()["dense products"] == {"measured": 1, "no rows of this shape": 3}
    assert not step(MIXTRAL, BF16, [0], kernels).attention.any()


def test_weights_that_stay_in_the_cache_were_not_measured_as_a_step_reads_them(tmp_path: Path) -> None:
    """Rows of products that fit the L2."""
    kernels = family(tmp_path, gemm=products({64: 0.5}, weights_fit_l2=True), moe=experts({64: 1.0}))
    found, plain = (step(MIXTRAL, BF16, [64], k).attention.tolist() for k in (kernels, None))
    assert found == plain


def test_attention_in_decode_between_two_lengths_of_the_cache(tmp_path: Path) -> None:
    """8 requests: 1 ms with 500 cached tokens and 4 ms with 2,000, so 2 ms with 1,000."""
    table = pd.concat([decode({8: 1.0}, 500), decode({8: 4.0}, 2000)])
    kernels, shipped = family(tmp_path, attention_generation=table), backend_of("trtllm-bf16")
    sizes: dict[str, Any] = {"heads": 32.0, "kv_heads": 8.0, "head_width": 128.0, "cache_bytes": 2.0}
    for tokens, context, seconds in ((8, 500, 1e-3), (8, 1000, 2e-3), (9, 500, None), (8, 499, None), (8, 2001, None)):
        found, plain = (step(MIXTRAL, BF16, [tokens], k, context=context).attention[0, 0] for k in (kernels, shipped))
        constants = shipped.layers(throttled=False).decode(MIXTRAL, BF16)
        formula = decode_seconds(constants, H100, requests=np.array([tokens]), context_tokens=float(context), **sizes)
        assert found == (pytest.approx(plain - formula[0] + seconds, rel=1e-9) if seconds else plain)
    assert measured_by(kernels).sizes()["attention"] == {
        "measured": 1,
        "interpolated": 1,
        "outside the measured sizes": 3,
    }


def test_prompts_of_one_length_are_measured_together_or_alone(tmp_path: Path) -> None:
    """Two prompts of 1,024 and one of 500 have rows; two and a short one are no row of a table."""
    table = pd.concat([prefill({2: 3.0}, 1024), prefill({1: 1.0}, 500)])
    kernels = family(tmp_path, attention_context=table)
    found, plain = (step(MIXTRAL, BF16, [2048, 500, 2548, 0], k, phase="prefill").attention[0] for k in (kernels, None))
    assert found[2:].tolist() == plain[2:].tolist()
    assert (found[:2] > [3e-3, 1e-3]).all()  # projections and norms come on top
    assert (found[:2] < [3.5e-3, 1.2e-3]).all()
    assert measured_by(kernels).sizes()["attention"] == {"measured": 2, "prompts of several lengths": 1}


def test_modules_of_latent_attention_hold_their_products(tmp_path: Path) -> None:
    """TensorRT-LLM's module has all of them; that of SGLang for wide expert parallelism lacks the one down."""
    one = family(tmp_path / "a", "trtllm-fp8-block", mla_generation=latent({64: 2.0}, 1000))
    wide = latent({64: 2.0}, 1000, framework="SGLang", scope="wideep_module", kernel_source="fa3")
    two = family(tmp_path / "b", "sglang-deepep-fp8", mla_generation=wide)
    first, second = (step(DEEPSEEK_V3, FP8, [64], k).attention[0, 0] for k in (one, two))
    norms = 2 * elementwise_seconds(H100, np.array([64]), 8.0 * 7168)
    assert first == pytest.approx(2e-3 + norms[0], rel=1e-12)
    down = gemm_seconds(
        H100,
        np.array([64]),
        1536 + 576,
        7168,
        weights="fp8",
        activations="fp8",
        kernels=backend_of("sglang-deepep-fp8").layers(throttled=False),
    )
    factor = backend_of("sglang-deepep-fp8").layers(throttled=False).mla_decode(FP8).linear_factor
    assert second - first == pytest.approx(factor * down[0])
    # what the module holds was not looked up; the router's gate, dense layers, shared experts and head were
    assert measured_by(one).sizes()["attention"] == {"measured": 1}
    assert "absorbed products" not in measured_by(one).sizes()
    # an fp8 cache has no rows
    stored = dataclasses.replace(FP8, kv_cache="fp8")
    assert step(DEEPSEEK_V3, stored, [64], one).attention.tolist() == (
        step(DEEPSEEK_V3, stored, [64], backend_of("trtllm-fp8-block")).attention.tolist()
    )
    other = dataclasses.replace(DEEPSEEK_V3, q_lora_rank=1024)
    assert step(other, FP8, [64], one).attention.tolist() == (
        step(other, FP8, [64], backend_of("trtllm-fp8-block")).attention.tolist()
    )


def test_absorbed_products_have_a_table_of_their_own(tmp_path: Path) -> None:
    """One row is into the latent, the other out of it."""
    rows = experts({64: 0.3})[["system", "framework", "num_tokens", "latency_ms"]].assign(
        num_heads=128, bmm_dtype="bfloat16"
    )
    both = pd.concat([rows.assign(op_name="mla_gen_pre"), rows.assign(op_name="mla_gen_post", latency_ms=0.4)])
    kernels = family(tmp_path, "trtllm-fp8-block", mla_bmm=both)
    found, plain = (step(DEEPSEEK_V3, FP8, [64], k).attention[0, 0] for k in (kernels, backend_of("trtllm-fp8-block")))
    assert found - plain > 0.5e-3
    assert measured_by(kernels).sizes()["absorbed products"] == {"measured": 2}


def test_groups_of_ranks_are_looked_up_each_with_its_own_tokens(tmp_path: Path) -> None:
    """Two groups of two GPUs that share each expert: 64 tokens in one, 128 in the other, in rows of two slices."""
    kernels = family(tmp_path, moe=experts({64: 1.0, 256: 4.0}, moe_tp_size=2))
    made = step_durations(
        MIXTRAL,
        cluster(1, 4),
        BF16,
        work([60, 4, 64, 64], context=1000),
        slot_tokens=np.array([[16] * 8 + [32] * 8]),
        slot_rank=np.repeat([0, 2], 8).astype(np.int32),
        parallelism=Parallelism(expert=1, expert_tp=2),
        kernels=kernels,
    )
    assert made.experts[0] == pytest.approx([1e-3, 1e-3, 2e-3, 2e-3], rel=1e-12)
    assert measured_by(kernels).sizes()["experts"] == {"measured": 1, "interpolated": 1}


def test_sums_of_tensor_parallel_attention(tmp_path: Path) -> None:
    """32 tokens of each of two GPUs are 64 x 4,096 elements to add up: 0.2 ms; heads are halved."""
    rows = experts({1: 0.2})[["system", "framework", "latency_ms"]].assign(
        kernel_source="TRTLLM", num_gpus=2, allreduce_dtype="bfloat16", message_size_elements=64 * 4096
    )
    halved = decode({64: 1.0}, 1000, num_heads=16, num_key_value_heads=4)
    kernels = family(tmp_path, allreduce=rows, attention_generation=halved)
    shared = Parallelism(expert=2, attention_tp=2)
    found, plain = (step(MIXTRAL, BF16, [32, 32], k, parallelism=shared).attention for k in (kernels, None))
    assert measured_by(kernels).sizes()["all-reduce"] == {"measured": 1}
    assert measured_by(kernels).sizes()["attention"] == {"measured": 1}
    assert (found > plain + 1e-3).all()


def test_what_was_measured_on_a_whole_gpu_slows_down_as_the_formula_where_sms_are_held(tmp_path: Path) -> None:
    """By the same ratio."""
    kernels = family(tmp_path, moe=experts({16384: 30.0}))
    found = {n: step(MIXTRAL, BF16, [16384], kernels, comm_sms=n) for n in (0, 24)}
    plain = {n: step(MIXTRAL, BF16, [16384], None, comm_sms=n) for n in (0, 24)}
    assert found[0].experts[0, 0] == 30e-3
    slower = plain[24].experts[0, 0] / plain[0].experts[0, 0]
    assert 1.1 < slower < 132 / 108 * 1.01
    assert found[24].experts[0, 0] == pytest.approx(30e-3 * slower)
    # parts without a measurement are those of the formula, to the last bit
    for part in ("attention", "router", "head"):
        assert getattr(found[24], part).tolist() == getattr(plain[24], part).tolist()


def test_where_every_rank_gets_all_tokens_it_takes_what_a_rank_was_timed_with(tmp_path: Path) -> None:
    """An all-gather hands over what the collector of `moe_*` did, on any number of ranks."""
    kernels = family(tmp_path, moe=experts({256: 0.5}, moe_ep_size=4))
    found = step(MIXTRAL, BF16, [64] * 4, kernels, loads=[64] * 8, copies="all")
    assert found.experts[0].tolist() == [0.5e-3] * 4


def test_the_part_of_attention_before_its_kernel_is_no_longer_than_what_was_measured(tmp_path: Path) -> None:
    """A module of 10 us, where the formula's norm and products alone take longer."""
    kernels = family(tmp_path, "trtllm-fp8-block", mla_generation=latent({64: 0.01}, 1000))
    found = step(DEEPSEEK_V3, FP8, [64], kernels)
    assert found.attention_in[0, 0] == found.attention[0, 0] < 1.6e-5


@given(st.lists(st.integers(0, 40), min_size=8, max_size=8).filter(any), st.permutations(range(8)))
def test_permuting_experts_changes_nothing_and_an_empty_rank_takes_no_time(
    tmp_path_factory: pytest.TempPathFactory, loads: list[int], order: list[int]
) -> None:
    """Any order of the loads gives the same."""
    kernels = family(tmp_path_factory.mktemp("t"), moe=experts({16: 1.0, 1024: 7.0}))
    one = step(MIXTRAL, BF16, [160], kernels, loads=loads).experts
    other = step(MIXTRAL, BF16, [160], kernels, loads=np.array(loads)[order]).experts
    assert one.tolist() == other.tolist()
    assert not step(MIXTRAL, BF16, [160], kernels, loads=[0] * 8).experts.any()
