"""Errors on GPUs that no constant saw: python tests/validation/other_gpus.py h200_sxm b200_sxm.

Needs an installed aiconfigurator-core (extra `measured`). Only the published specifications of a GPU differ from those
of the H100 on which everything was fitted. Rows are of the versions of the frameworks whose constants ship; artefacts
are left out by their patterns. Rows of kernels and data types that have constants stand apart from those for which
the nearest stand in, and models of the fitted layers apart from others. Percent, median / 90th percentile (rows). The
figures are looked at after all constants and forms stand; nothing may be changed for them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd

from moesim.hardware.constants import document
from moesim.hardware.predict import shipped
from moesim.hardware.tables.expert_rows import of_shapes
from moesim.hardware.tables.reading import Table, predict_usable
from moesim.validation.aiconfigurator import read_installed
from moesim.validation.scores import score, slowdown_table, slowdowns, well_behaved

VERSIONS = {"TRTLLM": ("1.3.0rc20",), "SGLang": ("0.5.14", "0.5.10"), "VLLM": ("0.24.0",)}
LAYERS = {
    "gemm": "dense products, weights beyond L2",
    "attention_context": "attention over prompts",
    "attention_generation": "attention over the cache",
    "mla_context": "latent attention over prompts, module",
    "mla_generation": "latent attention over the cache, module",
}
REGIMES = {"gemm": "weights beyond L2", "mla_context": "module", "mla_generation": "module"}
OTHERS = "kernels and data types without constants"


def error(values: pd.Series) -> str:
    """Median / 90th percentile of the absolute error, per cent, and the number of rows."""
    size = 100 * np.abs(values.to_numpy(dtype=np.float64))
    return f"{np.median(size):.1f} / {np.quantile(size, 0.9):.1f} ({len(size):,})" if len(size) else "-"


def of_our_versions(table: Table) -> bool:
    """Whether a table is of a version whose constants ship."""
    frameworks = table.frame["framework"].unique() if "framework" in table.frame else []
    return all(f"_{version}_" in table.stem for name in frameworks for version in VERSIONS.get(name, ()))


def of_fitted_models(table: Table, rows: pd.Series) -> np.ndarray:
    """Whether rows are of a shape that the experts' constants were fitted on."""
    return of_shapes(table.frame.loc[rows], document("experts")["fitted"]["moe"]["shapes"])


def cases(table: Table) -> Iterator[tuple[str, pd.Series]]:
    """Errors of a table by case."""
    scores = score(table, predict_usable(table))
    frame = table.frame.loc[scores["row"]]
    if table.kind.name == "moe":
        core = well_behaved(frame).to_numpy()
        known = of_fitted_models(table, scores["row"])
        yield "fused MoE layers, models that were fitted", scores["error"][core & known]
        yield "fused MoE layers, other models", scores["error"][core & ~known]
    elif table.kind.name in LAYERS:
        wanted = REGIMES.get(table.kind.name)
        here = scores["regime"].eq(wanted).to_numpy() if wanted else np.ones(len(scores), dtype=bool)
        known = table.kind.group(frame).isin(list(shipped(table.kind))).to_numpy()
        name = LAYERS[table.kind.name]
        yield name, scores["error"][here & known]
        yield f"{name}, {OTHERS}", scores["error"][here & ~known]


def column(system: str) -> dict[str, str]:
    """Errors of a system by case."""
    tables = [table for table in read_installed(system).tables if of_our_versions(table)]
    found: dict[str, list[pd.Series]] = {}
    for table in tables:
        for name, errors in cases(table):
            found.setdefault(name, []).append(errors)
    cells = {name: error(pd.concat(errors)) for name, errors in found.items()}
    fused = [table for table in tables if table.kind.name == "moe"]
    slow = slowdown_table(pd.concat([slowdowns(table, predict_usable(table)) for table in fused]))
    for _, row in slow[(slow["kernels"] == "core") & (slow["rows"] == "all")].iterrows():
        cells[f"slowdown by skew, {row['case']}"] = f"{100 * row['median']:.1f} / {100 * row['p90']:.1f} ({row['n']:,})"
    return cells


def main() -> None:
    """Print a table, a column a system."""
    systems = sys.argv[1:] or ["h200_sxm", "b200_sxm"]
    columns = {system: column(system) for system in systems}
    print("| | " + " | ".join(systems) + " |\n|---|" + "---|" * len(systems))
    for case in dict.fromkeys(case for cells in columns.values() for case in cells):
        print(f"| {case} | " + " | ".join(columns[system].get(case, "-") for system in systems) + " |")


if __name__ == "__main__":
    main()
