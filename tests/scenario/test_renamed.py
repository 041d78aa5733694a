"""Old names of fields: they work, with one notice each, and the new name stands wherever moesim writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError
from moesim.scenario.renamed import FIELDS, VALUES, current_field, former_field

OLD = """\
model: olmoe-1b-7b
cluster: {gpu: h100-sxm, network: {preset: deepep-low-latency, held_sms: 3}}
parallelism: {expert: 2, expert_tensor: 2, attention: tensor, attention_tensor: 4}
routing:
  balancer: {policy: least-loaded}
  balancing: {mechanism: none, feedback_gain: 1.5}
simulation: {overlap: two-batch, overlap_loss: 0.2}
faults:
  - {kind: lost-gpu, gpu: 1, from_s: 0.5, without_copy: stall, recovery_s: 1}
  - {kind: stopped-gpu, every_s: 5, for_s: 0.1}
"""
NEW = """\
model: olmoe-1b-7b
cluster: {gpu: h100-sxm, network: {preset: deepep-low-latency, comm_sms: 3}}
parallelism: {expert: 2, expert_tp: 2, attention: tensor, attention_tp: 4}
routing:
  substitution: {policy: least-loaded}
  training: {mechanism: none, feedback_gain: 1.5}
simulation: {overlap: two-batch, overlap_slowdown: 0.2}
faults:
  - {kind: gpu-failure, gpu: 1, start_s: 0.5, orphans: stall, recovery_s: 1}
  - {kind: gpu-pause, mean_time_between_s: 5, duration_s: 0.1}
