"""What the names of data types in kernels and measured tables mean: bytes of operands, and what computes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moesim.errors import InputError
from moesim.types import DTYPE_BYTES


@dataclass(frozen=True, kw_only=True)
class KernelDtype:
    """Bytes of one weight, with its share of the scales, and the type that is multiplied."""

    weight_bytes: float
    compute: str


def _plain(name: str) -> KernelDtype:
    return KernelDtype(weight_bytes=DTYPE_BYTES[name], compute=name)


_MXFP4_BYTES = 0.5 + 1 / 32  # one byte of scale for 32 weights
_NVFP4_BYTES = 0.5 + 1 / 16

KERNEL_DTYPES: Mapping[str, KernelDtype] = {
    "bfloat16": _plain("bf16"),
    "float16": _plain("fp16"),
    "fp8": _plain("fp8"),
    "fp8_block": _plain("fp8"),
    "int8": _plain("int8"),
    "int8_wo": KernelDtype(weight_bytes=1.0, compute="bf16"),
    "int4_wo": KernelDtype(weight_bytes=_MXFP4_BYTES, compute="bf16"),
    "nvfp4": KernelDtype(weight_bytes=_NVFP4_BYTES, compute="fp4"),
    "w4a16_mxfp4": KernelDtype(weight_bytes=_MXFP4_BYTES, compute="bf16"),
    "w4a8_mxfp4_mxfp8": KernelDtype(weight_bytes=_MXFP4_BYTES, compute="fp8"),
    "w4afp8": KernelDtype(weight_bytes=_MXFP4_BYTES, compute="fp8"),
}
KERNEL_DTYPES = {**KERNEL_DTYPES, "bf16": KERNEL_DTYPES["bfloat16"], "sq": KERNEL_DTYPES["int8"]}

_NEAREST: Mapping[str, tuple[str, ...]] = {
    "bf16": ("bfloat16",),
    "float16": ("bfloat16",),
    "fp8": ("fp8_block",),
    "fp8_block": ("fp8",),
    "int8": ("fp8", "fp8_block"),
    "sq": ("fp8", "fp8_block"),
    "int8_wo": ("bfloat16",),
    "int4_wo": ("w4a16_mxfp4", "bfloat16"),
    "nvfp4": ("fp8", "fp8_block"),
    "w4a16_mxfp4": ("bfloat16",),
    "w4a8_mxfp4_mxfp8": ("fp8", "fp8_block"),
    "w4afp8": ("fp8", "fp8_block"),
}


def kernel_dtype(name: str) -> KernelDtype:
    """The operands of a data type.

    Raises:
        InputError: no such type is known.
    """
    if name not in KERNEL_DTYPES:
        raise InputError(f"data type: found {name}, wanted one of {', '.join(KERNEL_DTYPES)}")
    return KERNEL_DTYPES[name]


_UNLIKE = ("modelopt", "deepep-decode", "deepep-prefill", "wideep")
"""Kernels that stand for no other: one that was never tuned, and those that were timed without their router."""


def nearest_group(group: str, known: Iterable[str]) -> str | None:
    """The calibrated group that stands in for one: framework/kernel/dtype; None if nothing is like it.

    Itself; else the same kernel with a data type of like operands; else the
    most similar data type, of the same framework if possible.
    """
    framework, kernel, dtype = group.split("/")
    types = (dtype, *_NEAREST.get(dtype, ()))

    def distance(name: str) -> tuple[bool, int, bool, bool, str]:
        other, its, typed = name.split("/")
        own = (other, its) == (framework, kernel)
        return not own, types.index(typed), other != framework, its in _UNLIKE, name

    return min((name for name in known if name.rpartition("/")[2] in types), key=distance, default=None)
