"""Which constants stand for a group of rows, and what a constant's field says of it."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.calibration.constants_file import FORMULAS
from moesim.calibration.groups import constants_for, same_exchange
from moesim.calibration.layouts.mla import same_scope
from moesim.hardware.constants import load
from moesim.hardware.constants.fitted import Limits, limits_of, searches
from moesim.hardware.kernel_dtypes import KERNEL_DTYPES, with_known_dtype


@pytest.mark.parametrize(
    "dtype, found",
    [
        ("fp8", "fp8"),
        ("nvfp4", "fp8"),
        ("w4a16_mxfp4", "bfloat16"),
        ("int4_wo", "bfloat16"),
        ("mxfp8", "fp8"),
        ("strange", "fp8"),
    ],
)
def test_a_data_type_without_constants_takes_those_of_a_similar_one(dtype: str, found: str) -> None:
    """Weights alone are widened before the product, so that they take what computes in 16 bits."""
    known = ["trtllm/cublas/bfloat16", "trtllm/cublas/fp8"]
    assert with_known_dtype(f"vllm/cublas/{dtype}", known) == f"vllm/cublas/{found}"


def test_a_group_stays_where_nothing_can_stand_in() -> None:
    """Groups of exchanges end in a direction, which no data type replaces."""
    assert with_known_dtype("sglang/deepep-ll/0.5/dispatch", ["a/b/c/combine"]) == "sglang/deepep-ll/0.5/dispatch"
    assert KERNEL_DTYPES.keys() >= {"bfloat16", "fp8", "fp8_block"}


def test_constants_stand_in_only_for_related_groups() -> None:
    """A combine never takes the constants of a dispatch, a module never those of a kernel."""
    constants = {"sglang/deepep-ll/1/dispatch": {"x": 1.0}, "sglang/deepep-ll/1/combine": {"x": 2.0}}
    assert constants_for("vllm/deepep-ll/9/combine", constants, same_exchange) == {"x": 2.0}
    assert constants_for("vllm/deepep-normal/9/combine", constants, same_exchange) is None
    kernels = {"trtllm/kernel-default/fp8": {"x": 1.0}}
    assert constants_for("trtllm/module-default/fp8_block-fp8", kernels, same_scope) is None
    assert constants_for("vllm/kernel-other/fp8", kernels, same_scope) == {"x": 1.0}


@pytest.mark.parametrize("part", sorted(FORMULAS))
def test_shipped_constants_are_those_of_the_formula_within_their_limits(part: str) -> None:
    """A constant stands at its field alone: its search begins within its range, its shipped values are taken."""
    formula: type[Any] = FORMULAS[part]
    limits = limits_of(formula)
    for name, search in searches(formula).items():
        assert search.low <= search.start <= search.high, name
    for group, constants in load(part).items():
        assert constants.keys() <= limits.keys(), group
        assert not any(limits[name].wanted(value) for name, value in constants.items()), group


@pytest.mark.parametrize(
    "limits, value, wanted",
    [
        (Limits(), -1.0, "a number of 0 or more"),
        (Limits(), float("inf"), "a number of 0 or more"),
        (Limits(positive=True), 0.0, "a number above 0"),
        (Limits(minimum=64.0), 32.0, "a number of 64 or more"),
        (Limits(minimum=1.0, power_of_two=True), 24.0, "a power of two"),
        (Limits(minimum=1.0, power_of_two=True), 32.0, ""),
    ],
)
def test_limits_say_what_a_value_should_be(limits: Limits, value: float, wanted: str) -> None:
    """A right value is wanted as it is."""
    assert limits.wanted(value) == wanted
