"""What a rule says of a field that changes nothing, and the rules that several fields share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A field changes nothing where `idle` holds of the values of the fields that it `reads`.

    `why` is formatted with these values. With the field `unless` in the same file the rule says nothing.
    """

    reads: tuple[str, ...]
    idle: Callable[..., bool]
    why: str
    unless: str = ""


def is_not(field: str, wanted: str, why: str) -> Rule:
    """The field counts where another one has this value, and nowhere else."""
    return Rule((field,), lambda found: found != wanted, f"{why}, and {field} is {{0}}")


def is_(field: str, found: str, why: str) -> Rule:
    """The field counts everywhere but where another one has this value."""
    return Rule((field,), lambda value: value == found, why)


# these strategies read no logits; some policies read scores of any strategy
IGNORES_LOGITS = ("hash", "random", "round-robin")
READS_SCORES = ("drop-by-priority", "reroute-to-next", "reroute-to-best", "expanded-drop")
_CHOICE = (
    "routing.strategy",
    "routing.capacity.overflow",
    "routing.substitution",
    "routing.training",
    "simulation.queue_overflow",
)


def _needs_no_logits(strategy: str, overflow: str | None, substitution: object, training: object, queues: str) -> bool:
    asked = overflow in READS_SCORES or substitution is not None or training is not None or queues == "next"
    return strategy in IGNORES_LOGITS and not asked


RECORDED = Rule(("workload.trace",), lambda trace: trace is not None, "the tokens and their choices are recorded")
DEALT = Rule(("workload.pattern",), lambda pattern: pattern is not None, "workload.pattern deals the choices")
UNREAD = Rule(
    (*_CHOICE, "model.router"),
    lambda *read: _needs_no_logits(*read[:5]),
    "routing.strategy {0} chooses without reading logits",
)
