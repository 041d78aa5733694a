"""Fit the constants of collectives on H100: python -m moesim.calibration.fit_collectives [--write].

Prints the errors of the shipped constants, or with --write of those that it
fits, on fitted and on held-out rows for every layout, regime and measured
column. What is held out, each layout's `fitted` says. The tables are those that
ship with moesim; --write replaces constants/collectives.yaml of
`moesim.hardware`. On another machine a fit may end elsewhere along a flat
valley, as libraries round otherwise there.
"""

from __future__ import annotations

import sys

import numpy as np

from moesim.calibration.checks import typed
from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import load_layout
from moesim.calibration.predict import shipped
from moesim.calibration.shipped import MEASURED, shipped_rows, write_constants

NAMES = ("deepep_ll", "deepep_normal", "nccl", "moe_a2a")
HEADER = {
    "source": "NVIDIA aiconfigurator-core 0.12.0, tables of H100 SXM with NVLink 4 and 400 Gb/s network cards",
    "gpu": "h100-sxm",
    "versions": "SGLang 0.5.12 and 0.5.6.post2 (DeepEP), NCCL 2.29.2, TensorRT-LLM 1.3.0rc11, vLLM 0.24.0",
    "fitted": "python -m moesim.calibration.fit_collectives --write",
    "held_out": {
        "deepep_ll": "hidden 4096 with 8 of 128 or 256 experts and 7168 with 8 of 384; 4 nodes",
        "deepep_normal": "the same shapes within a node; 16 SMs",
        "nccl": "every third message size",
        "moe_a2a": "hidden 6144",
    },
}


def main() -> None:
    """Print the errors; fit and write the constants."""
    write = "--write" in sys.argv[1:]
    gpus = published_gpus()
    groups: dict[str, dict[str, float]] = {}
    for name in NAMES:
        layout = load_layout(name)
        frame = typed(shipped_rows(sorted(path.stem for path in MEASURED.glob(f"{name}*.parquet"))), layout)
        fitted = layout.fitted(frame)
        constants = layout.fit(frame[fitted], gpus) if write else shipped(layout)
        groups.update({name: dict(values) for name, values in constants.items()})
        predicted = layout.predict(frame, gpus, constants) / layout.unit_s
        regime = layout.regime(frame)
        for column, measured in enumerate(layout.measured):
            value = frame[measured].to_numpy(dtype=np.float64)
            error = np.abs(np.divide(predicted[:, column], value, out=np.full(len(value), np.nan), where=value > 0) - 1)
            # of NCCL also each operation over all sizes
            words = regime.str.partition(",")[0] if name == "nccl" else regime
            for word in sorted({*regime, *words}):
                for split, rows in (("fitted", fitted), ("held out", ~fitted)):
                    mine = error[(rows & ((regime == word) | (words == word))).to_numpy() & np.isfinite(error)]
                    if len(mine):
                        median, p90 = 100 * np.median(mine), 100 * np.quantile(mine, 0.9)
                        print(f"{name:14} {measured:22} {word:28} {split:9}{len(mine):5} {median:6.1f} {p90:6.1f}")
    if write:
        write_constants("collectives", HEADER, groups)


if __name__ == "__main__":
    main()
