"""Files that `cluster.kernels` names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from moesim.scenario.schema import KernelTables
from moesim.scenario.source import FieldPath


def whole_paths(kernels: str | KernelTables | None, folder: Callable[[FieldPath], Path]) -> str | KernelTables | None:
    """The kernels with whole paths of constants and tables, each from the folder of the file that wrote it."""

    def whole(path: str, *field: str) -> str:
        return str((folder(("cluster", "kernels", *field)) / path).expanduser().resolve())

    if isinstance(kernels, KernelTables):
        family = kernels.family
        own = whole(family, "family") if family is not None and _is_constants(family) else family
        return KernelTables(table=whole(kernels.table, "table"), family=own)
    return whole(kernels) if kernels is not None and _is_constants(kernels) else kernels


def _is_constants(text: str) -> bool:
    """Whether the kernels named are a file of constants, not a family."""
    return os.sep in text or text.endswith((".yaml", ".yml"))
