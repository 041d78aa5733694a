"""Whether runs do the same work: only then do their step times, and what they send in a step, compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isclose
from typing import TYPE_CHECKING, Any

from moesim.report.keys import lookup

if TYPE_CHECKING:
    import pandas as pd

STEP = "step_time_s.mean"
THROUGHPUT = "tokens_per_s_per_gpu"
_OF_A_STEP = ("step_time_s.", "breakdown_s.", "critical_path_s.", "bytes.")

_WORDS: Mapping[str, str] = {
    "context_tokens": "context",
    "sequence_tokens": "sequence length",
    "tokens_per_step": "tokens a step",
    "gpus": "GPUs",
    "layers": "layers",
    "parameters": "model",
    "top_k": "model",
}
"""The facts of a summary's `work`, as people call them."""


def differing_work(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """In what the work of these runs differs, in words; empty where all do the same.

    Args:
        summaries: nested like summary.json. Those of earlier versions, without `work`, tell their tokens a step alone.
    """
    found = [_facts(summary) for summary in summaries]
    if not found:
        return []
    first, *others = found
    differ = {name for other in others for name in _WORDS if not _same(first.get(name), other.get(name))}
    if any((first.get("context_tokens") is None) != (other.get("context_tokens") is None) for other in others):
        words = ["phase"]  # a context has decode alone, a length of new sequences every other phase
        differ -= {"context_tokens", "sequence_tokens"}
    else:
        words = []
    return list(dict.fromkeys([*words, *(text for name, text in _WORDS.items() if name in differ)]))


def unequal_note(words: list[str]) -> str:
    """The line below a table of runs that differ in this work; "" without words."""
    if not words:
        return ""
    return f"the work differs ({', '.join(words)}): tokens/s/GPU compares, step times and bytes a step do not"


def grows_with_work(key: str) -> bool:
    """Whether a summary key is a time or an amount of a whole step."""
    return key.startswith(_OF_A_STEP)


def compared(paired: pd.DataFrame, metrics: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """The differences that are worth a row: of these metrics, with throughput for step time where the work differs.

    Args:
        paired: `Study.paired`; without the column `same_work`, as in results of earlier versions, all compare.
        metrics: dotted summary keys.

    Returns:
        The rows, and a line that says what was replaced, "" where nothing was.
    """
    same = paired["same_work"].astype(bool) if "same_work" in paired else paired["n"] > 0
    shown = paired["metric"].isin(metrics) & (same | ~paired["metric"].map(grows_with_work))
    if STEP in metrics:
        shown |= (paired["metric"] == THROUGHPUT) & ~same
    return paired[shown], "" if same.all() else "where the work differs tokens/s/GPU stands in place of step times"


def _facts(summary: Mapping[str, Any]) -> dict[str, float | None]:
    if "work" in summary:
        return {name: _number(lookup(summary, f"work.{name}")) for name in _WORDS}
    rate, time, steps = (lookup(summary, key) for key in ("tokens_per_s_per_gpu", "simulated_s", "n_steps"))
    return {} if rate is None or time is None or not steps else {"tokens_per_step": rate * time / steps}


def _number(value: float | None) -> float | None:
    """Of frames, where NaN stands for what is absent."""
    return None if value is None or value != value else value


def _same(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else isclose(one, other, rel_tol=1e-9)
