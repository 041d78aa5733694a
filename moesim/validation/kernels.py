"""Files of constants: what `moesim calibrate` writes and scenarios name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moesim.errors import InputError
from moesim.hardware.predict import nouns
from moesim.hardware.tables.kind import Constants


def read_kernels(path: str | Path) -> dict[str, Constants]:
    """The constants of a file, {noun: {group: {constant: value}}}.

    Raises:
        InputError: it cannot be read or holds something else.
    """
    try:
        document: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as constants of kernels: {error}") from None
    if not isinstance(document, Mapping):
        raise InputError(f"{path}: found {type(document).__name__}, wanted a mapping with name, gpu and constants")
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


def _mapping(path: str | Path, field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: {field}: found {value!r:.60}, wanted a mapping")
    return value
