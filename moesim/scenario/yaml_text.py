"""Data as the text of a scenario file, which reads back equal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from moesim.errors import ScenarioError
from moesim.scenario.source import parse_document


def yaml_text(data: dict[str, Any]) -> str:
    """The text of a scenario file with this data.

    Raises:
        yaml.representer.RepresenterError: a value is no number, text, list or mapping.
    """
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def plain_data(value: Any) -> Any:
    """Data as a file would hold it: of NumPy numbers, arrays and paths, which Python code has, and of nothing else."""
    if isinstance(value, Mapping):
        return {name: plain_data(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else value


class _Dumper(yaml.SafeDumper):
    """Quotes text that a scenario file would read as a number or a word of its own."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        plain = parse_document(f"value: {text}", "").data == {"value": text}
    except ScenarioError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)
