"""What the names of data types in kernels and measured tables mean: bytes of operands, and what computes them."""

from __future__ import annotations

from collections.abc import Mapping
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


def nearest_group(group: str, known: Mapping[str, object]) -> str | None:
    """The calibrated group that stands in for one: framework/kernel/dtype.

    Itself; else the same framework and data type, the same data type, the same
    framework and a data type of like operands, such a type of any framework; None if nothing is like it.
    """
    if group in known:
        return group
    framework, _, dtype = group.split("/")
    for like in (dtype, *_NEAREST.get(dtype, ())):
        same = [name for name in known if name.endswith(f"/{like}")]
        own = [name for name in same if name.startswith(f"{framework}/")]
        if own or same:
            return (own or same)[0]
    return None
