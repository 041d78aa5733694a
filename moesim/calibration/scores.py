"""Errors of predictions: of every row, by kernel and regime, and of slowdowns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.calibration.checks import Mask
from moesim.calibration.layouts.expert_rows import EVEN
from moesim.calibration.reading import Table
from moesim.hardware.constants import Constants

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("table", "framework", "kernel", "dtype", "regime", "rows")
"""The columns by which errors are given; `rows` is "fitted", "held out" or OWN."""

OWN = "own constants"
"""Rows predicted by the user's own constants, whose fitted rows are not known."""

KIND_KEYS = ("kind", "rows")
"""The columns by which errors of all tables of a layout are given."""

_DTYPES = (
    "moe_dtype",
    "gemm_dtype",
    "attn_dtype",
    "mla_dtype",
    "bmm_dtype",
    "quant_dtype",
    "quant_type",
    "allreduce_dtype",
    "nccl_dtype",
    "comm_dtype",
)

MATTERS = 1.3
"""The smallest measured slowdown of rows in which imbalance matters."""


def of_groups(table: Table, constants: Constants) -> Mask:
    """Rows of whose very group there are constants, [R]; those of exchanges also name a direction."""
    known = {name.rpartition("/")[0] for name in constants} | set(constants)
    found = table.predictable.copy()
    if found.any():
        found[found] = table.layout.group(table.frame[found]).isin(known).to_numpy(dtype=np.bool_)
    return found


def score(table: Table, predicted: NDArray[np.float64], mine: Mask | None = None) -> pd.DataFrame:
    """One row a scored row and measured column: KEYS, `kind`, `row`, `measured_s`, `predicted_s`, `error` (p / m - 1).

    Rows `mine`, [R], were predicted by constants of the user's own.

    Columns that are 0 where nothing was to be measured are left out, and so
    are rows without a prediction.
    """
    import pandas as pd

    frame, layout = table.frame, table.layout
    rows = np.flatnonzero(table.scored)
    part = frame.iloc[rows]
    split = np.where(layout.fitted(part).to_numpy(dtype=np.bool_), "fitted", "held out")
    words = {
        "table": table.stem,
        "kind": layout.name,
        "framework": _word(part, ("framework",)),
        "kernel": _word(part, ("kernel_source", "comm_backend")),
        "dtype": _word(part, _DTYPES),
        "regime": layout.regime(part).astype(str),
        "rows": split if mine is None else np.where(mine[rows], OWN, split),
    }
    if "comm_backend" in part:
        words["kernel"] = part["comm_backend"].astype(str)
    base = pd.DataFrame(words, index=part.index)
    parts = []
    for index, column in enumerate(layout.measured):
        one = base.assign(
            row=rows,
            column=column,
            measured_s=part[column].to_numpy(dtype=np.float64) * layout.unit_s,
            predicted_s=predicted[rows, index],
        )
        if len(layout.measured) > 1:
            word = column.removesuffix("_us").removesuffix("_ms").removesuffix("_avg_t").replace("_", " ")
            one["regime"] = word + ", " + one["regime"]
        parts.append(one)
    scores = pd.concat(parts, ignore_index=True)
    known = (scores["measured_s"] > 0) & scores["predicted_s"].notna()
    scores = pd.DataFrame(scores[known])  # of which there may be none
    return scores.assign(error=scores["predicted_s"] / scores["measured_s"] - 1)


def slowdowns(table: Table, predicted: NDArray[np.float64], mine: Mask | None = None) -> pd.DataFrame:
    """Skewed rows with the row of the same key and even load: KEYS, `row`, `tokens`, `ep`, `measured`, `predicted`.

    Empty where a table has no `distribution`.
    """
    import pandas as pd

    columns = [*KEYS, "row", "curve", "ep", "core", "measured", "predicted", "error"]
    frame, layout = table.frame, table.layout
    if "distribution" not in frame or len(layout.measured) != 1:
        return pd.DataFrame(columns=columns)
    scores = score(table, predicted, mine).set_index("row")
    part = frame.loc[scores.index]
    optional = [name for name in ("framework", "version", "kernel_source", "op_name", "model") if name in part]
    key = [*dict.fromkeys((*optional, *layout.columns))]
    key = [name for name in key if name not in {"distribution", *layout.measured}]
    curve = [name for name in key if name != "num_tokens"]
    joined = part[[*key, "distribution"]].assign(m=scores["measured_s"], p=scores["predicted_s"], row=part.index)
    even = joined["distribution"].isin(EVEN)
    base = joined[even].drop_duplicates(key).drop(columns=["distribution", "row"])
    pairs = joined[~even].merge(base, on=key, suffixes=("", "_even"))
    if not len(pairs):
        return pd.DataFrame(columns=columns)
    found = scores.loc[pairs["row"]].reset_index()
    found = found.assign(
        curve=reduce(
            lambda a, b: a + "|" + b, (pairs[name].astype(str) for name in [*curve, "distribution"])
        ).to_numpy(),
        ep=pairs["moe_ep_size"].to_numpy() if "moe_ep_size" in pairs else 1,
        core=well_behaved(part.loc[pairs["row"]]).to_numpy(),
        measured=(pairs["m"] / pairs["m_even"]).to_numpy(),
        predicted=(pairs["p"] / pairs["p_even"]).to_numpy(),
    )
    return pd.DataFrame(found.assign(error=found["predicted"] / found["measured"] - 1)[columns])


