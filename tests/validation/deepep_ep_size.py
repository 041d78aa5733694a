"""DeepEP low latency against EP size: python tests/validation/deepep_ep_size.py.

Prints dispatch and combine of 128 tokens a rank, hidden 7,168, 8 of 256 experts, predicted beside measured and beside
the table that DeepEP itself publishes (README at 7ce8da4, H800 with 400 Gb/s cards). The constants saw 1, 2 and 8
nodes; 4 nodes are held out, 16 and 32 nodes are beyond all measurements of their fit.
"""

from __future__ import annotations

import pandas as pd

from moesim.hardware.predict import predict_columns
from moesim.hardware.tables import load_kind
from moesim.validation import MEASURED

PUBLISHED_US = {8: (77, 114), 16: (118, 195), 32: (155, 273), 64: (173, 314), 128: (192, 369), 256: (194, 360)}


def table() -> pd.DataFrame:
    """A row an EP size: predicted, measured and published microseconds of dispatch and combine."""
    kind = load_kind("deepep_ll")
    measured = pd.read_parquet(MEASURED / "deepep_ll_0.5.6.post2_h100_calib.parquet")
    measured = measured[(measured["num_token"] == 128) & (measured["num_experts"] == 256)].set_index("node_num")
    nodes = [size // 8 for size in PUBLISHED_US]
    rows = measured.iloc[[0] * len(nodes)].reset_index(drop=True).assign(node_num=nodes)
    predicted = 1e6 * predict_columns(rows, kind)
    out = pd.DataFrame({"EP": list(PUBLISHED_US)})
    for column, name in enumerate(("dispatch", "combine")):
        out[f"{name} predicted"] = predicted[:, column].round().astype(int)
        out[f"{name} measured"] = measured[f"{name}_avg_t_us"].reindex(nodes).round().astype("Int64").to_numpy()
        out[f"{name} published"] = [both[column] for both in PUBLISHED_US.values()]
    return out


if __name__ == "__main__":
    print(table().to_string(index=False, na_rep="-"))
