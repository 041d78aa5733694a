"""A comparison of variants that do not do the same work, from the scenario to what a user reads."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from moesim import Scenario, Study, compare, sweep
from moesim.report.sentence import sentence
from moesim.report.terminal import compare_table, print_table

CASE = Path(os.environ.get("MOESIM_DATA", "")) / "cases" / "reports" / "03_headline_across_workloads.yaml"
TWIN: dict[str, Any] = {
    "name": "headline across workloads",
    "seed": 1,
    "model": {"preset": "olmoe-1b-7b", "n_layers": 2},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
    "workload": {"phase": "decode", "steps": 1, "tokens_per_gpu": 512, "context_tokens": 1024},
    "compare": {
        "batch 512": {},
        "batch 8": {"workload.tokens_per_gpu": 8},
        "prefill": {"workload.phase": "prefill", "workload.tokens_per_gpu": 4096, "workload.sequence_tokens": 1024},
    },
}


def table_of(study: Study) -> str:
    """The table of a comparison as the terminal has it."""
    stream = io.StringIO()
    print_table(compare_table(study.summaries(), paired=study.paired), stream)
    return stream.getvalue()


def check_headline(study: Study) -> None:
    """Batch 8 has the shortest step and is not the best of anything but balance; prefill has most tokens a second."""
    times, rates = study.summary["step_time_s.mean"], study.summary["tokens_per_s_per_gpu"]
    assert (times.idxmin(), rates.idxmax()) == ("batch 8", "prefill")
    ratio = rates["prefill"] / rates["batch 512"]
    assert ratio > 5
    assert sentence(study.summary, study.paired) == (
        f"the work differs (phase, tokens a step), so by throughput per GPU: prefill has {ratio:.2f}x the tokens/s/GPU "
        "of batch 512 (one seed, no interval); neither drops an assignment"
    )
    lines = {line.split("  ")[0]: line.split() for line in table_of(study).splitlines()}
    assert "*" not in lines["batch 8"][2] + lines["batch 8"][3] + lines["batch 8"][4]  # both step times, throughput
    assert lines["prefill"][3].endswith("*")
    assert "the work differs (phase, tokens a step): tokens/s/GPU compares" in table_of(study)


def test_a_small_batch_is_not_called_faster() -> None:
    """On two layers."""
    check_headline(compare(Scenario.from_dict(TWIN)))


@pytest.mark.skipif(not CASE.is_file(), reason="MOESIM_DATA has no cases/reports")
def test_the_reported_comparison_is_by_throughput() -> None:
    """The scenario of the report."""
    check_headline(compare(Scenario.from_yaml(CASE)))


def test_the_report_marks_and_differs_like_the_terminal() -> None:
    """No best step time, and the difference of two scenarios says which of them compare."""
    same = {"capacity 1": {"routing.capacity": {"factor": 1.0}}}
    page = compare(Scenario.from_dict({**TWIN, "compare": {**TWIN["compare"], **same}})).report_html()
    table = page[page.index('id="summary-table"') : page.index("</table>", page.index('id="summary-table"'))]
    cells = re.findall(r"<td( class=\"best\")?[^>]*>", table)
    best = {i % (len(cells) // 4) for i, mark in enumerate(cells) if mark}
    assert not best & {0, 1}  # step times
    assert 2 in best  # tokens/s/GPU
    found = json.loads(re.findall(r'<script type="application/json" id="scenarios">(.*?)</script>', page)[0])
    notes = {(i, j): note for i, row in enumerate(found["work"]) for j, note in enumerate(row)}
    assert notes[0, 3] == notes[3, 0] == notes[0, 0] == ""
    assert notes[0, 1].startswith("the work differs (tokens a step): tokens/s/GPU compares")
    assert notes[1, 2].startswith("the work differs (phase, tokens a step)")


def test_gpus_that_are_lost_take_work_with_them() -> None:
    """Steps without their tokens are shorter, and no faster; a slow GPU does the same work in more time."""
    faults = {"lost": {"kind": "gpu-failure", "gpu": 1}, "slow": {"kind": "slow-gpu", "gpu": 1, "factor": 2.0}}
    variants = {"well": {}, **{name: {"faults": [fault]} for name, fault in faults.items()}}
    study = compare(Scenario.from_dict({**TWIN, "compare": variants}))
    assert list(study.summary["work.tokens_per_step"]) == [2048, 1536, 2048]
    assert sentence(study.summary).startswith("the work differs (tokens a step), so by throughput per GPU: ")
    same = study.paired.groupby("variant")["same_work"].first()
    assert same.to_dict() == {"lost": False, "slow": True}


def test_variants_of_a_sweep_are_paired_by_what_they_do(tmp_path: Path) -> None:
    """At each point: a variant that has a batch of its own differs where the point has another."""
    changes = {
        "workload": {**TWIN["workload"], "tokens_per_gpu": 8},
        "compare": {"as swept": {}, "long context": {"workload.context_tokens": 4096}},
        "sweep": {"workload.sequence_tokens": [16, 32], "routing.top_k": [1, 2]},
    }
    study = sweep(Scenario.from_dict({**TWIN, **changes}), folder=tmp_path)
    assert not study.paired["same_work"].any()
    assert set(study.summary["work.context_tokens"]) == {1024, 4096}
    assert not study.paired["metric"].str.startswith("work.").any()
    page = study.report_html()
    assert "The work differs (context): tokens/s/GPU compares" in page
