"""Presets: published shapes of models, GPUs and networks, and loads of deployments, data files in this folder."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

from moesim.errors import did_you_mean, nearest
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


def aliases() -> dict[str, list[str]]:
    """Other names of each GPU: what people and drivers call it, in small letters and without its maker."""
    return copy.deepcopy(_document("gpu_aliases"))


def canonical(kind: str, name: str) -> str:
    """The name of a preset that people may call otherwise: "NVIDIA H100 80GB HBM3" is h100-sxm.

    Of GPUs neither case nor signs nor the words of a maker count. What no preset is called stays as it is.
    """
    if kind != "gpus" or name in names(kind):
        return name
    return _gpu_names().get(_plain(name), name)


def suggestion(kind: str, name: Any) -> str:
    """The end of an error about an unknown preset: " (did you mean NAME?)", "" if none is called anything like it."""
    if kind != "gpus":
        return did_you_mean(name, names(kind))
    similar = nearest(_plain(str(name)), _gpu_names())
    return did_you_mean(name, names(kind)) if similar is None else f" (did you mean {_gpu_names()[similar]}?)"


@cache
def _gpu_names() -> dict[str, str]:
    """Presets by the plain form of all their names."""
    own = {_plain(name): name for name in names("gpus")}
    return {**{_plain(alias): name for name, known in aliases().items() for alias in known}, **own}


def _plain(name: str) -> str:
    """Letters and digits of a name, without the words of makers."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(word for word in words if word not in _MAKERS)


_MAKERS = frozenset(
    {"nvidia", "geforce", "tesla", "amd", "instinct", "huawei", "google", "cloud", "intel", "habana", "tm"}
)


@cache
def _load(kind: str) -> dict[str, dict[str, Any]]:
    if kind not in KINDS:
        raise KeyError(kind)
    return _document(kind)


@cache
def _document(name: str) -> dict[str, Any]:
    """The content of a data file of this folder."""
    return read_document(Path(__file__).with_name(f"{name}.yaml"), f"{name}.yaml").data
