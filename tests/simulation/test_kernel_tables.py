"""Measured tables as `cluster.kernels: {table: PATH}`: what a run takes of them, says of them, and refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moesim import Scenario, simulate, sweep
from moesim.calibration import MEASURED
from moesim.errors import ScenarioError
from moesim.hardware import ExpertShape, backend_of
from moesim.hardware.backends import expert_kernel
from moesim.scenario.schema import json_schema
from moesim.simulation import check
from tests.hardware.measured_rows import experts, products, save

DATA = Path(os.environ["MOESIM_DATA"]) / "measured" if "MOESIM_DATA" in os.environ else MEASURED
SCENARIO = """
model: mixtral-8x7b
cluster:
  gpu: h100-sxm
  gpus_per_node: 4
  kernels: KERNELS
workload: {steps: 2, tokens_per_gpu: 32}
"""
# 128 tokens of four ranks, evenly on Mixtral's experts in 0.4 ms
EXPERTS = experts({64: 0.2, 256: 0.8}, moe_ep_size=4)


def scenario(folder: Path, kernels: str = "{table: tables}", **changes: Any) -> Scenario:
    """A small model with this entry for its kernels."""
    path = folder / "s.yaml"
    path.write_text(SCENARIO.replace("KERNELS", kernels))
    return Scenario.from_yaml(path, overrides={name.replace("__", "."): value for name, value in changes.items()})


def expert_ms(result: Any) -> float:
    """Milliseconds of the experts of one layer, mean over GPUs and steps."""
    timeline = result.timeline
    own = timeline[timeline["kind"] == "experts"]
    return float((own["end_s"] - own["start_s"]).mean() * 1e3)


def test_a_run_says_what_was_measured_and_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, digests and counts of sizes are in the manifest."""
    save(tmp_path / "tables", moe=EXPERTS, gemm=products({32: 0.1}), nccl=EXPERTS[["system"]])
    result = simulate(scenario(tmp_path))
    files = {name: hashlib.sha256((tmp_path / "tables" / name).read_bytes()).hexdigest() for name in _FILES}
    concatenate = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    assert result.manifest["inputs"] == [{"name": name, "sha256": digest} for name, digest in files.items()]
    assert result.manifest["table"] == {
        "name": "tables",
        "sha256": concatenate,
        "sizes": {
            "attention": {"no rows of trtllm/gqa-128/bfloat16": 1},
            "dense products": {"measured": 1, "no rows of this shape": 3},
            "experts": {"interpolated": 1},
        },
    }
    said = result.manifest["provenance"]
    assert said["kernel times"] == (
        "estimated: formulas with constants of trtllm-bf16 on h100-sxm, where the tables of tables have no measurement"
    )
    slowed = "times the slowdown of the actual loads by formula"
    assert said["time of experts"] == f"estimated: 1 of 1 sizes interpolated, then {slowed}"
    assert said["time of dense products"] == "measured: 1 of 4 sizes"
    assert said["time of dense products, other sizes"] == "estimated: 3 of 4 sizes by formula (no rows of this shape)"
    assert said["time of attention"] == "estimated: 1 of 1 sizes by formula (no rows of trtllm/gqa-128/bfloat16)"
    assert "time of experts" in result.report_html()
    assert str(tmp_path) not in result.shown_yaml()
    saved = result.save(tmp_path / "saved")
    monkeypatch.chdir("/")  # the resolved scenario has the whole path
    again = simulate(Scenario.from_yaml(saved / "scenario.yaml"))
    assert again.summary == result.summary
    assert all(again.manifest[key] == result.manifest[key] for key in ("table", "provenance", "inputs"))


_FILES = ("gemm_test.csv", "moe_test.csv")


def test_a_part_that_no_table_has_is_as_without(tmp_path: Path) -> None:
    """Rows of another number of ranks."""
    save(tmp_path / "tables", moe=experts({64: 0.2, 256: 0.8}, moe_ep_size=2))
    found, plain = simulate(scenario(tmp_path)), simulate(scenario(tmp_path, "trtllm-bf16"))
    assert found.summary == plain.summary


def test_every_thread_count_gives_the_same(tmp_path: Path) -> None:
    """Counts of looked-up sizes as well."""
    save(tmp_path / "tables", moe=EXPERTS)
    one, two = (simulate(scenario(tmp_path), threads=n) for n in (1, 2))
    assert one.summary == two.summary
    assert all(one.manifest[key] == two.manifest[key] for key in ("table", "provenance", "inputs"))


def test_the_family_says_whose_rows_and_whose_formulas(tmp_path: Path) -> None:
    """Rows of vLLM are read for vLLM's kernels alone."""
    save(tmp_path / "tables", moe=EXPERTS.assign(framework="VLLM", kernel_source="vllm_triton"))
    named = simulate(scenario(tmp_path, "{table: tables, family: vllm-bf16}"))
    assert "interpolated" in named.manifest["provenance"]["time of experts"]
    assert "constants of vllm-bf16" in named.manifest["provenance"]["kernel times"]
    with pytest.raises(ScenarioError, match="column framework: found vllm, wanted rows of trtllm for trtllm-bf16"):
        check(scenario(tmp_path))


