"""Reading of `popularity.yaml`, which `moesim fit` writes and `workload.popularity: {from: FILE}` names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from moesim.errors import ParameterError, ScenarioError
from moesim.scenario.model_shape import model_shape
from moesim.scenario.schema import ModelSpec, PopularitySpec, ScenarioSpec, TopicsSpec
from moesim.scenario.schema.parts import Count, Part
from moesim.scenario.source import Document, Fail, Position, dotted, parse_document, read_text, shown
from moesim.types.popularity import FittedPopularity

SHIPPED = Path(__file__).parent / "presets" / "fitted"
"""The folder of the fits that ship, a file each."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Number = Annotated[int, Field(ge=0, le=1_000_000)]


class _Fit(Part):
    """The fields of the file; see `FittedPopularity`."""

    popularity_version: Literal[1]
    source: str
    model: str = ""
    n_experts: Count
    top_k: Count
    layers: list[_Number] = Field(min_length=1, max_length=10_000)
    topics: Annotated[TopicsSpec, Field(default_factory=TopicsSpec)]
    locality: list[_Share] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    shares: list[list[_Share]]


def fitted_path(text: str) -> Path:
    """The file of a fit: by the name of one that ships, or by its path."""
    return SHIPPED / f"{text}.yaml" if is_shipped(text) else Path(text)


def is_shipped(text: str) -> bool:
    """Whether this is the name of a fit that ships."""
    return text in shipped_fits()


@lru_cache(maxsize=1)
def shipped_fits() -> tuple[str, ...]:
    """The names of the fits that ship."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def read_popularity(path: str | Path) -> tuple[FittedPopularity, str]:
    """The fit in a file, and the file's sha256; one that has not changed since it was read is not read again.

    Raises:
        ScenarioError: what is wrong, with file and line.
    """
    try:
        found = Path(path).stat()
        stamp = found.st_mtime_ns, found.st_size
    except (OSError, ValueError):
        stamp = 0, 0
    return _read(str(path), *stamp)


@lru_cache(maxsize=4)  # the variants of a comparison and the points of a sweep have the same
def _read(path: str, _changed_ns: int, _size: int) -> tuple[FittedPopularity, str]:
    name = Path(path).name
    try:
        text = read_text(Path(path))
    except ScenarioError as error:
        raise ScenarioError(f"{name}: {error}; 'moesim fit' makes such a file") from None
    document = parse_document(text, name)
    try:
        fit = _Fit.model_validate(document.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field: tuple[str | int, ...] = first["loc"]
        found = "an unknown field" if first["type"] == "extra_forbidden" else shown(first["input"])
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        if first["type"] == "missing":
            found, wanted = "nothing", "this field; 'moesim fit' writes it"
        raise _error(document, field, found, wanted) from None
    return _popularity(document, fit), hashlib.sha256(text.encode()).hexdigest()


def _popularity(document: Document, fit: _Fit) -> FittedPopularity:
    n_layers = len(fit.layers)
    if sorted(set(fit.layers)) != fit.layers:
        raise _error(document, ("layers",), shown(fit.layers), "layers in ascending order, each once")
    if not fit.top_k <= fit.n_experts:
        raise _error(document, ("top_k",), fit.top_k, f"at most the {fit.n_experts} experts")
    if len(fit.shares) != n_layers:
        raise _error(document, ("shares",), f"{len(fit.shares)} rows", f"a row for each of the {n_layers} layers")
    if fit.locality and len(fit.locality) != n_layers:
        wanted = f"a number for each of the {n_layers} layers"
        raise _error(document, ("locality",), f"{len(fit.locality)} numbers", wanted)
    for i, row in enumerate(fit.shares):
        if len(row) != fit.n_experts:
            raise _error(document, ("shares", i), f"{len(row)} shares", f"one for each of the {fit.n_experts} experts")
        if not 0.99 < sum(row) < 1.01:
            raise _error(document, ("shares", i), f"shares of sum {sum(row):.4g}", "shares of sum 1")
    shares = np.array(fit.shares)
    return FittedPopularity(
        source=fit.source,
        model=fit.model,
        n_experts=fit.n_experts,
        top_k=fit.top_k,
        layers=tuple(fit.layers),
        shares=shares / shares.sum(axis=1, keepdims=True),
        locality=tuple(fit.locality),
        topic_count=fit.topics.count,
        topic_strength=fit.topics.strength,
        notes=tuple(fit.notes),
    )


def _error(document: Document, field: tuple[str | int, ...], found: Any, wanted: str) -> ScenarioError:
    places = (document.positions.get(field[:n]) for n in range(len(field), -1, -1))
    place: Position | None = next((each for each in places if each is not None), None)
    return ScenarioError(f"{place}: {dotted(field)}: found {found}, wanted {wanted}")


def rows_of_layers(
    fit: FittedPopularity, moe_layers: Sequence[int], *, by_depth: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """For each MoE layer of a model the rows of the fit below and above it [M, 2] and the part of the second [M].

    By their numbers, where the fit has a row for each; in order, where it has
    as many rows. `by_depth`: between the nearest two rows by depth, for the
    layers that have none. None: they do not fit together.
    """
    rows = {layer: row for row, layer in enumerate(fit.layers)}
    n_layers = len(moe_layers)
    if all(layer in rows for layer in moe_layers):
        exact = np.array([rows[layer] for layer in moe_layers])
    elif len(rows) == n_layers:
        exact = np.arange(n_layers)
    elif by_depth:
        place = np.interp(moe_layers, fit.layers, np.arange(len(rows)))
        below = np.floor(place).astype(np.int64)
        above = np.ceil(place).astype(np.int64)
        return np.stack([below, above], axis=1), place - below
    else:
        return None
    return np.stack([exact, exact], axis=1), np.zeros(n_layers)


def layers_of_fit(fit: FittedPopularity, moe_layers: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`rows_of_layers` of a fit that was checked to fit."""
    found = rows_of_layers(fit, moe_layers, by_depth=True)
    assert found is not None
    return found


