"""The data types of kernels and measured tables: how weights are stored, what is multiplied, what stands in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moesim.errors import InputError
from moesim.hardware.constants import Constants
from moesim.types import DTYPE_BYTES

_SCALE_BYTES: Mapping[str, float] = {"fp4": 1 / 32, "int4": 1 / 32}
"""Bytes of scales a weight: MXFP4 has one byte for 32 weights; groups of INT4 (AWQ, GPTQ) have about as much."""
_NVFP4_SCALE_BYTES = 1 / 16


def stored_bytes(weights: str, compute: str) -> float:
    """Bytes of a stored weight with its share of the scales.

    Four-bit weights have scales of groups, which count; those of wider types are below 0.1 % of them.

    Args:
        weights: data type that they are stored in.
        compute: data type that is multiplied in; FP4 that is multiplied as such is NVFP4, one byte for 16 weights.
    """
    scales = _NVFP4_SCALE_BYTES if weights == compute == "fp4" else _SCALE_BYTES.get(weights, 0.0)
    return DTYPE_BYTES[weights] + scales


def is_narrow(dtype: str) -> bool:
    """Whether a data type has fewer bits than the 16 of bf16."""
    return DTYPE_BYTES[dtype] < DTYPE_BYTES["bf16"]


@dataclass(frozen=True, kw_only=True)
class KernelDtype:
    """The type that weights are stored in, and the type that is multiplied."""

    weights: str
    compute: str

    @property
    def weight_bytes(self) -> float:
        """Bytes of one weight, with its share of the scales."""
        return stored_bytes(self.weights, self.compute)

    @property
    def weights_only(self) -> bool:
        """Whether only the weights are narrow: a kernel widens them before it multiplies."""
        return DTYPE_BYTES[self.weights] < DTYPE_BYTES[self.compute]


def _as(weights: str, compute: str = "") -> KernelDtype:
    return KernelDtype(weights=weights, compute=compute or weights)


KERNEL_DTYPES: Mapping[str, KernelDtype] = {
    "bfloat16": _as("bf16"),
    "bf16": _as("bf16"),
    "float16": _as("fp16"),
    "fp8": _as("fp8"),
    "fp8_block": _as("fp8"),
    "fp8_ootb": _as("fp8"),
    "fp8_static": _as("fp8"),
    "mxfp8": _as("fp8"),
    "int8": _as("int8"),
    "sq": _as("int8"),
    "int8_wo": _as("int8", "bf16"),
    "int4_wo": _as("int4", "bf16"),
    "nvfp4": _as("fp4"),
    "mxfp4": _as("fp4"),
    "w4a16_mxfp4": _as("fp4", "bf16"),
    "w4a8_mxfp4_mxfp8": _as("fp4", "fp8"),
    "w4afp8": _as("int4", "fp8"),
}
"""By the words of NVIDIA aiconfigurator; `_wo`: weights only, `sq`: SmoothQuant."""

_STAND_INS: Mapping[str, tuple[str, ...]] = {
    "bf16": ("bfloat16",),
    "float16": ("bfloat16",),
    "fp8": ("fp8_block",),
    "fp8_block": ("fp8",),
    "mxfp8": ("fp8_block", "fp8"),
    "int8": ("fp8", "fp8_block"),
    "sq": ("fp8", "fp8_block"),
    "int8_wo": ("bfloat16",),
    "int4_wo": ("w4a16_mxfp4", "bfloat16"),
    "nvfp4": ("fp8", "fp8_block"),
    "w4a16_mxfp4": ("bfloat16",),
    "w4a8_mxfp4_mxfp8": ("fp8", "fp8_block"),
    "w4afp8": ("fp8", "fp8_block"),
}
"""Data types whose constants stand in for those of another, the most similar first."""

_LAST_RESORT = ("fp8", "fp8_block", "bfloat16")
"""What stands in for a data type of dense layers where nothing similar has constants."""


def kernel_dtype(name: str) -> KernelDtype:
    """The operands of a data type.

    Raises:
        InputError: no such type is known.
    """
    if name not in KERNEL_DTYPES:
        raise InputError(f"data type: found {name}, wanted one of {', '.join(KERNEL_DTYPES)}")
    return KERNEL_DTYPES[name]


def dtype_of(name: str) -> KernelDtype:
    """The operands of a data type; those of bf16 where it is unknown."""
    return KERNEL_DTYPES.get(name, KERNEL_DTYPES["bf16"])


_UNLIKE = ("modelopt", "deepep-decode", "deepep-prefill", "wideep")
"""Kernels that stand in for no other: one that was never tuned, and those that were timed without their router."""


def nearest_group(group: str, known: Iterable[str]) -> str | None:
    """The calibrated group of experts that stands in for a group framework/kernel/dtype; None if none is similar.

    That is the group itself if it is known, else the same kernel with a similar
    data type, else another kernel with the most similar data type, if possible of
    the same framework.
    """
    framework, kernel, dtype = group.split("/")
    types = (dtype, *_STAND_INS.get(dtype, ()))

    def distance(name: str) -> tuple[bool, int, bool, bool, str]:
        other, its, typed = name.split("/")
        own = (other, its) == (framework, kernel)
        return not own, types.index(typed), other != framework, its in _UNLIKE, name

    return min((name for name in known if name.rpartition("/")[2] in types), key=distance, default=None)


def with_known_dtype(group: str, known: Iterable[str]) -> str:
    """A group whose last word, a data type, is one that some known group has: its own, else what stands in for it."""
    kernel, _, dtype = group.rpartition("/")
    types = {name.rpartition("/")[2] for name in known}
    candidates = (dtype, *_STAND_INS.get(dtype, ()), *_LAST_RESORT)
    return f"{kernel}/{next((other for other in candidates if other in types), dtype)}"


def nearest(group: str, constants: Constants) -> Mapping[str, float] | None:
    """The constants of a group, else of the most similar one; None if there are none.

    A group is framework/kernel/version or framework/kernel/data type. Its last word
    counts most, then the first, then those between. Of equally similar groups the
    last is taken, as versions are in order.
    """
    if group in constants:
        return constants[group]
    wanted = group.split("/")
    best, most = None, -1
    for name, values in constants.items():
        parts = name.split("/")
        middle = sum(mine == theirs for mine, theirs in zip(parts[1:-1], wanted[1:-1], strict=False))
        score = 200 * (parts[-1] == wanted[-1]) + 100 * (parts[0] == wanted[0]) + middle
        if score >= most:
            best, most = values, score
    return best
