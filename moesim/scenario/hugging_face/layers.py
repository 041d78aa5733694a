"""From values of each layer to the fields of a model and the layers that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def by_layer(values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Fields of a model, and `layers` for those layers that have others.

    Args:
        values: for each field its value in each layer, all of the same length.

    Returns:
        The values that most layers have, and as `layers` an entry for each other combination of values.
    """
    if not values:
        return {}
    rows = list(zip(*(map(_hashable, items) for items in values.values()), strict=True))
    layers: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        layers.setdefault(row, []).append(i)
    usual = max(layers, key=lambda row: len(layers[row]))
    originals = {row: [items[indices[0]] for items in values.values()] for row, indices in layers.items()}
    entries = []
    for row, indices in layers.items():
        if row == usual:
            continue
        changed = {
            name: value
            for name, value, own, other in zip(values, originals[row], row, usual, strict=True)
            if own != other
        }
        entries.append({**_where(indices, len(rows)), **changed})
    fields = dict(zip(values, originals[usual], strict=True))
    return {**fields, **({"layers": entries} if entries else {})}


def _hashable(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def _where(indices: list[int], n_layers: int) -> dict[str, Any]:
    """Which layers these are: from one to the last in equal steps, or by their indices."""
    first = indices[0]
    step = indices[1] - first if len(indices) > 1 else n_layers
    if indices == list(range(first, n_layers, step)):
        return {"first": first, "every": step}
    return {"indices": indices}
