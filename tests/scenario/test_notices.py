"""Fields without effect: which of them the writer of a scenario file is told of, and where it stays silent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from moesim import Scenario, simulate
from moesim.routing.policies import OVERFLOWS
from moesim.routing.registry import STRATEGIES
from moesim.scenario.no_effect import RANDOM_OVERFLOW, RULES, WEIGHS_BY_NAME
from moesim.scenario.no_effect_rules import IGNORES_LOGITS, READS_SCORES
from moesim.scenario.resolve import SECTIONS
from moesim.types import NOT_DROPPED

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
TEMPLATE = Path(__file__).parents[2] / "moesim" / "cli" / "template.yaml"
BASE = """\
model: {preset: mixtral-8x7b, n_layers: 2}
cluster: {gpu: h100-sxm, gpus_per_node: 2}
workload: {steps: 1, tokens_per_gpu: 8}
"""


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def told(path: Path, **overrides: Any) -> list[str]:
    """The fields that the notices of a file name."""
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    return [notice.field for notice in Scenario.from_yaml(path, overrides=changes).warnings]


def test_a_notice_is_one_line_with_place_field_value_and_reason(tmp_path: Path) -> None:
    """As text, and in its parts."""
    scenario = Scenario.from_yaml(write(tmp_path, BASE + "simulation:\n  overlap_slowdown: 0.1\n"))
    (notice,) = scenario.warnings
    text = (
        "simulation.overlap_slowdown: found 0.1, which has no effect: only two micro-batches compute while they "
        "exchange, and simulation.overlap is none"
    )
    assert str(notice) == f"{tmp_path}/s.yaml:5:3: {text}"
    assert notice.without_folder() == f"s.yaml:5:3: {text}"
    mapping = {"model": "mixtral-8x7b", "cluster": {"gpu": "h100-sxm"}, "simulation": {"overlap_slowdown": 0.1}}
    assert str(Scenario.from_dict(mapping).warnings[0]) == text  # which has no lines


def test_they_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Not in the order of the schema."""
    path = write(tmp_path, "simulation: {overlap_slowdown: 0.1}\nrouting: {capacity: {factor: 1.0, tries: 2}}\n" + BASE)
    assert told(path) == ["simulation.overlap_slowdown", "routing.capacity.tries"]


@pytest.mark.parametrize(
    "more",
    [
        "compare: {a: {}, b: {simulation.overlap: two-batch}}",
        "sweep: {simulation.overlap: [none, two-batch]}",
        "sweep: {list: [{simulation: {}}, {simulation: {overlap: two-batch}}]}",
        "sweep: {random: {n: 9, axes: {simulation.overlap: [none, two-batch], workload.tokens_per_gpu: [2, 4]}}}",
        "compare: {a: {cluster.nodes: wrong}}",  # of a variant that is wrong nothing is known
    ],
)
def test_an_effect_in_any_variant_or_point_is_one(tmp_path: Path, more: str) -> None:
    """A field that one variant needs is not idle."""
    path = write(tmp_path, BASE + "simulation: {overlap_slowdown: 0.1}\n" + more)
    assert told(path) == []


def test_variants_and_points_that_do_not_matter_change_nothing(tmp_path: Path) -> None:
    """The notice is that of the base."""
    more = "compare: {a: {}, b: {workload.steps: 2}}\nsweep: {workload.tokens_per_gpu: [2, 4], seed: [1, 2]}"
    path = write(tmp_path, BASE + "simulation: {overlap_slowdown: 0.1}\n" + more)
    scenario = Scenario.from_yaml(path)
    assert told(path) == ["simulation.overlap_slowdown"]
    assert scenario.variant("b").warnings == scenario.with_seed(9).warnings == scenario.warnings
    assert scenario.with_point({"workload.tokens_per_gpu": 2}).warnings == ()


