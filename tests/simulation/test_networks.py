"""Every network and overlap through the whole chain, by both interpreters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, simulate
from moesim.cli import main
from moesim.results import Result
from moesim.simulation.routing_step import micro_batches_of
from moesim.types import Batch

SHIPPED = Path(__file__).parents[2] / "scenarios"
SMALL = {
    "workload.steps": 2,
    "workload.tokens_per_gpu": 12,
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 4,
    "model.n_layers": 5,
    "model.dense_layers": [0],
}


@pytest.mark.parametrize("overlap", ["none", "shared-expert", "two-batch"])
@pytest.mark.parametrize("network", ["closed-form", "port"])
@pytest.mark.parametrize("copies", ["per-selection", "per-node", "all"])
def test_both_interpreters_give_the_same_result(network: str, overlap: str, copies: str) -> None:
    """All frames and the summary, exactly; conservation is asserted within."""
    changes = {"simulation.network": network, "simulation.overlap": overlap, "cluster.network.copies": copies}
    simpy, compiled = (
        simulate(
            Scenario.from_yaml("deepseek-v3-decode", overrides={**SMALL, **changes, "simulation.engine": engine}),
            threads=threads,
        )
        for engine, threads in (("simpy", 1), ("compiled", 3))
    )
    for frame in ("steps", "gpus", "timeline", "links", "layers"):
        assert getattr(simpy, frame).equals(getattr(compiled, frame))
    assert simpy.summary == compiled.summary
    assert simpy.manifest["engine"] == "simpy"


@pytest.mark.slow
@pytest.mark.parametrize("overlap", ["none", "shared-expert", "two-batch"])
@pytest.mark.parametrize("network", ["closed-form", "port"])
@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_both_interpreters_agree_on_every_shipped_scenario(
    name: str, network: str, overlap: str, tmp_path: Path
) -> None:
    """As large as they are, for a step."""
    text = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
    changes: dict[str, Any] = {"simulation.network": network, "simulation.overlap": overlap}
    if "trace:" in text:
        changes["workload.trace"] = str(recorded(tmp_path))
    else:
        changes["workload.steps"] = 1
    simpy, compiled = (
        simulate(Scenario.from_yaml(SHIPPED / f"{name}.yaml", overrides={**changes, "simulation.engine": engine}))
        for engine in ("simpy", "compiled")
    )
    assert (simpy.manifest["engine"], compiled.manifest["engine"]) == ("simpy", "compiled")
    for frame in ("steps", "gpus", "timeline", "links"):
        assert getattr(simpy, frame).equals(getattr(compiled, frame)), frame
    assert simpy.summary == compiled.summary


def test_an_all_gather_brings_every_token_everywhere_whatever_it_chose() -> None:
    """Two nodes of four: 12 tokens cross to one node and go on to the three others of it; combine brings all back."""
    skews = (0.0, 3.0)
    even, skewed = (
        simulate(
            Scenario.from_yaml(
                "deepseek-v3-decode",
                overrides={**SMALL, "cluster.network": "nccl-all-gather", "workload.popularity": {"exponent": skew}},
            )
        ).summary
        for skew in skews
    )
    assert even["bytes"] == skewed["bytes"]
    layers, gpus, copy = 4, 8, 7168 + 4 * 56 + 16 + 2 * 7168
    assert even["bytes"] == {
        "across_nodes": layers * gpus * 12 * copy,
        "within_node": layers * gpus * 12 * 2 * 3 * copy,
    }
    assert skewed["breakdown_s"]["experts"] != even["breakdown_s"]["experts"]


def recorded(folder: Path) -> Path:
    """A trace as one imports it, of Mixtral's shape: 40 tokens, 32 layers."""
    source = folder / "recording.jsonl"
    rng = np.random.default_rng(5)
    with source.open("w", encoding="utf-8") as file:
        for token, layer in np.ndindex(40, 32):
            line = {
                "problem_id": token // 20,
                "token_idx": token % 20,
                "layer": layer,
                "experts": rng.choice(8, 2, replace=False).tolist(),
                "gating_probs": [0.6, 0.4],
            }
            file.write(json.dumps(line) + "\n")
    target = folder / "trace.parquet"
    with pytest.raises(SystemExit) as ended:
        main(["import", str(source), "-o", str(target)])
    assert ended.value.code == 0
    return target


def test_two_batches_process_every_token_once() -> None:
    """Loads and bytes are those of one batch, whatever the overlap."""

    def result(overlap: str) -> Result:
        return simulate(Scenario.from_yaml("deepseek-v3-decode", overrides={**SMALL, "simulation.overlap": overlap}))

    one, two = result("none"), result("two-batch")
    assert one.experts.equals(two.experts)
    assert (one.links[["source", "destination", "level", "bytes"]]).equals(
        two.links[["source", "destination", "level", "bytes"]]
    )
    assert len(two.timeline) > len(one.timeline)


def test_micro_batches_are_the_halves_of_every_rank() -> None:
    """An odd number gives the first half one more; every token is in one of them."""
    none = np.zeros(7, np.int32)
    source = np.array([1, 0, 1, 1, 0, 1, 1], dtype=np.int32)
    batch = Batch(step=0, source=source, sequence=none, topic=none, decodes=none == 0, context=none)
    first, second = micro_batches_of(batch, 2)
    assert np.asarray(first).tolist() == [0, 1, 2, 3]
    assert np.asarray(second).tolist() == [4, 5, 6]
