"""What the fields of `workload` that change its skew must agree on."""

from __future__ import annotations

from typing import Any

from moesim.scenario import schema
from moesim.scenario.source import FieldPath

Rule = tuple[bool, FieldPath, Any, str]
"""Whether it holds, the field, what it is and what it should be."""


def skew_rules(spec: schema.ScenarioSpec) -> list[Rule]:
    """The rules of locality, topics and bursts."""
    workload, n_experts = spec.workload, spec.model.n_experts
    rules: list[Rule] = [
        (bool(workload.locality), ("workload", "locality"), "an empty list", "a probability, or some of them"),
        *_mixture_rules(workload),
    ]
    pattern = workload.pattern
    if pattern is not None:
        rules.append(
            (
                pattern.kind != "burst" or pattern.duration_steps <= pattern.every_steps,
                ("workload", "pattern", "duration_steps"),
                pattern.duration_steps,
                f"at most every_steps, {pattern.every_steps}",
            )
        )
        rules.append(
            (workload.trace is None, ("workload", "pattern"), pattern.kind, "none with a trace, which has the choices")
        )
    bursts, path = workload.bursts, ("workload", "bursts")
    if bursts is not None:
        most = f"at most the {n_experts} experts of {spec.model.name}"
        longest = f"at most every_steps, {bursts.every_steps}"
        rules += [
            (bursts.experts <= n_experts, (*path, "experts"), bursts.experts, most),
            (bursts.duration_steps <= bursts.every_steps, (*path, "duration_steps"), bursts.duration_steps, longest),
        ]
    return rules


def _mixture_rules(workload: schema.WorkloadSpec) -> list[Rule]:
    """The rules of the mixture of topics."""
    mixture, count, path = workload.topics.mixture, workload.topics.count, ("workload", "topics", "mixture")
    steps = [entry.step for entry in mixture]
    rules: list[Rule] = [
        (steps == sorted(set(steps)), path, steps, "entries of ascending steps"),
        (
            len(mixture) < 2 or workload.phase != "decode" or workload.generated_tokens is not None,
            path,
            f"{len(mixture)} entries",
            "one entry, or workload.generated_tokens: in decode sequences that never end are all of the first step",
        ),
    ]
    for i, entry in enumerate(mixture):
        place = (*path, i, "weights")
        rules += [
            (len(entry.weights) == count, place, f"{len(entry.weights)} weights", f"{count}, one for each topic"),
            (sum(entry.weights) > 0, place, entry.weights, "a weight above 0"),
        ]
    return rules