"""
BASE = "model: olmoe-1b-7b\ncluster: {gpu: h100-sxm}\n"


def read(folder: Path, text: str, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """A scenario of a file with this text."""
    file = folder / "s.yaml"
    file.write_text(text)
    return Scenario.from_yaml(file, overrides=overrides)


def lines(scenario: Scenario, folder: Path) -> list[str]:
    """Its notices without the folder of the test."""
    return [str(notice).replace(f"{folder}/", "") for notice in scenario.warnings]


def test_every_old_name_is_read_as_the_new_one_with_one_notice_that_says_it(tmp_path: Path) -> None:
    """All entries of the tables, in one file."""
    old, new = read(tmp_path, OLD), read(tmp_path, NEW)
    assert old.spec == new.spec
    assert old.resolved_yaml() == new.resolved_yaml()
    told = [notice for notice in old.warnings if notice not in new.warnings]
    told = [notice for notice in told if "called" in notice.text]
    assert len(told) == len(FIELDS) + sum(len(words) for words in VALUES.values())
    for name in (*FIELDS.values(), "gpu-failure", "gpu-pause"):
        assert sum(notice.text.partition(";")[0].endswith(name) for notice in told) == 1
    assert str(told[1]) == (
        f"{tmp_path}/s.yaml:3:26: parallelism.expert_tensor: the field is now called parallelism.expert_tp; "
        "the old name still works"
    )


def test_a_resolved_scenario_has_new_names_alone(tmp_path: Path) -> None:
    """What moesim writes gives no notice when it is read again."""
    again = read(tmp_path, read(tmp_path, OLD).resolved_yaml())
    assert again.warnings == ()
    assert "without_copy" not in again.resolved_yaml()


def test_overrides_variants_and_points_may_have_old_names(tmp_path: Path) -> None:
    """Each old name is told once, at its first place; points and variants have the new one."""
    text = BASE + (
        "parallelism: {expert_tensor: 1}\n"
        "compare:\n"
        "  a: {routing.balancer.policy: least-loaded, parallelism.expert_tensor: 2}\n"
        "  b: {faults: [{kind: lost-gpu, gpu: 1, from_s: 2}]}\n"
        "sweep:\n"
        "  grid: {simulation.overlap_loss: [0.1, 0.2]}\n"
        "  list: [{routing.balancing: {mechanism: none}}]\n"
        "  random: {n: 2, axes: {cluster.network.held_sms: {low: 1, high: 9, integer: true}}}\n"
    )
    scenario = read(tmp_path, text, {"simulation.overlap_loss": 0.4})
    assert [line.partition(": the field")[0] for line in lines(scenario, tmp_path)] == [
        "s.yaml:3:15: parallelism.expert_tensor",
        "s.yaml:5:7: routing.balancer.policy",
        "s.yaml:6:17: faults.0.kind: lost-gpu is now called gpu-failure",
        "s.yaml:6:41: faults.0.from_s",
        "s.yaml:8:10: simulation.overlap_loss",
        "s.yaml:9:11: routing.balancing",
        "s.yaml:10:25: cluster.network.held_sms",
    ]
    assert scenario.spec.simulation.overlap_slowdown == 0.4
    assert scenario.variant("a").changes() == ["routing.substitution.policy", "parallelism.expert_tp"]
    assert scenario.variant("b").spec.faults[0].start_s == 2
    point = scenario.points()[0]
    assert list(point) == ["routing.training", "cluster.network.comm_sms", "simulation.overlap_slowdown"]
    assert scenario.with_point({"simulation.overlap_loss": 0.3}).spec.simulation.overlap_slowdown == 0.3
    assert scenario.with_overrides({"simulation.overlap_loss": 0.3}).spec.simulation.overlap_slowdown == 0.3


def test_random_axes_draw_as_they_did_under_their_old_names(tmp_path: Path) -> None:
    """The draws of an axis depend on its name: the renamed ones keep those that they had."""
    text = BASE + "sweep: {random: {n: 3, axes: {simulation.NAME: {low: 0, high: 1}}}}\n"
    old, new = (read(tmp_path, text.replace("NAME", name)).points() for name in ("overlap_loss", "overlap_slowdown"))
    assert old == new
    assert [point["simulation.overlap_slowdown"] for point in new] == [0.835657, 0.803224, 0.246303]


def test_an_extended_file_may_have_old_names(tmp_path: Path) -> None:
    """Its notice names it, and what is above it may use the new ones."""
    (tmp_path / "base.yaml").write_text(BASE + "parallelism: {expert_tensor: 2}\n")
    scenario = read(tmp_path, "extends: base.yaml\nparallelism: {expert_tp: 4}\n")
    assert scenario.spec.parallelism.expert_tp == 4
    assert [line.partition(": the field")[0] for line in lines(scenario, tmp_path)] == [
        "base.yaml:3:15: parallelism.expert_tensor"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "parallelism: {expert_tensor: 2, expert_tp: 2}\n",
        "parallelism: {expert_tp: 2, expert_tensor: 2}\n",
        "compare: {a: {parallelism.expert_tp: 2, parallelism.expert_tensor: 2}}\n",
        "sweep: {parallelism.expert_tp: [2], parallelism.expert_tensor: [2]}\n",
    ],
)
def test_both_names_at_once_are_refused(tmp_path: Path, text: str) -> None:
    """Nobody could say which of the two values counts."""
    with pytest.raises(ScenarioError, match=r"s\.yaml:3:\d+: parallelism.expert_tensor: found this old name and"):
        read(tmp_path, BASE + text)


def test_both_names_among_overrides_are_refused() -> None:
    """As in files."""
    with pytest.raises(ScenarioError, match=r"^parallelism\.expert_tensor: found this old name and the new one"):
        Scenario.from_yaml("quickstart", overrides={"parallelism.expert_tensor": 1, "parallelism.expert_tp": 1})


def test_errors_name_the_place_of_an_old_name(tmp_path: Path) -> None:
    """In the file and in a variant."""
    with pytest.raises(ScenarioError, match=r"s\.yaml:3:15: parallelism\.expert_tp: found 0"):
        read(tmp_path, BASE + "parallelism: {expert_tensor: 0}\n")
    scenario = read(tmp_path, BASE + "compare:\n  a: {faults: [{kind: lost-gpu, from_s: -1}]}\n")
    with pytest.raises(ScenarioError, match=r"s\.yaml:4:7 \(variant a\): faults\.0\.start_s: found -1"):
        scenario.variant("a")


def test_names_translate_both_ways() -> None:
    """Also below a renamed part and at items of a list."""
    assert current_field("routing.balancing.step_size") == "routing.training.step_size"
    assert former_field("routing.training.step_size") == "routing.balancing.step_size"
    assert current_field("faults.12.for_s") == "faults.12.duration_s"
    assert former_field("workload.steps") == current_field("workload.steps") == "workload.steps"
