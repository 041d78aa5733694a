"""Presets: published shapes of models, GPUs and networks, and loads of deployments, data files in this folder."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from moesim.scenario.source import read_document

KINDS = ("models", "gpus", "networks", "popularities")


def presets(kind: str) -> dict[str, dict[str, Any]]:
    """All presets of a kind (one of KINDS) by name, each with its `source`."""
    return copy.deepcopy(_load(kind))


def names(kind: str) -> tuple[str, ...]:
    """The names of a kind."""
    return tuple(_load(kind))


def preset(kind: str, name: str) -> dict[str, Any]:
    """The fields of one preset."""
    return copy.deepcopy(_load(kind)[name])


@cache
def _load(kind: str) -> dict[str, dict[str, Any]]:
    if kind not in KINDS:
        raise KeyError(kind)
    return read_document(Path(__file__).with_name(f"{kind}.yaml"), f"{kind}.yaml").data
