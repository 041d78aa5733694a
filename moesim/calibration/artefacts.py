"""Known artefacts, rows that do not show what their columns say: by a column `flag`, else by known patterns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moesim.calibration.layout import Rows

if TYPE_CHECKING:
    import pandas as pd

SPIKE = 1.3
"""A latency that is this many times that of a larger size on the same curve shows a bad choice of the tuner."""

_ALWAYS = ("system", "framework", "version", "kernel_source", "op_name")


def without_artefacts(
    frame: pd.DataFrame, *, size: str, curve: Sequence[str], wrong: Rows | None = None
) -> pd.Series[bool]:
    """Rows that are no artefact, bool [R].

    If the table has a column `flag`, these are the rows without a flag; else those
    that are neither a spike nor `wrong`.

    Args:
        frame: a table with `latency_ms`.
        size: the column along which latencies of a curve grow.
        curve: columns whose values a curve shares, in addition to system, framework, version, kernel and operation;
            columns that the table lacks are ignored.
        wrong: finds other artefacts of this layout.
    """
    if "flag" in frame:
        return unflagged(frame)
    fine = ~spikes(frame, size=size, curve=curve)
    return fine if wrong is None else fine & ~wrong(frame)


def unflagged(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows without a flag, bool [R]; all where the table has no such column."""
    import pandas as pd

    if "flag" in frame:
        return frame["flag"].fillna("").eq("")
    return pd.Series(data=True, index=frame.index)


def spikes(frame: pd.DataFrame, *, size: str, curve: Sequence[str]) -> pd.Series[bool]:
    """Rows that take SPIKE times as long as some larger size of their curve, bool [R]."""
    names = [name for name in (*_ALWAYS, *curve) if name in frame]
    ordered = frame.sort_values(size, ascending=False, kind="stable")
    keys = [ordered[name] for name in names]
    fastest = ordered.groupby(names, dropna=False)["latency_ms"].cummin()
    larger = fastest.groupby(keys, dropna=False).shift(1)
    return (ordered["latency_ms"] > SPIKE * larger).reindex(frame.index)
