"""What `workload.popularity` means: its preset, its kind, and the router under which a stated load comes out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from moesim.scenario import schema
from moesim.scenario.model_shape import model_shape
from moesim.scenario.source import Fail, FieldPath, shown

PATH: FieldPath = ("workload", "popularity")


def with_kind(popularity: Any) -> Any:
    """The fields as written, with the kind that they imply where none is written."""
    if not isinstance(popularity, Mapping) or "kind" in popularity:
        return popularity
    implied = (kind for kind in schema.LOAD_KINDS if schema.POPULARITY_FIELDS[kind][0] in popularity)
    return {**popularity, "kind": next(implied, "zipf")}


def refuse_fields_of_other_kinds(written: Any, popularity: Any, fail: Fail) -> None:
    """Refuse a field that is set over a preset whose kind does not read it, as a variant or `--set` may do.

    Raises:
        ScenarioError: the field, and what would take its value.
    """
    if not (isinstance(written, Mapping) and "preset" in written) or "kind" in written:
        return
    kind = popularity["kind"]
    others = {field for name, fields in schema.POPULARITY_FIELDS.items() if name != kind for field in fields}
    for field in sorted(others & set(written)):
        read = ", ".join(schema.POPULARITY_FIELDS[kind])
        raise fail(
            (*PATH, field),
            shown(written[field]),
            f"one of {read} over the preset {written['preset']}, or workload.popularity: {{{field}: ...}} in its place",
        )


def router_fields(routing: schema.RoutingSpec | schema.LoadRouterSpec, model: schema.ModelSpec) -> dict[str, Any]:
    """The fields of a router, the model's own where it names none."""
    name = model.router if routing.strategy is None else routing.strategy
    own = model.router_parameters if name == model.router else {}
    return {"top_k": routing.top_k or model.top_k, "strategy": name, "parameters": {**own, **routing.parameters}}


def load_router(spec: schema.ScenarioSpec, base_routing: Any) -> schema.LoadRouterSpec:
    """The router that gives a stated load: as written, else that of `routing` before variants and sweeps."""
    written: schema.RoutingSpec | schema.LoadRouterSpec = spec.workload.popularity.router or spec.routing
    if spec.workload.popularity.router is None and base_routing is not None:
        with suppress(ValidationError):  # of a base that its variants replace
            written = schema.RoutingSpec.model_validate(base_routing)
    return schema.LoadRouterSpec(**router_fields(written, spec.model))


def popularity_rules(spec: schema.ScenarioSpec) -> list[tuple[bool, FieldPath, Any, str]]:
    """What its kind needs, as (holds, field, found, wanted)."""
    found, n_experts = spec.workload.popularity, spec.model.n_experts
    lognormal, hot, shares, counts = (found.kind == kind for kind in ("lognormal", "hot", "shares", "counts"))
    n_layers = len(model_shape(spec.model).moe_layers)
    deviations = [*found.sigma, *found.group_sigma]
    return [
        (
            bool(found.sigma) or not lognormal or found.target is not None,
            (*PATH, "sigma"),
            None,
            "a number, as kind lognormal needs it",
        ),
        (min(deviations) >= 0, PATH, min(deviations), "standard deviations from 0"),
        (
            bool(found.group_exponent and found.group_sigma),
            PATH,
            "an empty list",
            "a number, or one or more of them, for group_exponent and group_sigma",
        ),
        *(
            (
                getattr(found, field) is not None or found.kind != kind or found.target is not None,
                (*PATH, field),
                None,
                f"a number, as kind {kind} needs it",
            )
            for kind, field in (("power-law", "alpha"), ("dirichlet", "concentration"))
        ),
        (
            found.groups <= n_experts or not lognormal,
            (*PATH, "groups"),
            found.groups,
            f"at most the {n_experts} experts of {spec.model.name}",
        ),
        (found.share is not None or not hot, (*PATH, "share"), None, "a share, as kind hot needs it"),
        (
            not hot or (found.experts is not None and found.experts < n_experts),
            (*PATH, "experts"),
            found.experts,
            f"1 to {n_experts - 1} of the {n_experts} experts of {spec.model.name}",
        ),
        *_target_rules(found, n_experts),
        *_shares_rules(found.shares, n_layers, n_experts, needed=shares),
        (
            counts == (found.counts is not None),
            (*PATH, "kind" if found.counts else "counts"),
            found.kind if found.counts else None,
            "counts, since a file of counts is named" if found.counts else "a file, as kind counts needs it",
        ),
        (
            (found.kind == "fitted") == (found.from_ is not None),
            (*PATH, "kind" if found.from_ else "from"),
            found.kind if found.from_ else None,
            "fitted, since a fit is named" if found.from_ else "what moesim fit wrote, as kind fitted needs it",
        ),
        (
            found.router is None or found.router.top_k is None or found.router.top_k <= n_experts,
            (*PATH, "router", "top_k"),
            found.router and found.router.top_k,
            f"at most the {n_experts} experts of {spec.model.name}",
        ),
    ]


SOLVED_FIELDS = {"zipf": "exponent", "lognormal": "sigma", "dirichlet": "concentration"}
"""What a target is solved by, of the kinds that can have one."""


def _target_rules(popularity: schema.PopularitySpec, n_experts: int) -> list[tuple[bool, FieldPath, Any, str]]:
    """What a target of skew must be."""
    target, path = popularity.target, (*PATH, "target")
    if target is None:
        return []
    stated = [name for name in schema.TARGET_METRICS if getattr(target, name) is not None]
    ranks, experts = target.ranks, target.experts
    return [
        (len(stated) == 1, path, ", ".join(stated) or "no metric", f"one of {', '.join(schema.TARGET_METRICS)}"),
        (popularity.kind in SOLVED_FIELDS, path, f"kind {popularity.kind}", f"one of {', '.join(SOLVED_FIELDS)}"),
        (
            target.balancedness is None or (ranks is not None and ranks > 1 and n_experts % ranks == 0),
            (*path, "ranks"),
            ranks,
            f"a number from 2 that divides the {n_experts} experts, as balancedness needs it",
        ),
        (
            target.top_share is None or (experts is not None and experts < n_experts),
            (*path, "experts"),
            experts,
            f"1 to {n_experts - 1} experts, as top_share needs it",
        ),
    ]


def _shares_rules(
    rows: tuple[tuple[float, ...], ...], n_layers: int, n_experts: int, *, needed: bool
) -> list[tuple[bool, FieldPath, Any, str]]:
    """What stated shares must be, where a kind needs them."""
    if not needed:
        return []
    path, lengths = (*PATH, "shares"), [len(row) for row in rows]
    wrong = next((i for i, length in enumerate(lengths) if length != n_experts), -1)
    empty = next((i for i, row in enumerate(rows) if not sum(row) > 0), -1)
    return [
        (bool(rows), path, None, "a list of numbers, as kind shares needs it"),
        (len(rows) in (1, n_layers), path, f"{len(rows)} lists", f"one, or one for each of {n_layers} MoE layers"),
        (wrong < 0, path, f"{[*lengths, 0][wrong]} numbers in list {wrong}", f"{n_experts}, one for each expert"),
        (empty < 0, path, f"only zeros in list {empty}", "a load above 0"),
    ]
