"""What the names of data types stand for."""

from __future__ import annotations

import pytest

from moesim.hardware.kernel_dtypes import KERNEL_DTYPES, dtype_of, is_narrow, kernel_dtype, stored_bytes
from moesim.types import DTYPE_BYTES


@pytest.mark.parametrize(
    "name, weights, compute, bits",
    [
        ("bfloat16", "bf16", "bf16", 16),
        ("fp8_block", "fp8", "fp8", 8),
        ("int8_wo", "int8", "bf16", 8),
        ("int4_wo", "int4", "bf16", 4.25),
        ("w4afp8", "int4", "fp8", 4.25),
        ("w4a16_mxfp4", "fp4", "bf16", 4.25),
        ("w4a8_mxfp4_mxfp8", "fp4", "fp8", 4.25),
        ("nvfp4", "fp4", "fp4", 4.5),
    ],
)
def test_bits_of_a_weight_with_its_scales(name: str, weights: str, compute: str, bits: float) -> None:
    """MXFP4 and groups of INT4 have 8 bits for 32 weights, NVFP4 for 16; products and experts read one table."""
    found = kernel_dtype(name)
    assert (found.weights, found.compute, 8 * found.weight_bytes) == (weights, compute, bits)
    assert dtype_of(name) == found
    assert found.weights_only == (weights != compute)


def test_every_type_of_a_scenario_has_bytes() -> None:
    """Scales come on top of an element; no other type has any."""
    assert {dtype: stored_bytes(dtype, "bf16") - own for dtype, own in DTYPE_BYTES.items()} == {
        **dict.fromkeys(DTYPE_BYTES, 0.0),
        "fp4": 1 / 32,
        "int4": 1 / 32,
    }
    assert {dtype for dtype in DTYPE_BYTES if is_narrow(dtype)} == {"fp8", "int8", "fp4", "int4"}
    assert {found.weights for found in KERNEL_DTYPES.values()} <= DTYPE_BYTES.keys()