def fit_for(popularity: PopularitySpec, model: ModelSpec) -> tuple[FittedPopularity, str]:
    """The fit that a scenario names, and its file's sha256.

    Raises:
        ScenarioError: it is wrong.
        ParameterError: it is of another model.
    """
    assert popularity.from_ is not None
    fit, digest = read_popularity(fitted_path(popularity.from_))
    layers = model_shape(model).moe_layers
    if fit.n_experts != model.n_experts:
        found = f"a fit of {fit.n_experts} experts"
        raise ParameterError("from", found, f"one of the {model.n_experts} experts of {model.name}")
    if rows_of_layers(fit, layers, by_depth=popularity.by_depth) is None:
        found = f"a fit of {len(fit.layers)} layers"
        wanted = f"one of the {len(layers)} MoE layers of {model.name}, or by_depth: true for those between"
        raise ParameterError("from", found, wanted)
    return fit, digest


def fields_of_fit(spec: ScenarioSpec, popularity: PopularitySpec, fail: Fail) -> dict[str, Any]:
    """The fields of `workload` that a fit gives where the scenario does not: topics and locality.

    Raises:
        ScenarioError: the fit is wrong, or of another model.
    """
    path = ("workload", "popularity", "from")
    try:
        fit, _ = fit_for(popularity, spec.model)
    except ParameterError as error:
        raise fail(path, str(error.found), error.wanted) from None
    except ScenarioError as error:
        raise fail(path, shown(popularity.from_), f"a readable fit ({error})") from None
    workload = spec.workload
    fitted = {"count": fit.topic_count, "strength": fit.topic_strength}
    own = {name: getattr(workload.topics, name) for name in workload.topics.model_fields_set}
    fields: dict[str, Any] = {"topics": TopicsSpec(**{**fitted, **own})}
    if "locality" not in workload.model_fields_set and fit.locality:
        fields["locality"] = _localities(fit, model_shape(spec.model).moe_layers)
    return fields


def _localities(fit: FittedPopularity, moe_layers: Sequence[int]) -> tuple[float, ...]:
    """The locality of each MoE layer of a model, linear between the rows of the fit."""
    rows, part = layers_of_fit(fit, moe_layers)
    values = np.array(fit.locality)[rows]
    return tuple(round(float(value), 4) for value in values[:, 0] * (1 - part) + values[:, 1] * part)
