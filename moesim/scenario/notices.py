"""What the writer of a scenario file should know: fields that change nothing, and why.

A field is judged by the whole file: it has an effect if it has one in the base scenario, in a variant or at a point of
the sweep, with `--set` or without. What the user did not write in this file is not judged: defaults, presets, fields
of a file that it extends, overrides, and a resolved scenario, in which moesim wrote all fields. Nor are values that
switch something off, as `comm_sms: 0`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from moesim.errors import ScenarioError
from moesim.scenario.merge import NONE_WORDS
from moesim.scenario.no_effect import RULES, level_rule
from moesim.scenario.no_effect_rules import Rule
from moesim.scenario.resolve import SECTIONS
from moesim.scenario.schema import FaultSpec, ScenarioSpec
from moesim.scenario.source import shown

if TYPE_CHECKING:
    from moesim.scenario.scenario import Scenario


def idle_fields(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """(field, text) of what a scenario file writes and what has an effect nowhere in it."""
    if all(scenario.written(part) is not None for part in ScenarioSpec.model_fields):  # a resolved one
        return
    levels = {f"faults.{i}.level": (level_rule(i),) for i in range(len(scenario.spec.faults))}
    for field, known in {**RULES, **levels}.items():
        value = scenario.written(field)
        if not value or value in NONE_WORDS or _had_to_be_written(field, scenario):
            continue
        rules = [rule for rule in known if not (rule.unless and scenario.written(rule.unless))]
        why = _reason(rules, scenario.spec)
        reads = {name for rule in rules for name in rule.reads}
        if why and all(spec is not None and _reason(rules, spec) for spec in _elsewhere(scenario, reads)):
            yield field, f"found {shown(value)}, which has no effect: {why}"


def _reason(rules: Sequence[Rule], spec: ScenarioSpec) -> str:
    """Why a field changes nothing in a scenario, "" where it does."""
    for rule in rules:
        values = [_value(spec, field) for field in rule.reads]
        if rule.idle(*values):
            return rule.why.format(*("none" if value is None else value for value in values))
    return ""


def _value(spec: ScenarioSpec, field: str) -> Any:
    """The value of a field of a checked scenario; None below a part that is not there."""
    node: Any = spec
    for part in field.split("."):
        if isinstance(node, tuple):
            node = node[int(part)] if int(part) < len(node) else None
        else:
            node = getattr(node, part, None)
    return node


def _had_to_be_written(field: str, scenario: Scenario) -> bool:
    """Whether the field has neither a default nor a preset that states it."""
    *parents, name = field.split(".")
    part = FaultSpec if parents[:1] == ["faults"] else SECTIONS.get(tuple(parents))
    known = None if part is None else part.model_fields.get(name)  # none of an alias, which has a default
    return known is not None and known.is_required() and not scenario.written(".".join((*parents, "preset")))


def _elsewhere(scenario: Scenario, reads: set[str]) -> Iterator[ScenarioSpec | None]:
    """The scenario without `--set`, its variants and the points of its sweep, as far as they differ in these fields.

    None stands for one that is wrong, of which nothing is known.
    """
    points: dict[str, dict[str, Any]] = {"{}": {}}
    for point in scenario.points():
        own = {axis: value for axis, value in point.items() if any(_related(axis, field) for field in reads)}
        points.setdefault(json.dumps(own, sort_keys=True, default=str), own)
    makers: list[Callable[[], Scenario]] = [scenario.without_overrides]
    for point in points.values():
        makers += [lambda point=point: scenario.with_point(point)]  # type: ignore[misc]
        makers += [
            lambda point=point, name=name: scenario.with_point(point).variant(name)  # type: ignore[misc]
            for name in scenario.variant_names()
        ]
    for make in makers:
        try:
            yield make().spec
        except ScenarioError:
            yield None


def _related(one: str, other: str) -> bool:
    """Whether one dotted field is the other or a part of it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