def error_table(scores: pd.DataFrame, slow: pd.DataFrame) -> pd.DataFrame:
    """By KEYS: `n`, `median` and `p90` of the absolute error, `bias` (median error); of slowdowns likewise, or NaN."""
    table = _errors(scores, KEYS)
    if len(slow):
        table = table.join(_errors(slow, KEYS)[["n", "median", "p90"]].add_prefix("slowdown_"))
    else:
        table = table.assign(slowdown_n=np.nan, slowdown_median=np.nan, slowdown_p90=np.nan)
    return table.reset_index()


def kind_table(scores: pd.DataFrame) -> pd.DataFrame:
    """By KIND_KEYS: `n`, `median` and `p90` of the absolute error, `bias`."""
    return _errors(scores, KIND_KEYS).reset_index()


def _errors(scores: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """`n`, `median` and `p90` of the absolute error, and `bias`; by methods that pandas has compiled."""
    import pandas as pd

    error = scores["error"].astype(float)
    groups = scores.assign(error=error, size=error.abs()).groupby(list(keys), sort=True)
    sizes = groups["size"]
    return pd.DataFrame(
        sizes.agg(n="size", median="median").assign(p90=sizes.quantile(0.9), bias=groups["error"].median())
    )


def slowdown_table(slow: pd.DataFrame) -> pd.DataFrame:
    """Errors of slowdowns of well-behaved kernels and of all, each row and averaged over the tokens of a curve.

    Columns `case`, `kernels`, `rows` ("all" or "held out"), `n`, `median`, `p90`, `spearman` (rank correlation of
    measured and predicted).
    """
    import pandas as pd

    rows = []
    core, unseen = slow["core"].astype(bool), slow["rows"] == "held out"
    parts = {
        ("core", "all"): slow[core],
        ("core", "held out"): slow[core & unseen],
        ("all", "all"): slow,
        ("all", "held out"): slow[unseen],
    }
    for (kernels, split), part in parts.items():
        matters = part[(part["ep"] >= 2) & (part["measured"] >= MATTERS)]
        means = part.groupby(["table", "curve", "regime"])[["measured", "predicted"]].mean()
        means = means.assign(error=means["predicted"] / means["measured"] - 1)
        cases = {
            "all skewed rows": part,
            f"EP 2 and more, measured {MATTERS} and more": matters,
            "averaged over tokens": means,
        }
        for case, of_case in cases.items():
            if len(of_case):
                ranks = of_case[["measured", "predicted"]].astype(float).rank()
                rows.append(
                    {
                        "case": case,
                        "kernels": kernels,
                        "rows": split,
                        "n": len(of_case),
                        "median": _median(of_case["error"]),
                        "p90": _p90(of_case["error"]),
                        "spearman": float(ranks["measured"].corr(ranks["predicted"])) if len(of_case) > 2 else np.nan,
                    }
                )
    return pd.DataFrame(rows, columns=["case", "kernels", "rows", "n", "median", "p90", "spearman"])


def well_behaved(part: pd.DataFrame) -> pd.Series[bool]:
    """Rows of kernels whose constants ship and that are well behaved: neither tuned per shape nor untuned.

    All rows outside the fused layers.
    """
    framework, kernel, dtype = (_word(part, (name,)) for name in ("framework", "kernel_source", "moe_dtype"))
    if "moe_dtype" not in part or part["kernel_source"].str.contains("deepep|wideep").all():
        return framework.notna()
    cutlass, triton = kernel.str.contains("cutlass"), kernel.str.contains("triton")
    trtllm = framework.eq("TRTLLM") & cutlass & dtype.isin(["bfloat16", "fp8", "fp8_block"])
    vllm = framework.eq("VLLM") & ((dtype.eq("fp8_block") & (cutlass | triton)) | (dtype.eq("bfloat16") & triton))
    return trtllm | vllm | (framework.eq("SGLang") & dtype.eq("fp8_block") & triton)


def _word(part: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """The first of these columns that the table has, as text; dashes if none."""
    import pandas as pd

    found = next((column for column in columns if column in part), None)
    return part[found].astype(str) if found else pd.Series("-", index=part.index, dtype=str)


def _median(error: pd.Series[float]) -> float:
    return float(error.abs().median())


def _p90(error: pd.Series[float]) -> float:
    return float(error.abs().quantile(0.9))
