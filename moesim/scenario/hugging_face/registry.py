"""The families of models that are known: a reader each, with what their files leave out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.parts import Fields, general

Reader = Callable[[Config], Fields]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model_type.

    Attributes:
        model_type: as a config.json states it.
        example: a model of the family, as organisation/name.
        read: gives the fields of a scenario's model.
        defaults: values of fields that a file may leave out, by our names (`keys.KEYS`) or the file's: those of
            transformers' class (`families/class_defaults.json`), and what only its code says.
        keys: under which keys the family states a field, where these are not those of `KEYS`.
        untold: what is not modelled, or taken in another way.
    """

    model_type: str
    example: str
    read: Reader = general
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    untold: str = ""


FAMILIES: dict[str, Family] = {}
"""By model_type, in the order of the modules of `families`."""


def register(model_type: str, example: str, **rest: Any) -> None:
    """Add a family; arguments as the attributes of `Family`."""
    assert model_type not in FAMILIES, model_type
    defaults = {**class_defaults().get(model_type, {}), **rest.pop("defaults", {})}
    FAMILIES[model_type] = Family(model_type=model_type, example=example, defaults=defaults, **rest)


@cache
def class_defaults() -> dict[str, dict[str, Any]]:
    """What transformers takes where a file is silent, by model_type; a test of `make test-ref` holds it."""
    found = json.loads((Path(__file__).parent / "families" / "class_defaults.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def family(model_type: str, example: str, **rest: Any) -> Callable[[Reader], Reader]:
    """Make the decorated function the reader of a family; several decorators, several families."""

    def decorate(read: Reader) -> Reader:
        register(model_type, example, read=read, **rest)
        return read

    return decorate
