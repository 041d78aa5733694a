"""Axes of a sweep as people read them, and the lines that its points make along one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moesim.frames import axes_of
from moesim.report.comparison import NONE
from moesim.report.text import printable

CAPACITY = ("routing.capacity.factor",)
SKEW = ("workload.popularity.exponent", "workload.popularity.sigma", "workload.popularity.share")
BATCH = ("workload.tokens_per_gpu",)
EP_SIZE = ("parallelism.expert", "cluster.nodes", "cluster.gpus_per_node")
INTERCONNECT = ("cluster.network.name", "cluster.network", "cluster.network.copies")

_TITLES: Mapping[str, str] = {
    "routing.capacity.factor": "capacity factor",
    "routing.strategy": "router",
    "routing.top_k": "top k [choices a token]",
    "workload.popularity.exponent": "skew [Zipf exponent of the popularity]",
    "workload.popularity.sigma": "skew [standard deviation of ln load]",
    "workload.popularity.share": "skew [share of the hot experts]",
    "workload.tokens_per_gpu": "batch [tokens per GPU and step]",
    "workload.context_tokens": "context [tokens]",
    "workload.sequence_tokens": "sequence [tokens]",
    "parallelism.expert": "EP size [GPUs]",
    "parallelism.expert_tp": "GPUs that share an expert",
    "parallelism.attention": "attention",
    "parallelism.attention_tp": "GPUs that share heads",
    "cluster.nodes": "nodes",
    "cluster.gpus_per_node": "GPUs per node",
    "cluster.network.name": "interconnect",
    "cluster.network": "interconnect",
    "cluster.network.copies": "copies of the collective",
    "cluster.gpu.name": "GPU",
    "cluster.gpu": "GPU",
    "placement.strategy": "placement",
    "placement.redundant_experts": "redundant experts",
}

_BY_VALUE = (
    "variant",
    "routing.strategy",
    "placement.strategy",
    *INTERCONNECT,
    "cluster.gpu.name",
    "cluster.gpu",
    "routing.capacity.overflow",
    "routing.capacity.scope",
)
"""Axes whose values need no name of the axis next to them."""


def axis_title(axis: str) -> str:
    """The name of an axis with its unit; of an unknown one the dotted field itself."""
    return _TITLES.get(axis, printable(axis, 60))


@dataclass(frozen=True, kw_only=True)
class Line:
    """The points of one line along an axis.

    `x` are numbers, or texts where the axis is no number; `mean`, `low` and
    `high` hold the value of a summary key: mean over seeds and its 95 %
    confidence interval (Student's t), equal where there is one seed. `n` is the
    number of seeds of each point, `group` what shares a colour.
    """

    name: str
    group: str
    x: list[Any]
    mean: list[float]
    low: list[float]
    high: list[float]
    n: list[int]


def varying(points: pd.DataFrame) -> list[str]:
    """The axes that take more than one value, and `variant` where no axis tells the variants apart."""
    axes = [axis for axis in axes_of(points) if _varies(points, axis)]
    apart = len(_combinations(points, axes)) if axes else 1
    return axes if apart >= len(_combinations(points, [*axes_of(points), "variant"])) else ["variant", *axes]


def _combinations(points: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """What stands in these columns, once each, as text: a cell may be a list."""
    return points[columns].map(axis_text).drop_duplicates()


def _varies(points: pd.DataFrame, axis: str) -> bool:
    return len(set(points[axis].map(axis_text))) > 1


def first_axis(points: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The first of these axes that varies, or None."""
    known = axes_of(points)
    return next((name for name in names if name in known and _varies(points, name)), None)


def lines(points: pd.DataFrame, axis: str, key: str) -> list[Line]:
    """The values of a summary key along an axis: a line for every combination of what else varies.

    A point without a capacity ("none") belongs to all lines that agree with it
    in everything but the capacity. Lines of one point are left out.
    """
    if key not in points.columns:
        return []
    others = [other for other in varying(points) if other != axis]
    of_axis = axis.rpartition(".")[0] + "." if axis in CAPACITY else None
    free = [other for other in others if of_axis is not None and other.startswith(of_axis)]
    absent = points[axis].map(axis_text) == NONE
    shared = points[absent] if free else points.iloc[:0]
    own = points[~absent] if free else points
    parts = [(dict(zip(others, values, strict=True)), part) for values, part in groups(own, others)]
    told = telling([values for values, _ in parts])
    found = []
    for values, part in parts:
        same = np.ones(len(shared), dtype=bool)
        for other, value in values.items():
            if other not in free:
                same &= (shared[other].map(axis_text) == value).to_numpy()
        name = ", ".join(say(other, values[other]) for other in told)
        group = values.get("routing.strategy", values.get("variant", ""))
        line = _line(pd.concat([part, shared[same]]), axis, key, name=name, group=group)
        if len(line.x) > 1:
            found.append(line)
    return found


def few_lines(points: pd.DataFrame, axis: str, key: str, most: int) -> tuple[list[Line], str]:
    """At most about `most` lines along an axis: where there are more, other axes are held at their first value.

    Held are axes other than variant, router and capacity, the last first.

    Returns:
        The lines, and in words what was held where: "at batch 16, EP size 8", or "".
    """
    found, held = lines(points, axis, key), []
    for other in reversed(varying(points)):
        if len(found) <= most:
            break
        if other in (axis, "variant", "routing.strategy") or other.startswith("routing.capacity."):
            continue
        first = axis_text(points[other].iloc[0])
        points = points[points[other].map(axis_text) == first]
        held.append(say(other, first))
        found = lines(points, axis, key)
    return found, f"at {', '.join(reversed(held))}" if held else ""


def telling(values: Sequence[Mapping[str, str]]) -> list[str]:
    """The axes that tell lines apart, each only if those before it do not."""
    told: list[str] = []
    apart = 1
    for name in sorted(values[0] if values else (), key=lambda name: name not in _BY_VALUE):
        now = len({tuple(v[other] for other in [*told, name]) for v in values})
        if now > apart:
            told, apart = [*told, name], now
    return told


def say(axis: str, value: str) -> str:
    """An axis and its value in a legend."""
    return value if axis in _BY_VALUE else f"{axis_title(axis).partition(' [')[0]} {value}"


_RANGES = {
    **dict.fromkeys(("drop_rate", "token_drop_rate", "unrouted_token_rate", "reroute_rate"), (0.0, 1.0)),
    **dict.fromkeys(("balancedness", "balancedness_requested"), (0.0, 1.0)),
    **dict.fromkeys(("max_violation", "max_violation_processed"), (0.0, np.inf)),
}
"""What these keys can be at all: an interval of few seeds, which knows nothing of it, ends there."""


def groups(points: pd.DataFrame, others: Sequence[str]) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Rows by their texts in these columns, in the order of their first appearance."""
    if not others:
        return [((), points)]
    texts = points[list(others)].map(axis_text)
    keys = list(texts.itertuples(index=False, name=None))
    order = list(dict.fromkeys(keys))
    return [(key, points[[other == key for other in keys]]) for key in order]


def _line(points: pd.DataFrame, axis: str, key: str, *, name: str, group: str) -> Line:
    numeric = is_numeric(points[axis])
    places: dict[Any, list[float]] = {}
    for x, value in zip(points[axis], points[key], strict=True):
        if value is not None and np.isfinite(value):
            place = float(x) if numeric and axis_text(x) != NONE else axis_text(x)
            places.setdefault(place, []).append(float(value))
    order = sorted(places, key=lambda x: (isinstance(x, str), x if numeric and not isinstance(x, str) else 0.0))
    spreads = [interval(places[x]) for x in order]
    least, most = _RANGES.get(key.partition(".")[0], (-np.inf, np.inf))
    return Line(
        name=name,
        group=group,
        x=order,
        mean=[mean for mean, _, _ in spreads],
        low=[max(low, least) for _, low, _ in spreads],
        high=[min(high, most) for _, _, high in spreads],
        n=[len(places[x]) for x in order],
    )


def is_numeric(values: pd.Series[Any]) -> bool:
    """Whether all values but the absent ones are numbers."""
    known = [value for value in values if axis_text(value) != NONE]
    return bool(known) and all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in known)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of independent seeds and the ends of its 95 % confidence interval; of one value three times itself."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, mean - half, mean + half


def axis_text(value: Any) -> str:
    """A value of an axis as it reads; what is absent is "none"."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return NONE
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return printable(value)
