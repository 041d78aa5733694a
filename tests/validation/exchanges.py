"""Dispatch and combine of runs beside measured exchanges: python -m tests.validation.exchanges [--every N].

Every row of the tables that ship with moesim is run with both levels of detail:
one layer of the row's hidden size, experts and top-k, whose tokens choose at
random, with the network preset of the row's library. The mean GPU's dispatch
and combine are compared with what was measured. Prints the table of the README:
median and 90th percentile of the absolute errors in per cent, of rows that the
constants were fitted to and of rows that they never saw. Rows of more than
LARGEST tokens in all are left out, as they only show the bandwidth once more;
with --every N the others are every N-th.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest.mock import patch

import pandas as pd

from moesim import Scenario, simulate
from moesim.calibration import MEASURED
from moesim.calibration.checks import typed
from moesim.calibration.layout import load_layout
from moesim.simulation.plan import RunPlan
from moesim.simulation.state import RunState
from moesim.types import Batch

STEPS = import_module("moesim.simulation.step")
LEVELS = ("closed-form", "port")
DIRECTIONS = ("dispatch", "combine")
LARGEST = 2**17
DTYPES = {"bfloat16": "bf16", "default": "bf16", "nvfp4": "fp4"}
BACKENDS = {
    "trtllm_deepep_ll": "trtllm-deepep-low-latency",
    "trtllm_deepep_ht": "trtllm-deepep-normal",
    "deepep_ll": "vllm-deepep-low-latency",
    "deepep_ht": "vllm-deepep-normal",
}
NAMES = {
    "deepep-low-latency": "DeepEP low latency",
    "deepep-normal": "DeepEP normal",
    "nccl-all-gather": "NCCL all-gather and reduce-scatter",
    "nccl-all-to-all": "NCCL all-to-all",
    "trtllm-deepep-low-latency": "TensorRT-LLM, low latency",
    "trtllm-deepep-normal": "TensorRT-LLM, normal",
    "vllm-deepep-low-latency": "vLLM, low latency",
    "vllm-deepep-normal": "vLLM, normal",
}

WHERE = ("", ", within a node", ", across nodes")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured exchange: how it is run, microseconds of its parts, and whether constants saw it."""

    gpus: int
    hidden: int
    tokens: int
    top_k: int
    experts: int
    network: Mapping[str, Any]
    measured_us: Mapping[str, float]
    fitted: bool
    dispatch: str = "fp8"

    @property
    def name(self) -> str:
        """Of the exchange, as the README's table has it."""
        name = NAMES[self.network["preset"]]
        across = WHERE[2 if self.gpus > 8 else 1]
        return name + (across if name.startswith("DeepEP") else "")  # others were measured within a node alone


def rows() -> list[Row]:
    """The rows of all tables, without those of more than LARGEST tokens."""
    found: list[Row] = []
    for name, reader in READERS.items():
        kind = load_layout(name)
        for path in sorted(MEASURED.glob(f"{name}_*.parquet")):
            frame = typed(pd.read_parquet(path), kind)
            found += reader(frame.assign(fitted=kind.fitted(frame)))
    return [row for row in found if row.tokens * row.gpus <= LARGEST]


def _deepep(frame: pd.DataFrame, preset: str, columns: str, **more: str) -> Iterator[Row]:
    """Rows of DeepEP's own tables, each with the constants of its version: those of the preset are of the newest."""
    row: Any
    for row in frame.itertuples():
        versions = [f"sglang/{preset.replace('low-latency', 'll')}/{row.version}/{part}" for part in DIRECTIONS]
        yield Row(
            gpus=8 * int(row.node_num),
            hidden=int(row.hidden_size),
            tokens=int(row.num_token),
            top_k=int(row.num_topk),
            experts=int(row.num_experts),
            network={"preset": preset, "fitted": versions, **{key: int(getattr(row, of)) for key, of in more.items()}},
            measured_us={part: getattr(row, columns.format(part)) for part in DIRECTIONS},
            fitted=bool(row.fitted),
        )


def _low_latency(frame: pd.DataFrame) -> Iterator[Row]:
    return _deepep(frame, "deepep-low-latency", "{}_avg_t_us")


def _normal(frame: pd.DataFrame) -> Iterator[Row]:
    return _deepep(frame, "deepep-normal", "{}_us", comm_sms="dispatch_sms")


def _nccl(frame: pd.DataFrame) -> Iterator[Row]:
    """A message of a GPU as tokens: all of them gathered, or one of each GPU for each other."""
    operations = {"all_gather": "dispatch", "reduce_scatter": "combine", "alltoall": "dispatch"}
    row: Any
    for row in frame[frame["op_name"].isin(operations)].itertuples():
        gpus, elements = int(row.num_gpus), int(row.message_size) // int(row.num_gpus)
        hidden = min(4096, elements)
        part = operations[row.op_name]
        yield Row(
            gpus=gpus,
            hidden=hidden,
            tokens=elements // hidden,
            top_k=gpus,
            experts=gpus,
            network={"preset": "nccl-all-to-all" if row.op_name == "alltoall" else "nccl-all-gather"},
            measured_us={part: 1e3 * row.latency},
            fitted=bool(row.fitted),
            dispatch="bf16",
        )


