"""Fit all of a step but experts and exchanges, on H100: python tests/validation/fit_dense.py [KIND ...] [--write].

Prints for every kind of table, group and regime the errors of the shipped
constants on fitted and, with `--final`, on held-out rows; what is held out, each
kind's `fitted` says. `--fit` and `--write` fit them anew; on another machine that
may end elsewhere along a flat valley, as libraries round otherwise there.
`--folds` also prints the errors of rows left out one shape at a time among the
fitted, by which the forms were chosen: the held-out rows were looked at last.
Needs the folder of MOESIM_DATA, whose measured/ holds the tables; --write puts
the constants into moesim/hardware/constants/<noun>.yaml.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

import moesim.hardware.constants
from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import Layout, load_layout
from moesim.calibration.predict import shipped
from moesim.hardware.allreduce import AllReduceConstants, allreduce_seconds

FOLDER = Path(moesim.hardware.constants.__file__).parent
SOURCE = "NVIDIA aiconfigurator-core 0.12.0, tables of H100 SXM: TensorRT-LLM 1.3.0rc20, SGLang 0.5.14, vLLM 0.24.0"
HELD_OUT = {
    "allreduce": "every second message size, and 4 GPUs",
    "attention_context": "16 query heads",
    "attention_generation": "16 query heads",
    "elementwise": "rows of 2,048 and 7,168 elements",
    "mla_bmm": "64 local heads",
    "mla_context": "64 local heads",
    "mla_generation": "64 local heads",
    "mlp": "every second number of tokens",
    "gemm": "layers with 7,168 inputs or outputs",
}
FOLD_COLUMNS = {
    "mlp": ("num_tokens",),
    "allreduce": ("message_size_elements",),
    "mla_bmm": ("num_heads",),
    "mla_context": ("num_heads",),
    "mla_generation": ("num_heads",),
    "attention_context": ("num_heads",),
    "attention_generation": ("num_heads",),
    "elementwise": ("k",),
    "gemm": ("n", "k"),
}


def table(name: str) -> pd.DataFrame:
    """The measured table of a kind, usable rows."""
    frame = pd.read_parquet(Path(os.environ["MOESIM_DATA"]) / "measured" / f"{name}_h100_calib.parquet")
    return frame[load_layout(name).usable(frame)].reset_index(drop=True)


def errors(kind: Layout, frame: pd.DataFrame, constants: dict[str, dict[str, float]]) -> np.ndarray:
    """Relative error of each row."""
    seconds = kind.predict(frame, published_gpus(), constants)[:, 0]
    return seconds / (kind.unit_s * frame[kind.measured[0]].to_numpy(dtype=np.float64)) - 1


def line(*words: object, error: np.ndarray) -> None:
    """Rows, median and 90th percentile of the absolute error in percent, median error."""
    error = error[np.isfinite(error)]
    if len(error):
        size = 100 * np.abs(error)
        text = f"{len(error):6} {np.median(size):6.1f} {np.quantile(size, 0.9):6.1f} {100 * np.median(error):+6.1f}"
        print(" ".join(f"{word!s:24}" for word in words) + text, flush=True)


def folds(kind: Layout, frame: pd.DataFrame) -> np.ndarray:
    """Error of each row by constants that saw no row with its value of one of the columns; the last value's stays."""
    error = np.full(len(frame), np.nan)
    for column in FOLD_COLUMNS[kind.name]:
        for value in sorted(frame[column].unique()):
            out = (frame[column] == value).to_numpy()
            if out.all():
                continue
            constants = kind.fit(frame[~out].reset_index(drop=True), published_gpus())
            error[out] = errors(kind, frame[out].reset_index(drop=True), constants)
    return error


def report(kind: Layout, frame: pd.DataFrame, error: np.ndarray, split: np.ndarray, what: str) -> None:
    """Errors by group and by regime of the rows of a split."""
    group, regime = kind.group(frame).to_numpy(), kind.regime(frame).to_numpy()
    for word in sorted(set(group)):
        line(kind.name, word, what, error=error[split & (group == word)])
    for word in sorted(set(regime)):
        line(kind.name, word, what, error=error[split & (regime == word)])
    line(kind.name, "all", what, error=error[split])


def four_gpus(constants: dict[str, dict[str, float]]) -> None:
    """Errors of the sums that frameworks leave to NCCL on 4 GPUs, which no constant saw: rows of nccl-tests."""
    rows = pd.read_parquet(Path(os.environ["MOESIM_DATA"]) / "measured" / "nccl_h100_calib.parquet")
    rows = rows[(rows.op_name == "all_reduce") & (rows.num_gpus == 4) & (rows.nccl_dtype == "half")]
    message, seconds = 2.0 * rows.message_size.to_numpy(), rows.latency.to_numpy() / 1e3
    found = []
    for group, values in constants.items():
        c = AllReduceConstants(**values)
        large = message > max(c.most_bytes, c.most_read_bytes / 3)
        if group.endswith("graph"):  # nccl-tests wait for no host
            took = allreduce_seconds(c, published_gpus()["h100_sxm"], gpus=4.0, message=message[large])
            found.append(took / seconds[large] - 1)
            line("allreduce", group, "4 GPUs, NCCL", error=found[-1])
    line("allreduce", "all", "4 GPUs, NCCL", error=np.concatenate(found))


def main() -> None:
    """Print the errors; write the constants."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    for name in words or HELD_OUT:
        kind, frame = load_layout(name), table(name)
        fitted = kind.fitted(frame).to_numpy(dtype=np.bool_)
        seen = frame[fitted].reset_index(drop=True)
        anew = "--fit" in sys.argv or "--write" in sys.argv
        constants = kind.fit(seen, published_gpus()) if anew else shipped(kind)
        error = errors(kind, frame, constants)
        report(kind, frame, error, fitted, "fitted")
        if "--folds" in sys.argv:
            report(kind, seen, folds(kind, seen), np.ones(len(seen), dtype=np.bool_), "left out in turn")
        if "--final" in sys.argv or "--write" in sys.argv:
            report(kind, frame, error, ~fitted, "held out")
            if name == "allreduce":
                four_gpus(constants)
        if "--write" in sys.argv:
            header = {
                "source": SOURCE,
                "gpu": "h100-sxm",
                "fitted": f"python tests/validation/fit_dense.py {name} --write",
                "held_out": HELD_OUT[name],
            }
            text = yaml.safe_dump({**header, "groups": constants}, sort_keys=False, width=118)
            (FOLDER / f"{kind.noun}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
