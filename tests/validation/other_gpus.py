"""Errors on GPUs that no constant saw: python tests/validation/other_gpus.py h200_sxm b200_sxm.

Needs an installed aiconfigurator-core (extra `measured`). Only the published specifications of a GPU differ from those
of the H100 on which everything was fitted. Rows are of the versions of the frameworks whose constants ship, and of
kernels that are well behaved where they are fused layers. Percent, median / 90th percentile. The figures were looked at
after all constants and forms stood; nothing may be changed for them.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from moesim.validation import validate
from moesim.validation.scores import slowdown_table

VERSIONS = {"TRTLLM": ("1.3.0rc20",), "SGLang": ("0.5.14", "0.5.10"), "VLLM": ("0.24.0",)}
LAYERS = {
    "dense products, weights beyond L2": ("gemm_", "weights beyond L2"),
    "attention over prompts": ("attention_context_", ""),
    "attention over the cache": ("attention_generation_", ""),
    "latent attention over prompts, module": ("mla_context_", "module"),
    "latent attention over the cache, module": ("mla_generation_", "module"),
}


def error(values: pd.Series) -> str:
    """Median / 90th percentile of the absolute error, per cent, and the number of rows."""
    size = 100 * np.abs(values.to_numpy(dtype=np.float64))
    return f"{np.median(size):.1f} / {np.quantile(size, 0.9):.1f} ({len(size):,})" if len(size) else "-"


def of_version(table: pd.Series, framework: pd.Series) -> np.ndarray:
    """Rows of a version whose constants ship."""
    ours = [
        any(f"_{version}_" in stem for version in VERSIONS.get(made, ("",)))
        for stem, made in zip(table, framework, strict=True)
    ]
    return np.array(ours)


def column(system: str) -> dict[str, str]:
    """Errors of a system by case."""
    report = validate(f"aiconfigurator:{system}")
    scores, slow = report.scores, report.slowdowns
    scores = scores[of_version(scores["table"], scores["framework"])]
    slow = slow[of_version(slow["table"], slow["framework"])]
    core = slow[slow["core"].astype(bool)][["table", "framework", "kernel", "dtype"]].drop_duplicates()
    fused = scores[scores["table"].str.startswith("moe_") & ~scores["table"].str.startswith("moe_a2a")]
    found = {"fused MoE layers": error(fused.merge(core)["error"])}
    table = slowdown_table(slow)
    for _, row in table[(table["kernels"] == "core") & (table["rows"] == "all")].iterrows():
        found[f"slowdown by skew, {row['case']}"] = f"{100 * row['median']:.1f} / {100 * row['p90']:.1f} ({row['n']:,})"
    for name, (prefix, regime) in LAYERS.items():
        rows = scores[scores["table"].str.startswith(prefix)]
        found[name] = error(rows[(rows["regime"] == regime) | (regime == "")]["error"])
    return found


def main() -> None:
    """Print a table, a column a system."""
    systems = sys.argv[1:] or ["h200_sxm", "b200_sxm"]
    columns = {system: column(system) for system in systems}
    print("| | " + " | ".join(systems) + " |\n|---|" + "---|" * len(systems))
    for case in next(iter(columns.values())):
        print(f"| {case} | " + " | ".join(columns[system].get(case, "-") for system in systems) + " |")


if __name__ == "__main__":
    main()
