"""Files that `cluster.kernels` names."""

from __future__ import annotations

import os
from collections.abc import Callable

from moesim.scenario.schema import KernelTables


def whole_paths(kernels: str | KernelTables | None, whole: Callable[..., str]) -> str | KernelTables | None:
    """The kernels with whole paths of constants and tables.

    Args:
        kernels: as written.
        whole: (path, *field) -> the whole path, from the folder of the file that wrote the field.
    """
    field = ("cluster", "kernels")
    if isinstance(kernels, KernelTables):
        family = kernels.family
        own = whole(family, *field, "family") if family is not None and _is_constants(family) else family
        return KernelTables(table=whole(kernels.table, *field, "table"), family=own)
    return whole(kernels, *field) if kernels is not None and _is_constants(kernels) else kernels


def _is_constants(text: str) -> bool:
    """Whether the kernels named are a file of constants, not a family."""
    return os.sep in text or text.endswith((".yaml", ".yml"))
