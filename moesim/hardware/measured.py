"""Latencies that are looked up in measured tables instead of computed, for sizes among the measured ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Seconds = NDArray[np.float64]

MEASURED, INTERPOLATED = "measured", "interpolated"
OUTSIDE = "outside the measured sizes"
NO_SHAPE = "no rows of this shape"
MIXED = "prompts of several lengths"

LAYOUTS_OF_STEPS: Mapping[str, str] = {
    "moe": "experts",
    "wideep_context": "experts",
    "wideep_generation": "experts",
    "gemm": "dense products",
    "attention_context": "attention",
    "attention_generation": "attention",
    "mla_context": "attention",
    "mla_generation": "attention",
    "mla_bmm": "absorbed products",
    "allreduce": "all-reduce",
}
"""The layouts of tables that a step takes, and the part under which results count each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """R measurements: `group` framework/kernel/data type [R], `shape` [R, n], `seconds` [R].

    `size` [R] varies along a curve (tokens or requests); `series` [R] tells the
    curves of one shape apart (tokens of a prompt or of a cache), 0 where a
    shape has one curve.
    """

    group: NDArray[np.str_]
    shape: NDArray[np.float64]
    series: NDArray[np.float64]
    size: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @cached_property
    def groups(self) -> frozenset[str]:
        """All groups of the rows."""
        return frozenset(self.group.tolist())


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Ascending sizes [N] and their seconds [N]; `measured`: they are measurements, not between two curves."""

    size: NDArray[np.float64]
    seconds: NDArray[np.float64]
    measured: bool

    def at(self, sizes: NDArray[np.float64]) -> tuple[Seconds, list[str]]:
        """Seconds at sizes [G] and where each is from; NaN outside the curve.

        A measured size has its latency. Between two of them the logarithm of
        time is linear in the logarithm of size, as kernels are power laws over
        short ranges.
        """
        place = np.minimum(np.searchsorted(self.size, sizes), len(self.size) - 1)
        met = self.size[place] == sizes
        inside = (sizes >= self.size[0]) & (sizes <= self.size[-1])
        between = np.exp(np.interp(np.log(sizes), np.log(self.size), np.log(self.seconds)))
        seconds = np.where(met, self.seconds[place], np.where(inside, between, np.nan))
        words = np.where(met & self.measured, MEASURED, np.where(inside, INTERPOLATED, OUTSIDE))
        return seconds, words.tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The measured tables of a run.

    `name` is that of the file or folder, `files` has the digest of each table in
    it, `sha256` is the digest of all; `rows` are by layout; `excluded` names the
    parts that take their formula nevertheless, and why. Lookups fill `seen` (each
    size once), `curves` (the curves that they took) and `even` (seconds of evenly
    loaded experts by the formula). `scaled` says what the caller does to the
    latencies that it looks up, "" if it takes them as they are; `levels` keeps
    the sizes that were scaled, and how.
    """

    name: str
    files: Mapping[str, str]
    sha256: str
    rows: Mapping[str, Rows]
    excluded: Mapping[str, str] = field(default_factory=dict)
    curves: dict[Hashable, Curve | str] = field(default_factory=dict)
    even: dict[Hashable, float] = field(default_factory=dict)
    seen: dict[str, dict[Hashable, str]] = field(default_factory=dict)
    scaled: str = ""
    levels: dict[Hashable, str] = field(default_factory=dict)

    def scaled_by(self, what: str) -> Measured:
        """The same tables for a caller that scales their latencies, which then are not measured times."""
        return replace(self, scaled=what)

    def seconds(
        self, kind: str, group: str, shape: tuple[float, ...], sizes: ArrayLike, series: ArrayLike = 0.0
    ) -> Seconds:
        """Measured seconds at sizes [G], NaN where the formula has to stand.

        Args:
            kind: name of the layout.
            group: framework/kernel/data type.
            shape: in the order of the kind's columns.
            sizes: along the curve; a size of 0 takes no time and is not looked up, NaN stands for prompts of several
                lengths.
            series: which of the curves of a shape, a number or [G]; between two of them the same law holds.
        """
        asked, series_of = np.broadcast_arrays(np.asarray(sizes, np.float64), np.asarray(series, np.float64))
        found = np.where(asked == 0, 0.0, np.nan)
        seen = self.seen.setdefault(LAYOUTS_OF_STEPS[kind], {})
        for value in np.unique(series_of[asked != 0]).tolist():
            where = (series_of == value) & (asked != 0)
            curve = self._curve(kind, group, shape, value)
            if isinstance(curve, str):
                words = [curve] * int(where.sum())
            else:
                found[where], words = curve.at(asked[where])
            for size, word in zip(asked[where].tolist(), words, strict=True):
                key = (kind, group, shape, value, size)
                seen[key] = MIXED if math.isnan(size) else word
                if self.scaled:
                    self.levels[key] = self.scaled
        return found

    def measured_or(
        self,
        formula: Callable[[Any], Seconds],
        kind: str,
        group: str,
        shape: tuple[float, ...],
        sizes: ArrayLike,
        series: ArrayLike = 0.0,
        extra_seconds: Callable[[Any], Seconds] | None = None,
    ) -> Seconds:
        """Measured seconds at sizes [G], and those of the formula for the places (bool [G]) that have none.

        `extra_seconds`: seconds to add to measured ones, likewise.
        """
        found = self.seconds(kind, group, shape, sizes, series)
        missing = np.isnan(found)
        if extra_seconds is not None and not missing.all():
            found[~missing] += extra_seconds(~missing)
        if missing.any():
            found[missing] = formula(missing)
        return found

    def sizes(self) -> dict[str, dict[str, int]]:
        """How many different sizes of each part were measured, interpolated, or left to the formula, by reason."""
        counts = {part: Counter(seen.values()) for part, seen in sorted(self.seen.items()) if seen}
        first = (MEASURED, INTERPOLATED)
        return {
            part: {word: own[word] for word in (*first, *sorted(set(own) - set(first))) if own[word]}
            for part, own in counts.items()
        }

    def provenance(self) -> dict[str, str]:
        """The same in words, with their label; sizes that were measured, and taken as they were, apart from others."""
        said = {}
        for part, seen in sorted(self.seen.items()):
            exact = sum(word == MEASURED and key not in self.levels for key, word in seen.items())
            if exact:
                said[part] = f"measured: {exact} of {len(seen)} sizes"
            if exact < len(seen):
                others = Counter(
                    _otherwise(word, self.levels.get(key, ""))
                    for key, word in seen.items()
                    if word != MEASURED or key in self.levels
                )
                words = [f"{k} of {len(seen)} sizes {how}" for how, k in sorted(others.items(), key=_measured_first)]
                said[f"{part}, other sizes" if exact else part] = f"estimated: {', '.join(words)}"
        return said

    def _curve(self, kind: str, group: str, shape: tuple[float, ...], series: float) -> Curve | str:
        """The curve, or why there is none."""
        if LAYOUTS_OF_STEPS[kind] in self.excluded:
            return self.excluded[LAYOUTS_OF_STEPS[kind]]
        key = (kind, group, shape, series)
        if key not in self.curves:
            self.curves[key] = self._find(kind, group, shape, series)
        return self.curves[key]

    def _find(self, kind: str, group: str, shape: tuple[float, ...], series: float) -> Curve | str:
        rows = self.rows.get(kind)
        if rows is None or group not in rows.groups:
            return f"no rows of {group}"
        own = (rows.group == group) & (rows.shape == np.asarray(shape)).all(axis=1)
        known = np.unique(rows.series[own])
        if not len(known):
            return NO_SHAPE
        if series in known:
            return _medians(rows, own & (rows.series == series))
        above = int(np.searchsorted(known, series))
        if above in (0, len(known)):
            return OUTSIDE
        low, high = (_medians(rows, own & (rows.series == known[i])) for i in (above - 1, above))
        common, of_low, of_high = np.intersect1d(low.size, high.size, return_indices=True)
        if not len(common):
            return OUTSIDE
        share = np.log(series / known[above - 1]) / np.log(known[above] / known[above - 1])
        logs = (1 - share) * np.log(low.seconds[of_low]) + share * np.log(high.seconds[of_high])
        return Curve(size=common, seconds=np.exp(logs), measured=False)


def _medians(rows: Rows, own: NDArray[np.bool_]) -> Curve:
    """A curve of measurements; of those of the same size the median."""
    sizes, which = np.unique(rows.size[own], return_inverse=True)
    seconds = rows.seconds[own]
    medians = np.array([np.median(seconds[which == i]) for i in range(len(sizes))])
    return Curve(size=sizes, seconds=medians, measured=True)


def _otherwise(word: str, scaled: str) -> str:
    """How a size was found that is not measured, or not as it is used."""
    if word not in (MEASURED, INTERPOLATED):
        return f"by formula ({word})"
    return f"{word}, then {scaled}" if scaled else f"{word} between measurements"


def _measured_first(counted: tuple[str, int]) -> tuple[bool, bool, str]:
    how = counted[0]
    return not how.startswith(MEASURED), not how.startswith(INTERPOLATED), how
