"""Fields that had other names in version 0.1.0: old names go on working, with a notice that says the new one.

Whoever renames a field adds a line to FIELDS, or to VALUES for a word; nothing else in moesim knows an old name. Old
names are replaced when a file, a mapping or an override is read, before anything is merged or checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moesim.errors import ScenarioError
from moesim.scenario.source import Document, FieldPath, Notice, Position, dotted

FIELDS: Mapping[str, str] = {
    "cluster.network.held_sms": "comm_sms",
    "faults.*.every_s": "mean_time_between_s",
    "faults.*.for_s": "duration_s",
    "faults.*.from_s": "start_s",
    "faults.*.without_copy": "orphans",
    "parallelism.attention_tensor": "attention_tp",
    "parallelism.expert_tensor": "expert_tp",
    "routing.balancer": "substitution",
    "routing.balancing": "training",
    "simulation.overlap_loss": "overlap_slowdown",
}
"""Old dotted field -> new last part; * stands for the number of an item of a list."""
VALUES: Mapping[str, Mapping[str, str]] = {
    "faults.*.kind": {"lost-gpu": "gpu-failure", "stopped-gpu": "gpu-pause"},
}
"""Dotted field -> old word -> new word."""
_FORMER = {f"{old.rpartition('.')[0]}.{new}": old.rpartition(".")[2] for old, new in FIELDS.items()}
SWEEP_PARTS = ("list", "random", "grid")
"""Parts of a `sweep:` block, in the order in which a product runs through them, the grid fastest."""


def renamed_document(document: Document) -> tuple[Document, list[Notice]]:
    """A scenario file with new names for old ones, in `compare` and `sweep` too, and a notice for each old name.

    Raises:
        ScenarioError: a mapping has both names of a field.
    """
    reader = _Reader(document.positions)
    data = reader.top(document.data)
    positions = {reader.moved(path): position for path, position in document.positions.items()}
    return Document(data, positions), list(reader.notices.values())


def with_current_names(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[Notice]]:
    """Fields, nested or dotted, with new names for old ones, and a notice for each old name.

    Raises:
        ScenarioError: a mapping has both names of a field.
    """
    reader = _Reader({})
    return reader.top(fields), list(reader.notices.values())


def current_field(field: str) -> str:
    """The present name of a dotted field."""
    return _translated(field, FIELDS)


def former_field(field: str) -> str:
    """The name that a dotted field had in version 0.1.0."""
    return _translated(field, _FORMER)


def _translated(field: str, table: Mapping[str, str]) -> str:
    """Each part of a dotted field by the table, whose keys have the parts above as they are written."""
    parts = tuple(field.split("."))
    return ".".join(table.get(_pattern(parts[: i + 1]), part) for i, part in enumerate(parts))


def _pattern(path: FieldPath) -> str:
    """A dotted field with * for every number of an item."""
    return ".".join("*" if str(part).isdigit() else str(part) for part in path)


class _Reader:
    """Rewrites the data of one file or of one set of overrides.

    A place is where a value stands in the file, a field the path of what it says: they differ below `compare` and
    `sweep`, where one key of the file holds a whole dotted field.
    """

    def __init__(self, positions: Mapping[FieldPath, Position]) -> None:
        self._positions = positions
        self._new_keys: dict[FieldPath, str] = {}
        self.notices: dict[str, Notice] = {}

    def moved(self, place: FieldPath) -> FieldPath:
        """A place of the file that was read, in the data that came out."""
        return tuple(self._new_keys.get(place[: i + 1], part) for i, part in enumerate(place))

    def top(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a whole file, or overrides."""
        special = {"compare": self._variants, "sweep": self._sweep}
        return {
            key: special[key](item) if key in special else self._value(item, place, field)
            for key, item, place, field in self._items(data, (), ())
        }

    def _variants(self, variants: Any) -> Any:
        if not isinstance(variants, Mapping):
            return variants
        return {name: self._value(changes, ("compare", name), ()) for name, changes in variants.items()}

    def _sweep(self, block: Any) -> Any:
        if not isinstance(block, Mapping) or not any(part in block for part in SWEEP_PARTS):
            return self._axes(block, ("sweep",))
        result = dict(block)
        if "grid" in block:
            result["grid"] = self._axes(block["grid"], ("sweep", "grid"))
        if isinstance(block.get("list"), list):
            result["list"] = [self._value(point, ("sweep", "list", i), ()) for i, point in enumerate(block["list"])]
        if isinstance(block.get("random"), Mapping):
            axes = self._axes(block["random"].get("axes"), ("sweep", "random", "axes"))
            result["random"] = {key: axes if key == "axes" else item for key, item in block["random"].items()}
        return result

    def _axes(self, axes: Any, place: FieldPath) -> Any:
        """A mapping of fields to lists of their values, or to ranges."""
        if not isinstance(axes, Mapping):
            return axes
        return {
            key: [self._value(value, (*here, i), field) for i, value in enumerate(item)]
            if isinstance(item, list)
            else item
            for key, item, here, field in self._items(axes, place, ())
        }

    def _value(self, value: Any, place: FieldPath, field: FieldPath) -> Any:
        """A value of a field, with new names for old ones in it."""
        if isinstance(value, Mapping):
            return {key: self._value(item, *where) for key, item, *where in self._items(value, place, field)}
        if isinstance(value, list):
            return [self._value(item, (*place, i), (*field, str(i))) for i, item in enumerate(value)]
        words = VALUES.get(_pattern(field), {})
        if not isinstance(value, str) or value not in words:
            return value
        self._tell(f"{_pattern(field)} {value}", place, dotted(field), f"{value} is now called {words[value]}")
        return words[value]

    def _items(
        self, data: Mapping[str, Any], place: FieldPath, field: FieldPath
    ) -> Iterator[tuple[str, Any, FieldPath, FieldPath]]:
        """(present key, value, its place, its field) of each item of a mapping whose keys are fields, maybe dotted."""
        for key, item in data.items():
            here, old = (*place, key), (*field, *str(key).split("."))
            new = tuple(current_field(dotted(old)).split("."))
            name = key if new == old else dotted(new[len(field) :])
            if new != old:
                self._refuse_both(data, name, here, dotted(old))
                self._new_keys[here] = name
                text = f"the field is now called {dotted(new)}; the old name still works"
                self._tell(_pattern(old), here, dotted(old), text)
            yield name, item, here, new

    def _refuse_both(self, data: Mapping[str, Any], name: str, place: FieldPath, old: str) -> None:
        if name in data:
            position = self._positions.get(place)
            start = "" if position is None else f"{position}: "
            raise ScenarioError(f"{start}{old}: found this old name and the new one, wanted {name} alone")

    def _tell(self, key: str, place: FieldPath, field: str, text: str) -> None:
        """Note what was renamed, each old name once, at its first place."""
        self.notices.setdefault(key, Notice(self._positions.get(place), field, text))
