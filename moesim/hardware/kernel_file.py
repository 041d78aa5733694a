"""Files of constants: what `moesim calibrate` writes and `cluster.kernels` names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from moesim.errors import InputError
from moesim.hardware.allreduce import AllReduceConstants
from moesim.hardware.decode import DecodeConstants
from moesim.hardware.elementwise import ElementwiseConstants
from moesim.hardware.expert import ExpertConstants
from moesim.hardware.families import Family, default_family, families, suits
from moesim.hardware.gemm import GemmConstants
from moesim.hardware.kernel_dtypes import KERNEL_DTYPES, nearest_group
from moesim.hardware.layer_kernels import ELEMENTWISE
from moesim.hardware.mla import AbsorbedConstants, MlaDecodeConstants, MlaPrefillConstants
from moesim.hardware.predict import nouns
from moesim.hardware.prefill import PrefillConstants
from moesim.hardware.tables.kind import Constants
from moesim.types import Precision

MAX_BYTES = 4_000_000

_STEP: Mapping[str, Any] = {
    "experts": ExpertConstants,
    "gemm": GemmConstants,
    "elementwise": ElementwiseConstants,
    "attention_context": PrefillConstants,
    "attention_generation": DecodeConstants,
    "mla_context": MlaPrefillConstants,
    "mla_generation": MlaDecodeConstants,
    "mla_bmm": AbsorbedConstants,
    "allreduce": AllReduceConstants,
}
"""The nouns that the computing parts of a step take, with the sums of heads that GPUs share, and their constants."""
_POSITIVE = (
    *("compute_share", "bandwidth_share", "norm", "scan_norm", "cache_speedup"),
    *("one_share", "two_share", "nccl_share", "nccl_wide_share"),
)
_LOWEST = {"max_split": 1.0, "widest_tile": 64.0, "tile_low": 1.0, "tile_high": 1.0}
_TILES = ("tile_low", "tile_high")
_APART = ("deepep", "wideep")
"""Kernels of experts that are timed without their router."""


def read_kernels(path: str | Path) -> dict[str, Constants]:
    """The constants of a file, {noun: {group: {constant: value}}}.

    Raises:
        InputError: it cannot be read or holds something else.
    """
    return _constants(path, _document(path, _content(path)))


def read_family(path: str | Path, precision: Precision) -> Family:
    """The kernels of a step with the constants of a file before the shipped ones.

    The experts take the group of the family that suits the data types, else of
    the first other family that computes in them, else the nearest; the other
    layers the nearest of their data type. What the file lacks is as shipped.

    Raises:
        InputError: it cannot be read, holds something else, or nothing for these data types that a step takes.
    """
    content = _content(path)
    document = _document(path, content)
    gpu = document.get("gpu")
    if not isinstance(gpu, str) or not gpu:
        raise InputError(f"{path}: gpu: found {gpu!r:.60}, wanted the name of the GPU of the measurements")
    constants = taken(_constants(path, document))
    if not constants:
        raise InputError(f"{path}: holds no constants of a part of a step, wanted some of {', '.join(_STEP)}")
    for noun, groups in constants.items():
        for group, values in groups.items():
            _check(path, f"{noun}.{group}", noun, values)
    name, parts = _parts(path, constants.get("experts", {}), precision)
    digest = hashlib.sha256(content).hexdigest()
    return Family(name=name, parts=parts, constants=constants, gpu=gpu[:100], file=Path(path).name, sha256=digest)


def taken(kernels: Mapping[str, Constants]) -> dict[str, Constants]:
    """What a step takes of constants by noun: those of its computing parts, of elementwise kernels the one group."""
    parts = {noun: groups for noun, groups in kernels.items() if noun in _STEP}
    if "elementwise" in parts and ELEMENTWISE not in parts["elementwise"]:
        del parts["elementwise"]
    return parts


def _parts(path: str | Path, experts: Constants, precision: Precision) -> tuple[str, Mapping[str, str]]:
    """The name and the parts of the family whose experts the file holds."""
    known, default = families(), default_family(precision)
    if not experts:
        return default, known[default]
    mine = [group for group in experts if suits(group, precision)]
    if not mine:
        raise InputError(
            f"{path}: experts: found {', '.join(experts)}, wanted constants for activations in {precision.activations}"
        )
    for name in (default, *known):
        if {known[name]["experts"], known[name].get("experts_prefill")} & set(mine):
            return name, known[name]
    group = nearest_group(known[default]["experts"], mine) or mine[0]
    framework, kernel, _ = group.split("/")
    router = {} if kernel.startswith(_APART) else {"router": "fused"}
    return default, {"experts": group, "framework": framework, **router}


def _content(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as constants of kernels: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: found more than {MAX_BYTES:,} bytes, wanted what moesim calibrate writes")
    return content


def _document(path: str | Path, content: bytes) -> Mapping[str, Any]:
    try:
        document: Any = yaml.safe_load(content.decode("utf-8-sig"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as constants of kernels: {error}") from None
    if not isinstance(document, Mapping):
        raise InputError(f"{path}: found {type(document).__name__}, wanted a mapping with name, gpu and constants")
    return document


def _constants(path: str | Path, document: Mapping[str, Any]) -> dict[str, Constants]:
    kernels: dict[str, Constants] = {}
    for noun, groups in document.items():
        if noun not in nouns():
            continue
        for group, constants in _mapping(path, noun, groups).items():
            for name, value in _mapping(path, f"{noun}.{group}", constants).items():
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise InputError(f"{path}: {noun}.{group}.{name}: found {value!r:.60}, wanted a number")
        kernels[noun] = groups
    if not kernels:
        raise InputError(f"{path}: holds no constants, wanted some of {', '.join(sorted(nouns()))}")
    return kernels


def _check(path: str | Path, where: str, noun: str, values: Mapping[str, float]) -> None:
    """Refuse a group of another form than its formula has, and numbers that no formula takes."""
    known = {found.name: found.default is MISSING for found in fields(_STEP[noun])}
    group = where.removeprefix(f"{noun}.")
    if len(group.split("/")) != 3 or (noun == "experts" and group.rpartition("/")[2] not in KERNEL_DTYPES):
        raise InputError(f"{path}: {where}: wanted a group framework/kernel/data type")
    lacking = [name for name, needed in known.items() if needed and name not in values]
    unknown = [name for name in values if name not in known]
    if lacking or unknown:
        found = f"found no {lacking[0]}" if lacking else f"found {unknown[0]}"
        raise InputError(f"{path}: {where}: {found}, wanted {', '.join(known)}")
    for name, value in values.items():
        low = "above 0" if name in _POSITIVE else f"of {_LOWEST.get(name, 0):g} or more"
        if not math.isfinite(value) or value < _LOWEST.get(name, 0) or (value == 0 and name in _POSITIVE):
            raise InputError(f"{path}: {where}.{name}: found {value}, wanted a number {low}")
        if name in _TILES and math.frexp(value)[0] != 0.5:
            raise InputError(f"{path}: {where}.{name}: found {value}, wanted a power of two")


def _mapping(path: str | Path, field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: {field}: found {value!r:.60}, wanted a mapping")
    return value
