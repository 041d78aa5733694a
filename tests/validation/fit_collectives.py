"""Fit the constants of collectives on H100: python tests/validation/fit_collectives.py [--write].

Prints the errors of the shipped constants, or with --write of those that it
fits, on fitted and on held-out rows for every kind of table, regime and measured
column. What is held out, each kind's `fitted` says. The tables are those that
ship with moesim; --write puts the constants into
moesim/hardware/constants/collectives.yaml. On another machine a fit may end
elsewhere along a flat valley, as libraries round otherwise there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

import moesim.hardware.constants
from moesim.calibration import MEASURED
from moesim.calibration.checks import typed
from moesim.calibration.gpus import published_gpus
from moesim.calibration.layout import load_layout
from moesim.calibration.predict import shipped

NAMES = ("deepep_ll", "deepep_normal", "nccl", "moe_a2a")
PATH = Path(moesim.hardware.constants.__file__).with_name("collectives.yaml")
HEADER = {
    "source": "NVIDIA aiconfigurator-core 0.12.0, tables of H100 SXM with NVLink 4 and 400 Gb/s network cards",
    "gpu": "h100-sxm",
    "versions": "SGLang 0.5.12 and 0.5.6.post2 (DeepEP), NCCL 2.29.2, TensorRT-LLM 1.3.0rc11, vLLM 0.24.0",
    "fitted": "python tests/validation/fit_collectives.py --write",
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
        kind = load_layout(name)
        frame = pd.concat(
            [pd.read_parquet(path) for path in sorted(MEASURED.glob(f"{name}*.parquet"))], ignore_index=True
        )
        frame = typed(frame, kind)
        fitted = kind.fitted(frame)
        constants = kind.fit(frame[fitted], gpus) if write else shipped(kind)
        groups |= constants
        predicted = kind.predict(frame, gpus, constants) / kind.unit_s
        regime = kind.regime(frame)
        for column, measured in enumerate(kind.measured):
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
        text = yaml.safe_dump({**HEADER, "groups": groups}, sort_keys=False, width=118)
        PATH.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
