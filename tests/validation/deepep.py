"""DeepEP low-latency dispatch and combine, port level against measured: python tests/validation/deepep.py.

The measured kernels (H100 nodes of 8, 400 Gb/s network cards) send random
top-k choices of tokens of hidden size 7168; the model sends them message by
message at the rates of the preset `deepep-low-latency` and takes the mean GPU.
`port_bandwidth_factor` of the preset is fitted here: across nodes on the rows
of 16 to 64 GPUs with 128 and 256 tokens a GPU and 256 experts; within a node on
the rows of 8 GPUs with 128 tokens or more and 128 experts or more, of another
version of the kernels. All other rows are predicted. The latency of a level is
the same for any number of nodes, the measured one is not: that shows on 16 GPUs
with few tokens. Prints the factors and the errors.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from moesim import Scenario
from moesim.engine.ports import exchange, free_ports
from moesim.hardware import exchange_rates
from moesim.types import Exchange

DATA = Path(__file__).resolve().parents[2] / "moesim" / "validation" / "measured"
M, DRAWS = 8, 3
PRESET = "deepep-low-latency"


def table(version: str) -> pd.DataFrame:
    """The rows of a version of the kernels, with the number of GPUs and what was fitted on them."""
    rows = pd.read_parquet(DATA / f"deepep_ll_{version}_h100_calib.parquet")
    across = (rows.node_num > 1) & rows.num_token.isin((128, 256)) & (rows.num_experts == 256)
    within = (rows.version == "0.5.12") & (rows.num_token >= 128) & (rows.num_experts >= 128)
    return rows.assign(gpus=M * rows.node_num, fitted=across | within)


@cache
def copies(n_gpus: int, tokens: int, n_experts: int, top_k: int, seed: int) -> NDArray[np.int64]:
    """Random choices as one copy a selected expert, [G, G]; experts in runs, as even as they go."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_gpus, n_gpus), dtype=np.int64)
    for source in counts:
        chosen = np.argpartition(rng.random((tokens, n_experts)), top_k, axis=1)[:, :top_k]
        source[:] = np.bincount((chosen * n_gpus // n_experts).ravel(), minlength=n_gpus)
    return counts


def rates(n_nodes: int, hidden: int, factor: tuple[float, float] | None = None) -> tuple[Exchange, Exchange]:
    """Dispatch and combine at the port level of the preset, its factor or another."""
    network = {"preset": PRESET} | ({} if factor is None else {"port_bandwidth_factor": list(factor)})
    scenario = Scenario.from_dict(
        {
            "model": "deepseek-v3",
            "cluster": {"gpu": "h100-sxm", "nodes": n_nodes, "gpus_per_node": M, "network": network},
            "simulation": {"network": "port"},
        }
    )
    return exchange_rates(scenario.cluster, scenario.precision, hidden)


def port_us(counts: NDArray[np.int64], ports: Exchange, *, forward: bool) -> NDArray[np.float64]:
    """Microseconds from the common entry to the end on each GPU, [G]."""
    n_gpus = len(counts)
    end, arrival = np.zeros(n_gpus, dtype=np.int64), np.zeros((n_gpus, n_gpus), dtype=np.int64)
    exchange(
        forward,
        False,
        np.zeros(n_gpus, dtype=np.int64),
        counts,
        np.zeros((0, 0), dtype=np.int64),
        ports.out_ps,
        ports.in_ps,
        np.repeat(ports.latency_ps[:, None], n_gpus, axis=1),
        np.empty((0, 5)),
        M,
        free_ports(n_gpus),
        end,
        arrival,
    )
    return end / 1e6


def errors(rows: pd.DataFrame, factor: tuple[float, float] | None = None) -> pd.DataFrame:
    """Mean GPU of each row and direction over some draws: measured_us, predicted_us, error (relative)."""
    parts = []
    known: dict[tuple[int, ...], tuple[Exchange, Exchange]] = {}
    for row in rows.itertuples():
        gpus, hidden = int(row.gpus), int(row.hidden_size)
        if (gpus, hidden) not in known:
            known[gpus, hidden] = rates(gpus // M, hidden, factor)
        draws = [copies(gpus, int(row.num_token), int(row.num_experts), int(row.num_topk), i) for i in range(DRAWS)]
        for kind, ports, measured in zip(
            ("dispatch", "combine"),
            known[gpus, hidden],
            (row.dispatch_avg_t_us, row.combine_avg_t_us),
            strict=True,
        ):
            times = np.stack([port_us(draw, ports, forward=kind == "dispatch") for draw in draws])
            parts.append(
                {
                    "kind": kind,
                    **{name: getattr(row, name) for name in ("gpus", "num_token", "num_experts", "fitted")},
                    "measured_us": measured,
                    "predicted_us": times.mean(),
                    "last_gpu_us": times.max(axis=1).mean(),
                }
            )
    frame = pd.DataFrame(parts)
    return frame.assign(error=frame.predicted_us / frame.measured_us - 1)


def fit() -> tuple[float, float]:
    """The factors (within a node, across nodes) with the least squares of the logarithms of the errors."""

    def best(rows: pd.DataFrame, level: int, other: float) -> float:
        def misfit(x: float) -> float:
            found = errors(rows, (float(x), other) if level == 0 else (other, float(x)))
            return float((np.log(found.predicted_us / found.measured_us) ** 2).sum())

        return float(minimize_scalar(misfit, bounds=(0.7, 1.3), method="bounded", options={"xatol": 2e-3}).x)

    one, several = table("0.5.12"), table("0.5.6.post2")
    within = best(one[one.fitted], 0, 1.0)
    return within, best(several[several.fitted], 1, within)


def main() -> None:
    """Print what the preset should hold, and the errors of what it holds."""
    within, across = fit()
    print(f"port_bandwidth_factor: [{within:.3f}, {across:.3f}]\n")
    for version in ("0.5.6.post2", "0.5.12"):
        frame = errors(table(version))
        frame["cell"] = [
            f"{m:.0f}/{p:.0f} {e:+.0%}" for m, p, e in frame[["measured_us", "predicted_us", "error"]].values
        ]
        wanted = frame[frame.num_experts == 256].assign(tokens=lambda rows: rows.num_token)
        shown = wanted.pivot_table(index=["kind", "gpus"], columns="tokens", values="cell", aggfunc="first")
        print(f"Version {version}, 256 experts, us measured/predicted by tokens a GPU\n{shown.to_string()}\n")
        for name, part in (("fitted", frame[frame.fitted]), ("predicted", frame[~frame.fitted])):
            error = part.error.abs()
            print(f"  {name}: {len(part)} rows, median {error.median():.1%}, 90th percentile {error.quantile(0.9):.1%}")
        print()


if __name__ == "__main__":
    main()