def test_a_file_of_constants_may_stand_for_the_rest(tmp_path: Path) -> None:
    """The family of the tables is a file that was calibrated."""
    from moesim.calibration import Calibration
    from moesim.hardware.constants import load

    name = "trtllm/cutlass/bfloat16"
    kernels = {"experts": {name: {**load("experts")[name], "launch_s": 1.0}}}
    Calibration(name="mine", gpu="h100-sxm", source="a test", kernels=kernels, errors=pd.DataFrame()).write(
        tmp_path / "mine.yaml"
    )
    save(tmp_path / "tables", gemm=products({32: 0.1}))
    result = simulate(scenario(tmp_path, "{table: tables, family: mine.yaml}"))
    assert result.summary["step_time_s"]["mean"] > 32
    assert result.manifest["kernels"]["name"] == "mine.yaml"
    assert result.manifest["table"]["sizes"]["dense products"]["measured"] == 1


def test_micro_batches_are_looked_up_at_their_own_sizes(tmp_path: Path) -> None:
    """16 tokens of each GPU in a micro-batch are 64 in the layer; the head has all 32 at once."""
    save(tmp_path / "tables", moe=EXPERTS, gemm=products({16: 0.1}))
    result = simulate(scenario(tmp_path, simulation__overlap="two-batch"))
    assert result.manifest["table"]["sizes"]["experts"] == {"measured": 1}
    # output projection, QKV and gate with 16 rows, vocabulary with 32
    assert result.manifest["table"]["sizes"]["dense products"] == {"measured": 1, "no rows of this shape": 3}


def test_queued_experts_keep_their_formula(tmp_path: Path) -> None:
    """Batches of a queue have sizes that no table holds."""
    save(tmp_path / "tables", moe=EXPERTS)
    changes = {"simulation__experts": "queued", "workload__steps": 1}
    found, plain = (simulate(scenario(tmp_path, k, **changes)) for k in ("{table: tables}", "trtllm-bf16"))
    assert found.summary == plain.summary
    said = found.manifest["provenance"]["time of experts"]
    assert said == "estimated: 1 of 1 sizes by formula (queued experts are kernels of their own)"


def test_a_sweep_keeps_runs_of_another_table_apart(tmp_path: Path) -> None:
    """Resumed with other measurements in the same file, nothing old is taken; with the same, all of it."""
    times = []
    for ms in (0.2, 0.4, 0.4):
        save(tmp_path / "tables", moe=EXPERTS.assign(latency_ms=[ms, 4 * ms]))
        (tmp_path / "s.yaml").write_text(
            SCENARIO.replace("KERNELS", "{table: tables}") + "sweep: {grid: {seed: [0, 1]}}\n"
        )
        found = sweep(Scenario.from_yaml(tmp_path / "s.yaml"), folder=tmp_path / "out", workers=1)
        times.append(found.summary["step_time_s.mean"].to_numpy())
        assert len(list((tmp_path / "out" / "points").iterdir())) == (2 if ms == 0.2 else 4)
    assert (times[1] > times[0]).all()
    assert (times[2] == times[1]).all()


def test_a_variant_names_a_table_of_its_own(tmp_path: Path) -> None:
    """Slower rows make the variant slower."""
    save(tmp_path / "tables", moe=EXPERTS)
    save(tmp_path / "slow", moe=EXPERTS.assign(latency_ms=[2.0, 8.0]))
    text = SCENARIO.replace("KERNELS", "{table: tables}") + "compare: {a: {}, b: {cluster.kernels.table: slow}}\n"
    (tmp_path / "s.yaml").write_text(text)
    slow, fast = (
        simulate(variant).summary["step_time_s"]["mean"]
        for variant in reversed(Scenario.from_yaml(tmp_path / "s.yaml").variants().values())
    )
    assert slow > fast + 32 * 1e-3