def test_a_large_sweep_is_looked_at_by_the_axes_that_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 points one is made."""
    axes = f"{{workload.steps: {[*range(1, 101)]}, workload.tokens_per_gpu: {[*range(1, 101)]}}}"
    path = write(tmp_path, BASE + f"simulation: {{overlap_slowdown: 0.1}}\nsweep: {axes}")
    scenario, with_point = Scenario.from_yaml(path), Scenario.with_point
    made: list[Mapping[str, object]] = []

    def recorded(self: Scenario, point: Mapping[str, object]) -> Scenario:
        made.append(point)
        return with_point(self, point)

    monkeypatch.setattr(Scenario, "with_point", recorded)
    assert [notice.field for notice in scenario.warnings] == ["simulation.overlap_slowdown"]
    assert made == [{}]


def test_only_what_this_file_writes_is_judged(tmp_path: Path) -> None:
    """Not defaults, presets (DeepEP holds SMs), overrides of variants, `--set`, or the file that is extended."""
    silent = BASE.replace("gpus_per_node: 2", "gpus_per_node: 2, network: deepep-normal")
    variants = "compare: {a: {}, b: {simulation.overlap_slowdown: 0.1, workload.sequence_tokens: 8}}"
    path = write(tmp_path, silent + variants)
    assert told(path) == []
    assert told(path, simulation__overlap_slowdown=0.2) == []
    write(
        tmp_path, BASE + "workload: {context_tokens: 100}\n".replace("workload: {", "routing: {top_k: 2}\nseed: 1\n#")
    )
    parent = write(tmp_path, BASE.replace("steps: 1", "steps: 1, context_tokens: 100"), "parent.yaml")
    child = write(
        tmp_path, f"extends: {parent.name}\nworkload: {{phase: prefill, topics: {{count: 3}}}}\n", "child.yaml"
    )
    assert told(parent) == []
    assert told(child) == ["workload.topics.count"]


def test_set_makes_no_field_of_a_file_useless_and_may_make_one_useful(tmp_path: Path) -> None:
    """Overrides are not what a file says."""
    path = write(
        tmp_path, BASE.replace("steps: 1", "steps: 1, context_tokens: 100") + "simulation: {overlap_slowdown: 0.1}"
    )
    assert told(path) == ["simulation.overlap_slowdown"]
    assert told(path, workload__phase="prefill") == ["simulation.overlap_slowdown"]
    assert told(path, simulation__overlap="two-batch") == []
    assert told(path, simulation__overlap_slowdown=0.5) == []  # what the file says is replaced


def test_what_switches_off_and_what_must_be_written_is_nothing_to_tell(tmp_path: Path) -> None:
    """A zero or none that says "without"."""
    off = "workload.topics: {count: 0, strength: 0}"
    more = "routing: {capacity: none}\nsimulation: {overlap: none, queue_tokens: none}\n"
    assert told(write(tmp_path, BASE.replace("steps: 1", "steps: 1, topics: {count: 0, strength: 0}") + more)) == [], (
        off
    )
    model = Scenario.from_yaml("deepseek-v3-decode").resolved()["model"]
    own = {name: value for name, value in model.items() if name not in ("router", "router_parameters")}
    data = {"model": own, "cluster": {"gpu": "h200-sxm", "nodes": 8}}
    assert Scenario.from_dict(data).warnings == ()  # head_dim and n_kv_heads have no default
    changed = {"model": {"preset": "deepseek-v3", "head_dim": 64}, "cluster": data["cluster"]}
    assert [notice.field for notice in Scenario.from_dict(changed).warnings] == ["model.head_dim"]


def test_the_number_of_shared_experts_beside_their_width(tmp_path: Path) -> None:
    """The width of all of them makes the number idle."""

    def model(**fields: int) -> list[str]:
        data = {"model": {"preset": "deepseek-v3", **fields}, "cluster": {"gpu": "h200-sxm", "nodes": 8}}
        return [notice.field for notice in Scenario.from_dict(data).warnings]

    assert model(n_shared_experts=4) == ["model.n_shared_experts"]
    assert model(n_shared_experts=4, shared_intermediate_size=8192) == []


@pytest.mark.parametrize("path", [*SHIPPED, TEMPLATE], ids=lambda path: path.stem)
def test_what_ships_has_no_field_without_effect_nor_has_what_it_resolves_to(path: Path) -> None:
    """Every shipped scenario and its variants."""
    scenario = Scenario.from_yaml(path)
    assert [str(notice) for notice in scenario.warnings] == []
    for resolved in (scenario, *scenario.variants().values()):
        assert [str(notice) for notice in Scenario.from_dict(resolved.resolved()).warnings] == []


def test_a_resolved_scenario_has_all_fields_and_so_says_nothing(tmp_path: Path) -> None:
    """Also where the file that it came from had fields without effect, and with `--set`."""
    written = write(tmp_path, BASE + "simulation: {overlap_slowdown: 0.1}")
    resolved = write(tmp_path, Scenario.from_yaml(written).resolved_yaml(), "resolved.yaml")
    assert told(written) == ["simulation.overlap_slowdown"]
    assert told(resolved) == told(resolved, seed=4) == []


def test_a_result_says_what_had_no_effect_and_its_scenario_gives_it_again(tmp_path: Path) -> None:
    """In the manifest, without the folder."""
    scenario = Scenario.from_yaml(write(tmp_path, BASE + "simulation: {overlap_slowdown: 0.1}"))
    result = simulate(scenario)
    assert result.manifest["warnings"] == [notice.without_folder() for notice in scenario.warnings]
    assert str(tmp_path) not in result.report_html()
    saved = result.save(tmp_path / "out")
    assert simulate(Scenario.from_yaml(saved / "scenario.yaml")) == result


def test_the_table_knows_the_fields_strategies_and_policies() -> None:
    """Names in the table are those of the schema and of the registries, which a scenario does not import."""
    for field in RULES:
        *parents, name = field.split(".")
        if parents[1:] != ["parameters"]:
            known = SECTIONS[tuple(parents)].model_fields
            assert name in {each.alias or own for own, each in known.items()}, field
    assert set(IGNORES_LOGITS) < set(STRATEGIES)
    weighs = {n for n, e in STRATEGIES.items() if e.parameters.startswith("gate") or "norm_topk_prob" in e.parameters}
    assert weighs == set(WEIGHS_BY_NAME)
    reads = {
        name for name, policy in OVERFLOWS.items() if policy.order == "priority" or policy.reroutes_as != NOT_DROPPED
    }
    assert reads == set(READS_SCORES)
    assert [name for name, policy in OVERFLOWS.items() if policy.order == "draw"] == [RANDOM_OVERFLOW]
