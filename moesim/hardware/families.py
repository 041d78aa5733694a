"""Families of calibrated kernels: what `cluster.kernels` names, and what is known of it on a GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

from moesim.errors import InputError
from moesim.hardware.constants import document
from moesim.hardware.expert import ExpertKernel, calibrated_gpu
from moesim.hardware.kernel_dtypes import KernelDtype, kernel_dtype
from moesim.hardware.layer_kernels import LayerKernels
from moesim.types import DTYPE_BYTES, GpuSpec, Precision

NARROW = ("fp8", "int8", "fp4")
"""Data types of activations that the constants of fp8 stand for, with their own bytes and peak."""


def families() -> dict[str, dict[str, str]]:
    """Every family by name: its `summary` and the group of constants of each part."""
    groups: dict[str, dict[str, str]] = document("families")["groups"]
    return groups


def default_family(precision: Precision) -> str:
    """The family that suits the data types; all are calibrated on one GPU, which is the nearest to every other."""
    if precision.activations in NARROW:
        return "sglang-deepep-fp8"
    return "trtllm-mxfp4" if precision.weights == "fp4" else "trtllm-bf16"


def calibrated_families(gpu: str) -> list[str]:
    """Families whose constants were fitted on the GPU of that name."""
    return [*families()] if gpu == calibrated_gpu().name else []


def check_family(family: str, precision: Precision) -> None:
    """Refuse a family that is unknown or computes in another data type.

    Raises:
        InputError: what would be right.
    """
    compute = kernel_dtype(family_of(family)["experts"].rpartition("/")[2]).compute
    if (compute in NARROW) != (precision.activations in NARROW):
        raise InputError(f"a family for activations in {precision.activations}; {family} computes in {compute}")


def expert_kernel(family: str, gpu: GpuSpec, precision: Precision, phase: str) -> ExpertKernel:
    """The experts' kernel of a family on a GPU, with the data types of the scenario.

    Raises:
        InputError: there is no such family, or the GPU has no peak for the type of activations.
    """
    parts = family_of(family)
    group = parts["experts"] if phase == "decode" else parts.get("experts_prefill", parts["experts"])
    dtype = KernelDtype(weight_bytes=DTYPE_BYTES[precision.weights], compute=precision.activations)
    return dataclasses.replace(ExpertKernel.from_preset(group), gpu=gpu, dtype=dtype)


def layer_kernels(family: str) -> LayerKernels:
    """The kernels of all other layers: those of the family's framework.

    Raises:
        InputError: there is no such family.
    """
    return LayerKernels(framework=family_of(family)["layers"])


def family_of(name: str) -> dict[str, str]:
    """The groups of a family.

    Raises:
        InputError: there is no such family; the text says which there are and what is like it.
    """
    known: dict[str, Any] = families()
    if name not in known:
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=1)
        raise InputError(f"one of {', '.join(known)}" + (f" (did you mean {near[0]}?)" if near else ""))
    found: dict[str, str] = known[name]
    return found


def provenance(family: str, gpu: GpuSpec) -> str:
    """Where the times of kernels come from, with its label."""
    calibrated = calibrated_gpu().name
    if gpu.name == calibrated:
        return f"estimated: formulas with constants of {family} on {calibrated}"
    return (
        f"estimated: formulas with constants of {family} on {calibrated}, "
        f"for {gpu.name} only the published specifications changed"
    )
