"""The fields of `workload`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from moesim.scenario.schema.parts import Count, CountOrZero, NoneWord, Part, described
from moesim.scenario.schema.skew import BurstsSpec, DriftSpec, PatternSpec, TargetSpec, TopicsSpec, kind_of_pattern


def _scalar_to_tuple(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("a number, or a list of numbers")  # noqa: TRY004 - pydantic shows ValueErrors
    return tuple(value)


_ByDepth = Annotated[
    tuple[Annotated[float, Field(ge=-20, le=20)], ...],
    BeforeValidator(_scalar_to_tuple, json_schema_input_type=float | list[float]),
]


def _one_row(value: Any) -> Any:
    """A list of numbers is the one row of a list of lists."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of numbers, or one for each MoE layer")  # noqa: TRY004 - pydantic shows ValueErrors
    rows = value if all(isinstance(row, list | tuple) for row in value) else (value,)
    return tuple(tuple(row) for row in rows)


_Shares = Annotated[
    tuple[tuple[Annotated[float, Field(ge=0, le=1e18)], ...], ...],
    BeforeValidator(_one_row, json_schema_input_type=list[float] | list[list[float]]),
]
_Probabilities = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1)], ...],
    BeforeValidator(_scalar_to_tuple, json_schema_input_type=float | list[float]),
]


_BY_DEPTH = "; one number, or some from the first MoE layer to the last at equal distances, linear between"


POPULARITY_KINDS: Mapping[str, str] = {
    "zipf": "experts are wanted in proportion to r^-exponent of their order r; their load is more even",
    "uniform": "all experts are wanted alike",
    "lognormal": "ln of the load is normal, if wanted by depth and by groups of experts",
    "power-law": "loads of the density x^-alpha, as the collector of the measured tables draws them",
    "dirichlet": "shares of a symmetric Dirichlet law, the more even the larger concentration is",
    "hot": "some experts of each layer have a share of its load, the others the same each",
    "shares": "each expert has the stated load",
    "counts": "the load of a file",
    "fitted": "the load that moesim fit found in a recording, with its topics and locality",
}
"""What each kind of popularity says."""
POPULARITY_FIELDS: Mapping[str, tuple[str, ...]] = {
    "zipf": ("exponent",),
    "uniform": (),
    "lognormal": ("sigma", "groups", "group_exponent", "group_sigma"),
    "power-law": ("alpha",),
    "dirichlet": ("concentration",),
    "hot": ("share", "experts"),
    "shares": ("shares",),
    "counts": ("counts",),
    "fitted": ("from", "by_depth"),
}
"""What each kind of popularity reads; the first that is named tells the kind where none is written."""
LOAD_KINDS = ("lognormal", "power-law", "dirichlet", "hot", "shares", "counts", "fitted")
"""Kinds that state the load that comes out."""


