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


def aliases(kind: str) -> dict[str, list[str]]:
    """Other names of each preset of "gpus" or "models".

    Of a GPU these are what people and drivers call it, in small letters and without its maker; of a model the
    organisation/name of those on Hugging Face that have its shape.
    """
    return copy.deepcopy(_document(_ALIASES[kind]))


def canonical(kind: str, name: str) -> str:
    """The name of a preset that people may call otherwise: "NVIDIA H100 80GB HBM3" is h100-sxm.

    Neither case nor signs count, of GPUs nor the words of a maker, of models nor an organisation before a slash.
    What no preset is called stays as it is.
    """
    if kind not in _ALIASES or name in names(kind):
        return name
    return _other_names(kind).get(_plain(kind, name), name)


def suggestion(kind: str, name: Any) -> str:
    """The end of an error about an unknown preset: " (did you mean NAME?)", "" if none is called anything like it."""
    if kind not in _ALIASES:
        return did_you_mean(name, names(kind))
    known = _other_names(kind)
    similar = nearest(_plain(kind, str(name)), known)
    return did_you_mean(name, names(kind)) if similar is None else f" (did you mean {known[similar]}?)"


_ALIASES = {"gpus": "gpu_aliases", "models": "model_aliases"}
"""Data files with other names, by kind."""


@cache
def _other_names(kind: str) -> dict[str, str]:
    """Presets by the plain form of all their names."""
    own = {_plain(kind, name): name for name in names(kind)}
    others = {_plain(kind, alias): name for name, known in aliases(kind).items() for alias in known}
    if kind == "models":  # with its organisation, which may be part of what is written, and without
        others |= {
            _plain(kind, alias.rpartition("/")[2]): name for name, known in aliases(kind).items() for alias in known
        }
    return {**others, **own}


def _plain(kind: str, name: str) -> str:
    """Letters and digits of a name, of GPUs without the words of makers."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(word for word in words if kind != "gpus" or word not in _MAKERS)


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