def _wrappers(frame: pd.DataFrame) -> Iterator[Row]:
    row: Any
    for row in frame[frame["comm_backend"].isin(BACKENDS)].itertuples():
        network: dict[str, Any] = {"preset": BACKENDS[row.comm_backend]}
        if row.phase == "combine":  # of the type that dispatch had
            network["fitted"] = [
                f"{row.framework}/moe-a2a/{row.comm_backend}/{row.comm_dtype}/{part}" for part in DIRECTIONS
            ]
        yield Row(
            gpus=int(row.ep_size),
            hidden=int(row.hidden_size),
            tokens=int(row.num_tokens),
            top_k=int(row.topk),
            experts=int(row.num_experts),
            network=network,
            measured_us={row.phase: row.latency},
            fitted=bool(row.fitted),
            dispatch=DTYPES.get(row.comm_dtype, row.comm_dtype),
        )


READERS = {"deepep_ll": _low_latency, "deepep_normal": _normal, "nccl": _nccl, "moe_a2a": _wrappers}


def scenario(row: Row, level: str) -> Scenario:
    """What is run for a row: one layer, attention and experts as small as they may be."""
    model = {
        "n_layers": 1,
        "moe_intermediate_size": 16,
        "vocab_size": 16,
        "n_heads": 1,
        "n_kv_heads": 1,
        "head_dim": 16,
    }
    return Scenario.from_dict(
        {
            "model": {
                **model,
                "hidden_size": row.hidden,
                "n_experts": row.experts,
                "top_k": row.top_k,
                "router": "random",
            },
            "precision": {"dispatch": row.dispatch, "combine": "bf16"},
            "cluster": {
                "gpu": "h100-sxm",
                "nodes": -(-row.gpus // 8),
                "gpus_per_node": min(8, row.gpus),
                "network": dict(row.network),
            },
            "workload": {"steps": 1, "tokens_per_gpu": row.tokens, "context_tokens": 1},
            "simulation": {"network": level},
        }
    )


def run_us(row: Row, level: str) -> dict[str, float]:
    """Microseconds of the mean GPU's dispatch and combine."""
    gpus = simulate(scenario(row, level), threads=1).gpus
    return {part: 1e6 * float(gpus[f"{part}_s"].mean()) for part in DIRECTIONS}


def errors(chosen: list[Row]) -> pd.DataFrame:
    """A line for each part of each row and level of detail, with the error of the run, simulated / measured - 1."""
    found = []
    with routed_once():
        for row in sorted(chosen, key=lambda row: (row.gpus, row.experts, row.top_k, row.tokens)):
            for level in LEVELS:
                simulated = run_us(row, level)
                for part, measured in row.measured_us.items():
                    size = {"gpus": row.gpus, "tokens": row.tokens, "experts": row.experts, "hidden": row.hidden}
                    times = {"measured_us": measured, "simulated_us": simulated[part]}
                    found.append(
                        {"name": row.name, "level": level, "fitted": row.fitted, "part": part, **size, **times}
                    )
    frame = pd.DataFrame(found)
    return frame.assign(error=frame["simulated_us"] / frame["measured_us"] - 1)


@contextmanager
def routed_once() -> Iterator[None]:
    """Within it, steps that differ in nothing that routing reads are routed once, which saves most of the time."""
    route = STEPS.route_step
    known: dict[tuple[Any, ...], Any] = {}

    def route_step(plan: RunPlan, state: RunState, batch: Batch, *others: Any, **more: Any) -> Any:
        key = (
            plan.model.n_experts,
            max(plan.model.choices_of_layer),
            plan.cluster.n_gpus,
            batch.n_tokens,
            plan.copy_rule,
        )
        if key not in known:
            known.clear()
            known[key] = route(plan, state, batch, *others, **more)
        return known[key]

    with patch.object(STEPS, "route_step", route_step):
        yield


def table(frame: pd.DataFrame) -> str:
    """The table of the README."""
    heads = [f"{split}, {level}" for split in ("fitted", "held out") for level in ("closed form", "port")]
    lines = [f"| exchange | rows | {' | '.join(heads)} |", "|---|---|---|---|---|---|"]
    known = set(frame["name"])
    for name in (f"{name}{where}" for name in NAMES.values() for where in WHERE):
        if name not in known:
            continue
        mine = frame[frame["name"] == name]
        cells = []
        for fitted in (True, False):
            for level in LEVELS:
                error = 100 * mine.loc[(mine["fitted"] == fitted) & (mine["level"] == level), "error"].abs()
                cells.append(f"{error.median():.1f} / {error.quantile(0.9):.1f}" if len(error) else "-")
        of = mine[mine["level"] == LEVELS[0]]
        counts = f"{int(of['fitted'].sum())} and {int((~of['fitted']).sum())}"
        lines.append(f"| {name} | {counts} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="run every N-th row only")
    print(table(errors(rows()[:: parser.parse_args().every])))


if __name__ == "__main__":
    main()
