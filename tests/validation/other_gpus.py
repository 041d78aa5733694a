"""Errors on GPUs that no constant saw: python -m tests.validation.other_gpus h200_sxm b200_sxm.

Needs an installed aiconfigurator-core (extra `measured`). Only the published specifications of a GPU differ from those
of the H100 on which everything was fitted. Rows are of the versions of the frameworks whose constants ship; artefacts
are left out by their patterns. Sizes that were measured on H100 too stand apart from others, head dimensions never
measured apart from these, and data types for which those of another stand in from those with constants of their own;
of fused layers kernels tuned for each shape or not at all are not counted. Percent, median / 90th percentile (rows).
The figures are looked at after all constants and forms stand; nothing may be changed for them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd

from moesim.calibration import MEASURED
from moesim.calibration.aiconfigurator import read_installed
from moesim.calibration.predict import shipped
from moesim.calibration.reading import Table, predict_usable
from moesim.calibration.scores import score, slowdown_table, slowdowns, well_behaved

VERSIONS = {"TRTLLM": "1.3.0rc20", "SGLang": "0.5.14", "VLLM": "0.24.0"}
LAYERS = {
    "moe": "fused MoE layers",
    "gemm": "dense products, weights beyond L2",
    "attention_context": "attention over prompts",
    "attention_generation": "attention over the cache",
    "mla_context": "latent attention over prompts, module",
    "mla_generation": "latent attention over the cache, module",
}
SAME = {True: "sizes measured on H100", False: "other sizes"}
REGIMES = {"gemm": "weights beyond L2", "mla_context": "module", "mla_generation": "module"}
ALSO = ("scope", "gemm_type", "kv_cache_dtype", "mla_dtype", "past_kv_tokens", "window_size")
"""Columns of sizes that some layouts of a kind lack."""


def error(values: pd.Series) -> str:
    """Median / 90th percentile of the absolute error, per cent, and the number of rows."""
    size = 100 * np.abs(values.to_numpy(dtype=np.float64))
    return f"{np.median(size):.1f} / {np.quantile(size, 0.9):.1f} ({len(size):,})" if len(size) else "-"


def of_our_versions(table: Table) -> bool:
    """Whether a table is of a version whose constants ship."""
    frameworks = set(table.frame["framework"]) if "framework" in table.frame else set()
    return all(f"_{VERSIONS.get(name, '')}_" in table.stem for name in frameworks)


@cache
def measured_on_h100(kind: str) -> pd.DataFrame:
    """The shipped tables of a kind."""
    return pd.concat([pd.read_parquet(path) for path in MEASURED.glob(f"{kind}_h100_*.parquet")])


def of_measured_sizes(table: Table, rows: pd.Series) -> np.ndarray:
    """Whether rows are of a size that was measured on H100: only the GPU is another."""
    seen = measured_on_h100(table.layout.name)
    told = {"system", "kernel_source", *table.layout.measured}
    key = [name for name in (*table.layout.columns, *ALSO) if name in seen and name in table.frame and name not in told]
    known = pd.MultiIndex.from_frame(seen[key].drop_duplicates())
    found: np.ndarray = pd.MultiIndex.from_frame(table.frame.loc[rows, key]).isin(known)
    return found


def tables_of(system: str) -> Iterator[Table]:
    """The tables of an installed system that count."""
    return (table for table in read_installed(system).tables if table.layout.name in LAYERS and of_our_versions(table))


def counted(table: Table, predicted: np.ndarray) -> pd.DataFrame:
    """Scores of the rows that count, with `known`: own constants ship, and `same`: only the GPU is another."""
    scores = score(table, predicted)
    wanted = REGIMES.get(table.layout.name)
    if wanted is not None:
        scores = scores[scores["regime"].eq(wanted)]
    frame = table.frame.loc[scores["row"]]
    if table.layout.name == "moe":
        scores = scores[well_behaved(frame).to_numpy()]  # others are tuned for each shape or not at all
        known = np.ones(len(scores), dtype=bool)
    else:
        known = table.layout.group(frame).isin(list(shipped(table.layout))).to_numpy()
    return scores.assign(known=known, same=of_measured_sizes(table, scores["row"]))


def cases(table: Table, predicted: np.ndarray) -> Iterator[tuple[str, pd.Series]]:
    """Errors of a table by case."""
    scores, name = counted(table, predicted), LAYERS[table.layout.name]
    frame, known, same = table.frame.loc[scores["row"]], scores["known"].to_numpy(), scores["same"].to_numpy()
    strange = np.zeros(len(scores), dtype=bool)
    if "head_dim" in frame:
        strange = ~frame["head_dim"].isin(measured_on_h100(table.layout.name)["head_dim"]).to_numpy()
    yield f"{name}, {SAME[True]}", scores["error"][known & same]
    yield f"{name}, {SAME[False]}", scores["error"][known & ~same & ~strange]
    yield f"{name}, head dimensions never measured", scores["error"][known & strange]
    yield f"{name}, data types without constants", scores["error"][~known]


def column(system: str) -> dict[str, str]:
    """Errors of a system by case."""
    found: dict[str, list[pd.Series]] = {}
    fused = []
    for table in tables_of(system):
        predicted = predict_usable(table)
        for name, errors in cases(table, predicted):
            found.setdefault(name, []).append(errors)
        if table.layout.name == "moe":
            slow = slowdowns(table, predicted)
            fused.append(slow.assign(same=of_measured_sizes(table, slow["row"])))
    cells = {name: error(pd.concat(errors)) for name, errors in found.items() if any(len(part) for part in errors)}
    every = pd.concat(fused)
    for same, words in SAME.items():
        slow = slowdown_table(every[every["same"] == same])
        for _, row in slow[(slow["kernels"] == "core") & (slow["rows"] == "all")].iterrows():
            name = f"slowdown by skew, {row['case']}, {words}"
            cells[name] = f"{100 * row['median']:.1f} / {100 * row['p90']:.1f} ({row['n']:,})"
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