@pytest.mark.parametrize("model, gpus, group", [("mixtral-8x7b", 8, "trtllm"), ("deepseek-v3", 32, "sglang")])
def test_the_measured_tables_change_the_time_of_experts_to_theirs(
    tmp_path: Path, model: str, gpus: int, group: str
) -> None:
    """A router that deals its choices in turn spreads them evenly, as the measured rank was loaded."""
    common = {
        "model": model,
        "routing": {"strategy": "round-robin"},
        "workload": {"steps": 1, "tokens_per_gpu": 64},
    }
    cluster = {"gpu": "h100-sxm", "nodes": gpus // min(gpus, 8), "gpus_per_node": min(gpus, 8)}
    if group == "sglang":  # its masked kernels run behind DeepEP's low-latency exchange
        cluster["network"] = "deepep-low-latency"
    runs = [
        simulate(Scenario.from_dict({**common, "cluster": {**cluster, "kernels": kernels}}))
        for kernels in ({"table": str(DATA)}, None)
    ]
    import pandas as pd

    name = "moe" if group == "trtllm" else "wideep_generation"
    table = pd.read_parquet(DATA / f"{name}_h100_calib.parquet")
    own = table[(table.num_tokens == 64 * gpus) & (table.moe_ep_size == gpus) & (table.moe_tp_size == 1)]
    own = own[own.distribution.isin(["balanced", "uniform"])]
    if group == "trtllm":
        own = own[(own.model == model) & (own.framework == "TRTLLM") & (own.moe_dtype == "bfloat16")]
    (measured_ms,) = own.latency_ms
    assert runs[0].manifest["table"]["sizes"]["experts"] == {"measured": 1}
    expected_ms = measured_ms
    if group == "trtllm":  # a rank was handed the tokens of all ranks, of which an exchange delivers fewer
        plain = Scenario.from_dict({**common, "cluster": cluster})
        shape = ExpertShape.of(plain.model, n_ranks=gpus)
        kernel = expert_kernel(
            backend_of("trtllm-bf16"), plain.cluster.gpu, plain.precision, prompts=False, throttled=False
        )
        evenly = 64 * gpus * shape.top_k // shape.n_experts
        handed_all = kernel.time([evenly] * (shape.n_experts // gpus), shape, tokens=64 * gpus, mean_load=evenly)
        expected_ms *= expert_ms(runs[1]) / (1e3 * float(handed_all))
        assert 0.98 * measured_ms < expected_ms < measured_ms
    assert expert_ms(runs[0]) == pytest.approx(expected_ms, rel=1e-6)
    assert abs(expert_ms(runs[1]) / measured_ms - 1) > abs(expert_ms(runs[0]) / measured_ms - 1)


@pytest.mark.parametrize(
    "kernels, place, words",
    [
        ("{table: nowhere}", "6:13: cluster.kernels.table: found nowhere", "no such folder"),
        ("{tabel: tables}", "6:13: cluster.kernels.tabel: found an unknown field", "wanted table"),
        ("{table: tables, famly: x}", "cluster.kernels.famly: found an unknown field", "wanted family"),
        ("{family: trtllm-bf16}", "6:3: cluster.kernels.table: found nothing", "this field, which has no default"),
        ("{table: 3}", "cluster.kernels.table: found 3", "wanted a valid string"),
        ("{table: tables, family: trtlm-bf16}", "cluster.kernels.family: found trtlm-bf16", "did you mean trtllm-bf16"),
        ("{table: tables, family: trtllm-fp8}", "cluster.kernels.family: found trtllm-fp8", "activations in bf16"),
        ("{table: tables, family: no.yaml}", "cluster.kernels.family: found no.yaml", "cannot be read as constants"),
        ("[tables]", "6:3: cluster.kernels: found ['tables']", "wanted a valid string"),
    ],
)
def test_what_is_wrong_is_an_error_at_its_field(tmp_path: Path, kernels: str, place: str, words: str) -> None:
    """With line and column where the file has them."""
    save(tmp_path / "tables", moe=EXPERTS)
    with pytest.raises(ScenarioError) as raised:
        check(scenario(tmp_path, kernels))
    assert place in str(raised.value)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "table, words",
    [
        (EXPERTS.drop(columns="topk"), "column topk is missing"),
        (EXPERTS.assign(latency_ms=[0.2, -0.8]), "row 2, column latency_ms: found -0.8, wanted a latency"),
        (EXPERTS.assign(latency_ms=[200.0, 800.0]), "times the predicted ones"),
        (EXPERTS.assign(system="b200_sxm"), "column system: found b200_sxm, wanted rows of h100-sxm"),
    ],
)
def test_a_wrong_table_is_an_error_at_the_line_of_the_scenario(tmp_path: Path, table: pd.DataFrame, words: str) -> None:
    """The row and the column of the table follow."""
    save(tmp_path / "tables", moe=table)
    with pytest.raises(
        ScenarioError, match=r"s\.yaml:6:13: cluster\.kernels\.table: found tables, wanted a measured table or a folder"
    ) as raised:
        check(scenario(tmp_path))
    assert words in str(raised.value)


def test_a_gpu_of_its_own_needs_its_own_rows(tmp_path: Path) -> None:
    """Rows name the GPU as the scenario does; the published one is another once a figure of it is changed."""
    save(tmp_path / "tables", moe=EXPERTS)
    with pytest.raises(ScenarioError, match=r"found h100_sxm, wanted rows of h100-sxm \(changed\)"):
        check(scenario(tmp_path, cluster__gpu__memory_gb=141))
    save(tmp_path / "tables", moe=EXPERTS.assign(system="mine"))
    check(scenario(tmp_path, cluster__gpu__name="mine"))


def test_the_schema_takes_a_name_or_tables() -> None:
    """Or nothing."""
    schema = json_schema()
    kernels = schema["$defs"]["ClusterSpec"]["properties"]["kernels"]
    assert kernels["anyOf"] == [{"type": "string"}, {"$ref": "#/$defs/KernelTables"}, {"type": "null"}]
    assert schema["$defs"]["KernelTables"]["required"] == ["table"]
    assert schema["$defs"]["KernelTables"]["additionalProperties"] is False


def test_whatever_the_schema_refers_to_is_there() -> None:
    """Every reference has its definition."""
    schema = json_schema()
    names = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))
    assert len(names) > 10
    assert set(names) <= set(schema["$defs"])
