"""Fit all of a step but experts and exchanges, on H100: python -m moesim.calibration.fit_layers [LAYOUT ...] [--write].

Prints for every layout, group and regime the errors of the shipped constants on
fitted and, with `--final`, on held-out rows; what is held out, each layout's
`fitted` says. `--fit` and `--write` fit them anew; on another machine that may
end elsewhere along a flat valley, as libraries round otherwise there. `--folds`
also prints the errors of rows left out one shape at a time among the fitted, by
which the forms were chosen: the held-out rows were looked at last. The tables are
those that ship with moesim; --write replaces constants/<layout>.yaml of
`moesim.hardware`.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from moesim.calibration.checks import Mask
from moesim.calibration.columns import Array
from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import Layout, load_layout
from moesim.calibration.predict import shipped
from moesim.calibration.shipped import shipped_rows, write_constants
from moesim.hardware.allreduce import AllReduceConstants, allreduce_seconds
from moesim.hardware.constants import Constants

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
    """The measured table of a layout, usable rows."""
    frame = shipped_rows([f"{name}_h100_calib"])
    return frame[load_layout(name).usable(frame)].reset_index(drop=True)


def errors(layout: Layout, frame: pd.DataFrame, constants: Constants) -> Array:
    """Relative error of each row."""
    seconds = layout.predict(frame, published_gpus(), constants)[:, 0]
    return seconds / (layout.unit_s * frame[layout.measured[0]].to_numpy(dtype=np.float64)) - 1


def line(*words: object, error: Array) -> None:
    """Rows, median and 90th percentile of the absolute error in percent, median error."""
    error = error[np.isfinite(error)]
    if len(error):
        size = 100 * np.abs(error)
        text = f"{len(error):6} {np.median(size):6.1f} {np.quantile(size, 0.9):6.1f} {100 * np.median(error):+6.1f}"
        print(" ".join(f"{word!s:24}" for word in words) + text, flush=True)


def folds(layout: Layout, frame: pd.DataFrame) -> Array:
    """Error of each row by constants that saw no row with its value of one of the columns; the last value's stays."""
    error = np.full(len(frame), np.nan)
    for column in FOLD_COLUMNS[layout.name]:
        for value in sorted(frame[column].unique()):
            out = (frame[column] == value).to_numpy()
            if out.all():
                continue
            constants = layout.fit(frame[~out].reset_index(drop=True), published_gpus())
            error[out] = errors(layout, frame[out].reset_index(drop=True), constants)
    return error


def report(layout: Layout, frame: pd.DataFrame, error: Array, split: Mask, what: str) -> None:
    """Errors by group and by regime of the rows of a split."""
    group, regime = layout.group(frame).to_numpy(), layout.regime(frame).to_numpy()
    for word in sorted(set(group)):
        line(layout.name, word, what, error=error[split & (group == word)])
    for word in sorted(set(regime)):
        line(layout.name, word, what, error=error[split & (regime == word)])
    line(layout.name, "all", what, error=error[split])


def four_gpus(constants: Constants) -> None:
    """Errors of the sums that frameworks leave to NCCL on 4 GPUs, which no constant saw: rows of nccl-tests."""
    rows = shipped_rows(["nccl_h100_calib"])
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
        layout, frame = load_layout(name), table(name)
        fitted = layout.fitted(frame).to_numpy(dtype=np.bool_)
        seen = frame[fitted].reset_index(drop=True)
        anew = "--fit" in sys.argv or "--write" in sys.argv
        constants = layout.fit(seen, published_gpus()) if anew else shipped(layout)
        error = errors(layout, frame, constants)
        report(layout, frame, error, fitted, "fitted")
        if "--folds" in sys.argv:
            report(layout, seen, folds(layout, seen), np.ones(len(seen), dtype=np.bool_), "left out in turn")
        if "--final" in sys.argv or "--write" in sys.argv:
            report(layout, frame, error, ~fitted, "held out")
            if name == "allreduce":
                four_gpus(constants)
        if "--write" in sys.argv:
            header = {
                "source": SOURCE,
                "gpu": "h100-sxm",
                "fitted": f"python -m moesim.calibration.fit_layers {name} --write",
                "held_out": HELD_OUT[name],
            }
            write_constants(layout.part, header, constants)


if __name__ == "__main__":
    main()
