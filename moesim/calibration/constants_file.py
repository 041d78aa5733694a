"""Files of constants: what `moesim calibrate` writes and `cluster.kernels` names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from moesim.calibration.predict import parts
from moesim.errors import InputError
from moesim.hardware.allreduce import AllReduceConstants
from moesim.hardware.backends import Backend, backends, default_backend, suits
from moesim.hardware.collectives import FORMS
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import limits_of
from moesim.hardware.decode import DecodeConstants
from moesim.hardware.dense import FeedForwardConstants
from moesim.hardware.elementwise import ElementwiseConstants
from moesim.hardware.expert import ExpertConstants
from moesim.hardware.gemm import GemmConstants
from moesim.hardware.kernel_dtypes import KERNEL_DTYPES, nearest_group
from moesim.hardware.layer_kernels import ELEMENTWISE
from moesim.hardware.mla import MlaDecodeConstants, MlaPrefillConstants
from moesim.hardware.mla_linear import AbsorbedConstants
from moesim.hardware.prefill import PrefillConstants
from moesim.types import NetworkSpec, Precision

MAX_BYTES = 4_000_000

_STEP: Mapping[str, type[Any]] = {
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
"""The parts whose constants a step takes, and the dataclass of these constants."""
FORMULAS: Mapping[str, type[Any]] = {**_STEP, "mlp": FeedForwardConstants}
"""The same of all layers that have tables."""
_EXCHANGES: Mapping[str, str] = {
    "deepep-ll": "framework/deepep-ll/version/direction",
    "deepep-normal": "framework/deepep-normal/version/direction",
    "nccl": "library/nccl/operation",
    "moe-a2a": "framework/moe-a2a/backend/data type/phase",
}
"""The form of the groups of collectives, by their second word."""
_LAYER = "framework/kernel/data type"
_APART = ("deepep", "wideep")
"""Beginnings of the names of expert kernels that were timed without their router."""


def read_kernels(path: str | Path) -> dict[str, Constants]:
    """The constants of a file, {part: {group: {constant: value}}}, of all parts.

    Raises:
        InputError: it cannot be read, holds something else, or constants that their formula does not take.
    """
    document = _document(path, _content(path))
    kernels = _constants(path, document)
    _check_all(path, kernels)
    _gpu_of(path, document)
    return kernels


def read_backend(path: str | Path, precision: Precision, network: NetworkSpec | None = None) -> Backend:
    """The backend of a step whose constants come from a file where it has them.

    The experts take the file's group of the backend that suits data types and
    network, else of the first other backend that computes in them, else the nearest
    group. Other layers take the nearest group of their data type. Constants that
    the file lacks are the shipped ones.

    Raises:
        InputError: it cannot be read, holds something else, or nothing for these data types that a step takes.
    """
    content = _content(path)
    document = _document(path, content)
    gpu = _gpu_of(path, document)
    constants = used_in_steps(_constants(path, document))
    if not constants:
        raise InputError(f"{path}: holds no constants of a part of a step, wanted some of {', '.join(_STEP)}")
    _check_all(path, constants)
    name, parts = _parts(path, constants.get("experts", {}), precision, network)
    digest = hashlib.sha256(content).hexdigest()
    return Backend(name=name, parts=parts, constants=constants, gpu=gpu[:100], file=Path(path).name, sha256=digest)


def used_in_steps(kernels: Mapping[str, Constants]) -> dict[str, Constants]:
    """The subset of constants, by part and group, that a simulated step reads."""
    parts = {part: groups for part, groups in kernels.items() if part in _STEP}
    if "elementwise" in parts and ELEMENTWISE not in parts["elementwise"]:
        del parts["elementwise"]
    return parts


def _parts(
    path: str | Path, experts: Constants, precision: Precision, network: NetworkSpec | None
) -> tuple[str, Mapping[str, str]]:
    """The name and the parts of the family whose experts the file holds."""
    known, default = backends(), default_backend(precision, network)
    if not experts:
        return default, known[default]
    mine = [group for group in experts if suits(group, precision)]
    if not mine:
        raise InputError(
            f"{path}: experts: found {', '.join(experts)}, wanted constants for activations in "
            f"{precision.activations} and weights in {precision.weights}"
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


def _gpu_of(path: str | Path, document: Mapping[str, Any]) -> str:
    gpu = document.get("gpu")
    if not isinstance(gpu, str) or not gpu:
        raise InputError(f"{path}: gpu: found {gpu!r:.60}, wanted the name of the GPU of the measurements")
    return gpu


def _constants(path: str | Path, document: Mapping[str, Any]) -> dict[str, Constants]:
    kernels: dict[str, Constants] = {}
    for part, groups in document.items():
        if part not in parts():
            continue
        for group, constants in _mapping(path, part, groups).items():
            if not isinstance(group, str):
                raise InputError(f"{path}: {part}: found {group!r:.60}, wanted the name of a group")
            for name, value in _mapping(path, f"{part}.{group}", constants).items():
                if not _is_number(value):
                    raise InputError(f"{path}: {part}.{group}.{name}: found {value!r:.60}, wanted a number")
        kernels[part] = groups
    if not any(kernels.values()):
        raise InputError(f"{path}: holds no constants, wanted some of {', '.join(sorted(parts()))}")
    return kernels


def _is_number(value: Any) -> bool:
    """Whether a value is a number that float64 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _check_all(path: str | Path, kernels: Mapping[str, Constants]) -> None:
    for part, groups in kernels.items():
        for group, values in groups.items():
            _check(path, part, group, values)


def _check(path: str | Path, part: str, group: str, values: Mapping[str, float]) -> None:
    """Refuse a group of another form than its formula has, and numbers that no formula takes."""
    where, (formula, form) = f"{part}.{group}", _formula(part, group)
    strange = part == "experts" and group.rpartition("/")[2] not in KERNEL_DTYPES
    if formula is None or group.count("/") != form.count("/") or strange:
        raise InputError(f"{path}: {where}: wanted a group {form}")
    known = {found.name: found.default is MISSING for found in fields(formula)}
    lacking = [name for name, needed in known.items() if needed and name not in values]
    unknown = [name for name in values if name not in known]
    if lacking or unknown:
        found = f"found no {lacking[0]}" if lacking else f"found {unknown[0]}"
        raise InputError(f"{path}: {where}: {found}, wanted {', '.join(known)}")
    limits = limits_of(formula)
    for name, value in values.items():
        if wanted := limits[name].wanted(value):
            raise InputError(f"{path}: {where}.{name}: found {value}, wanted {wanted}")


def _formula(part: str, group: str) -> tuple[type[Any] | None, str]:
    """(the constants of a group's formula, None if there is none; the form of its name)."""
    if part in FORMULAS:
        return FORMULAS[part], _LAYER
    exchange = group.partition("/")[2].partition("/")[0]
    if exchange not in _EXCHANGES:
        return None, " or ".join(_EXCHANGES.values())
    return FORMS[exchange][0], _EXCHANGES[exchange]


def _mapping(path: str | Path, field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: {field}: found {value!r:.60}, wanted a mapping")
    return value
