"""Jumps that kernels of experts really have: python -m tests.validation.kernel_jumps.

A row of the measured tables of H100 jumps where it takes at least 1.25 times as long as the line between the next
smaller and the next larger number of tokens on its curve says, although every expert is active. The predicted time
has no such jumps: a library's tile or tuning at one token count is no property of imbalance. Rows that take 1.3 times
longer than the next larger count are spikes, which neither a fit nor a score sees. Reads the
tables that ship with the package; prints, by kernel and kind of load, how many rows jump and the largest jumps.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from moesim.calibration.fit_experts import CORE, POINT, read
from moesim.calibration.layouts import moe
from moesim.calibration.layouts.expert_rows import EVEN

JUMP = 1.25
SHOWN = 3
ALL_ACTIVE = 4
"""Choices an expert from which every expert has tokens."""


def jumps() -> pd.DataFrame:
    """A row for every measured row with two neighbours: `kernel`, `load`, shape, `tokens`, `ratio` to their line."""
    frame = read("moe")
    frame = frame.assign(kernel=moe.group(frame))
    found = []
    for _, curve in frame.groupby([*POINT, "distribution"]):
        sorted_ = curve.sort_values("num_tokens")
        tokens, seconds = (np.log(sorted_[name].to_numpy(dtype=float)) for name in ("num_tokens", "latency_ms"))
        if len(sorted_) < 3:
            continue
        share = (tokens[1:-1] - tokens[:-2]) / (tokens[2:] - tokens[:-2])
        line = seconds[:-2] * (1 - share) + seconds[2:] * share
        found.append(sorted_.iloc[1:-1].assign(ratio=np.exp(seconds[1:-1] - line)))
    rows = pd.concat(found)
    rows = rows[rows.num_tokens * rows.topk >= ALL_ACTIVE * rows.num_experts]
    return rows.assign(load=np.where(rows.distribution.isin(EVEN), "even", "skewed"), tokens=rows.num_tokens)


def main() -> None:
    """Print the table."""
    rows = jumps()
    print("| kernel | load | rows | jumps | largest: times the line between its neighbours, tokens, model, EP |")
    print("|---|---|---|---|---|")
    for (kernel, load), part in rows[rows.kernel.isin(CORE)].groupby(["kernel", "load"]):
        high = part[part.ratio >= JUMP].nlargest(SHOWN, "ratio")
        named = "; ".join(
            f"{row.ratio:.2f} at {row.tokens} ({row.model}, EP{row.moe_ep_size})" for row in high.itertuples()
        )
        print(f"| {kernel} | {load} | {len(part)} | {(part.ratio >= JUMP).sum()} | {named} |")


if __name__ == "__main__":
    main()
