"""DeepEP low latency against EP size: python -m tests.validation.deepep_ep_size.

Prints dispatch and combine of runs of 128 tokens a rank, hidden 7,168, 8 of 256 experts at random, beside measured
and beside the table that DeepEP itself publishes (README at 7ce8da4, H800 with 400 Gb/s cards). The constants saw 1, 2
and 8 nodes; 4 nodes are held out, 16 and 32 nodes are beyond all measurements of their fit.
"""

from __future__ import annotations

import pandas as pd

from moesim.calibration import MEASURED
from tests.validation.exchanges import DIRECTIONS, Row, run_us

PUBLISHED_US = {8: (77, 114), 16: (118, 195), 32: (155, 273), 64: (173, 314), 128: (192, 369), 256: (194, 360)}
VERSION = "0.5.0"
"""As the table that has several nodes calls it."""


def table() -> pd.DataFrame:
    """A row an EP size: simulated, measured and published microseconds of dispatch and combine."""
    measured = pd.read_parquet(MEASURED / "deepep_ll_0.5.6.post2_h100_calib.parquet")
    measured = measured[(measured["num_token"] == 128) & (measured["num_experts"] == 256)].set_index("node_num")
    nodes = [size // 8 for size in PUBLISHED_US]
    network = {"preset": "deepep-low-latency", "fitted": [f"sglang/deepep-ll/{VERSION}/{part}" for part in DIRECTIONS]}
    simulated = [
        run_us(
            Row(
                gpus=size,
                hidden=7168,
                tokens=128,
                top_k=8,
                experts=256,
                network=network,
                measured_us={},
                fitted=False,
            ),
            "closed-form",
        )
        for size in PUBLISHED_US
    ]
    out = pd.DataFrame({"EP": list(PUBLISHED_US)})
    for column, name in enumerate(DIRECTIONS):
        out[f"{name} simulated"] = [round(one[name]) for one in simulated]
        out[f"{name} measured"] = measured[f"{name}_avg_t_us"].reindex(nodes).round().astype("Int64").to_numpy()
        out[f"{name} published"] = [both[column] for both in PUBLISHED_US.values()]
    return out


if __name__ == "__main__":
    print(table().to_string(index=False, na_rep="-"))
