"""Layers of a scenario: `extends` merges files, dotted overrides replace fields."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import ScenarioError
from moesim.scenario.renamed import renamed_document
from moesim.scenario.source import (
    Document,
    FieldPath,
    Notice,
    Position,
    parse_document,
    read_document,
    read_text,
    whole_path,
)

NONE_WORDS = ("none", "None")
BY_NAME = {
    ("model",): "preset",
    ("cluster", "gpu"): "preset",
    ("cluster", "network"): "preset",
    ("workload", "popularity"): "preset",
    ("workload", "pattern"): "kind",
}
"""Fields that may be a name, of a preset or a kind; an override below one of them changes what has that name."""


@dataclass(frozen=True)
class Layered:
    """Merged data, the position of each field in its own file, and notices about old names in these files."""

    data: dict[str, Any]
    positions: dict[FieldPath, Position]
    folders: dict[FieldPath, Path]
    """Folder of the file that wrote a field, to which paths in it are relative."""
    notices: tuple[Notice, ...] = ()


def read_layers(path: Path, shown: str) -> Layered:
    """Read a file and what it extends.

    Raises:
        ScenarioError: a file is wrong, or extends itself.
    """
    return _extended(read_document(path, shown), path, ())


def _extended(document: Document, path: Path, seen: tuple[Path, ...]) -> Layered:
    own = layer_of(document, path.parent)
    base = own.data.pop("extends", None)
    if base is None:
        return own
    where = own.positions[("extends",)]
    if not isinstance(base, str):
        raise ScenarioError(f"{where}: extends: found {base!r:.60}, wanted the path of a scenario file")
    try:
        target = whole_path(path.parent, base)
        text = read_text(target)
    except ScenarioError as error:
        raise ScenarioError(f"{where}: extends: found {base!r:.200}, wanted a scenario file ({error})") from None
    if target in (*seen, path.resolve()):
        raise ScenarioError(f"{where}: extends: found {base}, which itself extends this file, wanted another file")
    below = _extended(parse_document(text, base), target, (*seen, path.resolve()))
    return Layered(
        data=_merge(below.data, own.data),
        positions={**below.positions, **own.positions},
        folders={**below.folders, **own.folders},
        notices=(*own.notices, *below.notices),
    )


def layer_of(document: Document, folder: Path | None = None) -> Layered:
    """One file, or a mapping without a folder, with the present names of its fields.

    Raises:
        ScenarioError: a mapping has both an old name of a field and its present one.
    """
    current, notices = renamed_document(document)
    folders = {} if folder is None else {path: folder for path in current.positions if path}
    return Layered(current.data, current.positions, folders, tuple(notices))


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "compare":
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def override(data: dict[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of data with dotted fields replaced; `where` names the origin in messages.

    Below a field that is none a mapping is begun; below the name of a preset
    the preset is changed in that field. A number is the place of an entry in a list, from 0.

    Raises:
        ScenarioError: a path that leads through a single value, or to an entry that a list does not have.
    """
    result = copy.deepcopy(data)
    for name, value in overrides.items():
        path = tuple(str(name).split("."))
        node: Any = result
        for depth, part in enumerate(path, start=1):
            key = _place(node, part, f"{where}: {name}", ".".join(path[: depth - 1]))
            if depth == len(path):
                node[key] = copy.deepcopy(value)
                break
            child = node[key] if isinstance(node, list) else node.get(key)
            if child is None or (isinstance(child, str) and child in NONE_WORDS):
                child = {}
            elif isinstance(child, str) and path[:depth] in BY_NAME:
                child = {BY_NAME[path[:depth]]: child}
            elif not isinstance(child, dict | list):
                raise ScenarioError(
                    f"{where}: {name}: found {child!r:.60} at {'.'.join(path[:depth])}, wanted a field that has fields"
                )
            node[key] = child
            node = child
    return result


def _place(node: Any, part: str, where: str, path: str) -> Any:
    """What the part of a dotted name is in a mapping or a list."""
    if not isinstance(node, list):
        return part
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    wanted = f"0 to {len(node) - 1}, an entry of that list" if node else "entries in that list"
    raise ScenarioError(f"{where}: found {part} at {path}, wanted {wanted}")


def override_of(overrides: Mapping[str, Any], path: FieldPath) -> str | None:
    """The override that wrote a field, a parent of it, or part of it."""
    parts = tuple(str(part) for part in path)
    best = None
    for name in overrides:
        own = tuple(str(name).split("."))
        shorter = min(len(own), len(parts))
        if own[:shorter] == parts[:shorter] and len(own) >= 1 and (best is None or len(name) > len(best)):
            best = name
    return best


def override_naming(overrides: Mapping[str, Any], path: FieldPath) -> str | None:
    """The override that wrote the value of a field, or a parent of it; not one of a field below."""
    parts = tuple(str(part) for part in path)
    names = {str(name): tuple(str(name).split(".")) for name in overrides}
    writes = [name for name, own in names.items() if own in (parts[: len(own)], (*parts, "preset"))]
    return max(writes, key=len, default=None)