class LoadRouterSpec(Part):
    """A router, as in `routing`."""

    strategy: Annotated[str | None, NoneWord] = None
    top_k: Count | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class PopularitySpec(Part):
    """How unequally experts are wanted: by an exponent, or by the load that comes out (all other kinds).

    Such a load is that of the topics together, before substitution and capacity.
    """

    model_config = ConfigDict(**Part.model_config, serialize_by_alias=True)

    name: str = described("inline", "shown in reports")
    kind: Literal["zipf", "uniform", "lognormal", "power-law", "dirichlet", "hot", "shares", "counts", "fitted"] = (
        described(
            "zipf",
            "; ".join(f"{kind}: {summary}" for kind, summary in POPULARITY_KINDS.items())
            + ". Default: what the fields below say, else zipf",
        )
    )
    exponent: float = described(0.0, "of zipf: popularity of the expert of order r is r^-exponent", ge=0, le=20)
    sigma: _ByDepth = described((), "of lognormal: standard deviation of ln load within a group" + _BY_DEPTH)
    groups: Annotated[int, Field(ge=1, le=100_000)] = described(1, "of lognormal: runs of consecutive experts")
    group_exponent: _ByDepth = described(
        (0.0,), "of lognormal: the group of number r (from 1) has load r^-exponent" + _BY_DEPTH
    )
    group_sigma: _ByDepth = described((0.0,), "of lognormal: standard deviation of ln load of a group" + _BY_DEPTH)
    alpha: float | None = described(
        None, "of power-law: exponent of the density of loads, from 1 to 0.8 x the tokens of a step", ge=0, le=20
    )
    concentration: float | None = described(None, "of dirichlet: parameter of each expert", ge=1e-3, le=1e9)
    share: float | None = described(None, "of hot: part of a layer's load that the hot experts have", gt=0, le=1)
    experts: Count | None = described(None, "of hot: how many they are, drawn at random in every layer")
    shares: _Shares = described(
        (), "load of each expert, in any unit: one list for all MoE layers, or a list of such lists, one for each"
    )
    counts: str | None = described(
        None,
        "assignments by layer and expert, a file relative to this one: .json (logical_count [layers][experts] or "
        "[steps][layers][experts]), .npy, .csv (layer,expert,count or a matrix), JSON and CSV also .gz",
    )
    from_: str | None = Field(
        default=None,
        alias="from",
        description="what moesim fit wrote, a file relative to this one, or the name of a fit that ships; its topics "
        "and locality hold where workload says nothing of them",
    )
    by_depth: bool = described(
        False,
        "of fitted: layers that were not recorded have loads between those of the nearest recorded ones by depth, "
        "dealt to experts at random",
    )
    target: TargetSpec | None = described(
        None,
        "how uneven the load is to be, by which exponent of zipf, sigma of lognormal or concentration of dirichlet is "
        "solved for, before variants and sweeps",
    )
    router: LoadRouterSpec | None = described(
        None,
        "of a target and of all kinds but zipf and uniform: the router that gives this load; default: routing without "
        "variants and sweeps, or the model's own where that router does not follow popularity",
    )
    source: str = ""


class WorkloadSpec(Part):
    """The tokens of each step."""

    kind: Literal["steps"] = "steps"
    phase: Literal["decode", "prefill", "train"] = "decode"
    steps: Annotated[int, Field(ge=1, le=10**7)] = 20
    tokens_per_gpu: Count | None = described(None, "a step; 128 in decode, 4096 otherwise; a whole trace with one")
    context_tokens: CountOrZero = described(2048, "cached tokens of a sequence in decode")
    sequence_tokens: Count = described(4096, "tokens of a sequence in prefill and train")
    popularity: Annotated[PopularitySpec, Field(default_factory=PopularitySpec)]
    topics: Annotated[TopicsSpec, Field(default_factory=TopicsSpec)]
    locality: _Probabilities = described(
        (0.0,),
        "probability that a token and an expert take the noise of their segment, 8 tokens of a sequence: near tokens "
        "choose alike, loads stay in the mean; one number, one for each MoE layer, or some from the first to the last "
        "at equal distances, linear between",
    )
    generated_tokens: Count | None = described(
        None, "tokens of a sequence in decode, after which another takes its place; none = the same in all steps"
    )
    drift: DriftSpec | None = described(None, "of popularity; none = it stays")
    bursts: BurstsSpec | None = described(None, "of tokens on few experts; none = there are none")
    pattern: (
        Annotated[PatternSpec, BeforeValidator(kind_of_pattern, json_schema_input_type=str | PatternSpec)] | None
    ) = described(None, "choices that are dealt by a rule instead of routed; a name (moesim list patterns) or fields")
    sampling: Literal["logits", "direct", "auto"] = described(
        "logits",
        "how the choices of synthetic tokens are drawn: from logits; directly, which is many times faster and exact "
        "where no weight is needed; auto = directly where that is exact for all variants",
    )
    trace: str | None = described(None, "recorded routing to replay (moesim import), relative to this file")
    trace_steps: Literal["whole", "recorded"] = described(
        "whole",
        "steps of a trace without tokens_per_gpu: all of its tokens are one, or each recorded forward pass is one",
    )
