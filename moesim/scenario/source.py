"""YAML with the position of every field, loaded safely and within bounds."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from moesim.errors import ScenarioError

MAX_DEPTH = 30
MAX_NODES = 100_000
MAX_BYTES = 4_000_000

FieldPath = tuple[str | int, ...]
Fail = Callable[[FieldPath, str, str], ScenarioError]
"""Makes the error of a field, from its path, what was found and what would be right."""
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$")
_CONSTANTS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Position:
    """Where a field stands; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Notice:
    """Something about a field of a scenario file that its writer should know; `place` is None outside of files."""

    place: Position | None
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.field}: {self.text}" if self.place else f"{self.field}: {self.text}"

    def without_folder(self) -> str:
        """The same with the bare name of the file, for results, which do not depend on where it is."""
        if self.place is None:
            return str(self)
        place = Position(PurePath(self.place.file).name, self.place.line, self.place.column)
        return str(Notice(place, self.field, self.text))


@dataclass(frozen=True)
class Document:
    """The data of a file and the position of each of its fields, keys and list items."""

    data: dict[str, Any]
    positions: dict[FieldPath, Position]


def read_document(path: Path, shown: str) -> Document:
    """Read a YAML file whose top is a mapping; `shown` is its name in messages.

    Raises:
        ScenarioError: it cannot be read, is no YAML, or has duplicate keys, tags, or too much of anything.
    """
    try:
        text = read_text(path)
    except ScenarioError as error:
        raise ScenarioError(f"{shown}: {error}") from None
    return parse_document(text, shown)


def read_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        ScenarioError: what is wrong with it; the caller adds the place.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8-sig") if size <= MAX_BYTES else ""
    except UnicodeDecodeError:
        raise ScenarioError("found bytes that are not UTF-8, wanted a YAML text file") from None
    except (OSError, ValueError) as error:  # the latter of a path with a NUL
        raise ScenarioError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if size > MAX_BYTES:
        raise ScenarioError(f"found {size:,} bytes, wanted at most {MAX_BYTES:,}")
    return text


def whole_path(folder: Path, text: str) -> Path:
    """The whole path that a text in a scenario means, from the folder of its file.

    Raises:
        ScenarioError: what would be right; the caller knows the place.
    """
    try:
        return (folder / text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # no such user's home, a NUL
        raise ScenarioError(f"a path ({error})") from None


def parse_document(text: str, shown: str) -> Document:
    """The same from a text."""
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = Position(shown, mark.line + 1, mark.column + 1) if mark else shown
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ScenarioError(f"{where}: no valid YAML: {problem}") from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{shown}: no valid YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise ScenarioError(f"{shown}: found {found}, wanted a mapping of fields (scenario_version: 1, ...)")
    builder = _Builder(shown)
    return Document(builder.build(root, (), 0), builder.positions)


def parse_value(text: str) -> Any:
    """The value of a YAML text on the command line, such as 3, [1, 2] or {factor: 1.25}.

    Raises:
        ScenarioError: no valid YAML.
    """
    try:
        return parse_document(f"value: {text}", "--set").data["value"]
    except ScenarioError:
        raise ScenarioError(f"--set: found {text[:60]!r}, wanted a YAML value; quote text that has colons") from None


class _Builder:
    def __init__(self, file: str) -> None:
        self.positions: dict[FieldPath, Position] = {}
        self._file = file
        self._nodes = 0

    def build(self, node: yaml.Node, path: FieldPath, depth: int) -> Any:
        self._nodes += 1
        here = self._position(node)
        self.positions.setdefault(path, here)
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            limit = f"depth {MAX_DEPTH}" if depth > MAX_DEPTH else f"{MAX_NODES} values (aliases counted)"
            raise ScenarioError(f"{here}: found more than {limit}, wanted a scenario")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, here)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise ScenarioError(f"{here}: found the tag {node.tag}, wanted plain values without tags")
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            here = self._position(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ScenarioError(f"{here}: found a list or mapping as a field name, wanted text")
            key = key_node.value
            if key_node.tag == "tag:yaml.org,2002:merge":
                wanted = "the fields themselves, or a file that has them under extends"
                raise ScenarioError(f"{here}: {dotted((*path, key))}: found a merge key of YAML, wanted {wanted}")
            if key in result:
                raise ScenarioError(f"{here}: {dotted((*path, key))}: found the field twice, wanted it once")
            self.positions[(*path, key)] = here
            result[key] = self.build(value_node, (*path, key), depth + 1)
        return result

    def _scalar(self, node: yaml.ScalarNode, here: Position) -> Any:
        explicit = node.tag not in _IMPLICIT
        if explicit:
            raise ScenarioError(f"{here}: found the tag {node.tag}, wanted plain values without tags")
        text: str = node.value
        if node.style in ("'", '"', "|", ">"):
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.match(text) and len(text) < 40:
            return int(text.replace("_", ""))
        if _FLOAT.match(text):
            return float(text.replace("_", ""))
        return text

    def _position(self, node: yaml.Node) -> Position:
        return Position(self._file, node.start_mark.line + 1, node.start_mark.column + 1)


_IMPLICIT = {
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "binary")
} - {"tag:yaml.org,2002:binary"}


def dotted(path: FieldPath) -> str:
    """A field path as users write it: workload.popularity.exponent."""
    return ".".join(str(part) for part in path)


def shown(value: Any) -> str:
    """A value in a message, short whatever it holds."""
    short = reprlib.Repr()
    short.maxother = short.maxstring = 60
    return short.repr(value)
