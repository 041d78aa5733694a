"""Scenario files: places in errors, presets, overrides, variants, and that the resolved file reproduces itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim import Scenario
from moesim.errors import MoesimError, ScenarioError
from moesim.scenario import json_schema
from moesim.simulation import check
from tests.scenario.files import write

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
BASE = {"model": "mixtral-8x7b", "cluster": {"gpu": "h100-sxm"}}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_reproduces_itself(path: Path, tmp_path: Path) -> None:
    """The resolved file resolves to itself, for the base and all variants."""
    scenario = Scenario.from_yaml(path)
    assert scenario.variants()
    for each in (scenario, *scenario.variants().values()):
        again = tmp_path / "again.yaml"
        again.write_text(each.resolved_yaml())
        assert Scenario.from_yaml(again).resolved() == each.resolved()


@pytest.mark.parametrize(
    "text, message",
    [
        ("workload: {stepz: 3}", r"s\.yaml:3:12: workload\.stepz: found an unknown field, wanted steps"),
        ("workload: {steps: 0}", r"s\.yaml:3:12: workload\.steps: found 0, wanted greater than or equal to 1"),
        ("workload: {steps: '3'}", r"workload\.steps: found '3', wanted a valid integer"),
        ("workload: {steps: true}", r"workload\.steps: found True"),
        ("workload: {steps: 1.5}", r"workload\.steps: found 1.5"),
        ("workload: {kind: requests}", r"found 'requests', wanted 'steps'"),
        ("workload: {phase: decod}", r"'decode', 'prefill' or 'train'"),
        ("workload: 3", "workload: found 3, wanted a mapping of fields"),
        ("workload: {popularity: {exponent: .inf}}", "exponent"),
        ("workload: {arrivals: 9}", "this version does not model open-loop serving"),
        ("routing: {capacity: {overflow: drop-by-position}}", "routing.capacity.factor: found nothing"),
        ("routing: {capacity: {factor: 2.0e+6}}", "less than or equal to 1000000"),
        ("workload: {locality: 1.4}", "workload.locality.*found 1.4, wanted less than or equal to 1"),
        ("workload: {locality: []}", "workload.locality: found 'an empty list', wanted a probability"),
        ("routing: {top_k: 9}", "at most the 8 experts"),
        ("parallelism: {expert: 3}", "parallelism.expert: found 3, wanted ranks in groups that divide the 8"),
        (
            "precision: {activations: fp4}",
            "precision.activations: found 'fp4', wanted one of fp32.* h100-sxm computes in",
        ),
        (
            "precision: {weights: fp4, activations: int4}",
            "precision.activations: found 'int4', wanted one of fp32.* h100-sxm computes in",
        ),
        ("simulation: {network: ring}", "closed-form"),
        ("seed: -1", "seed: found -1"),
        ("scenario_version: 2", "scenario_version: found 2, wanted 1"),
        ("modle: x", "wanted model"),
        ("sweep: [1]", "sweep: found"),
        (
            "extends: sub/absent.yaml",
            r"s\.yaml:3:1: extends: found 'sub/absent\.yaml', wanted a scenario file \(cannot be read: No such file",
        ),
        ('extends: "\\0"', r"s\.yaml:3:1: extends: found '\\x00', wanted .*null byte"),
        ('workload: {trace: "\\0"}', r"s\.yaml:3:12: workload\.trace: found '\\x00', wanted a path \(embedded null"),
        ("routing: {strategy: ''}", r"s\.yaml:3:11: routing\.strategy: found '', wanted the name of a router"),
        ("compare: [1, 2]", r"s\.yaml:3:1: compare: found \[1, 2\], wanted a mapping of names"),
        ("compare: {a: 1}", r"s\.yaml:3:11: compare\.a: found 1, wanted a mapping of names"),
        ("extends: 3", "extends: found 3"),
        ("extends: s.yaml", "which itself extends this file"),
    ],
)
def test_errors_name_place_field_found_and_wanted(tmp_path: Path, text: str, message: str) -> None:
    """One line each."""
    with pytest.raises(ScenarioError, match=message) as caught:
        Scenario.from_yaml(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "routing: {strategy: switc, top_k: 1}",
            r"s\.yaml:3:11: routing\.strategy: found switc, .*did you mean switch",
        ),
        ("routing: {strategy: switch}", "routing.top_k: found top_k 2 for switch, wanted 1, as switch"),
        ("routing: {parameters: {jitter: 1}}", r"3:24: routing\.parameters\.jitter: .*not jitter"),
        (
            "routing: {capacity: {factor: 1, scope: node}}",
            r"routing\.capacity\.scope: found node, wanted one of global",
        ),
        ("routing: {capacity: {factor: 0}}", "routing.capacity.factor: found 0.0, wanted above 0, unless"),
        ("routing: {capacity: {factor: 1, evaluation_factor: -1}}", "evaluation_factor: found -1.0, wanted above 0"),
        ("routing: {capacity: {factor: 1, fallback: shared-expert}}", "fallback: found shared-expert, wanted residual"),
        ("routing: {capacity: {factor: 1, pad: true, scope: global}}", "pad: found True, wanted scope source-rank"),
        (
            "routing: {substitution: {policy: node-limited, nodes: 2}}",
            "substitution.nodes: found 2, wanted 1 to the 1 nodes",
        ),
        (
            "routing: {capacity: {factor: 1, scope: device}}\nplacement: {redundant_experts: 8}",
            "placement.redundant_experts: found 8, wanted 0",
        ),
        ("placement: {strategy: best}", "placement: .*one of contiguous"),
        ("placement: {redundant_experts: 99}", "from 0 to 56"),
        (
            "workload: {tokens_per_gpu: 4000}",
            r"s\.yaml:2:1: cluster: mixtral-8x7b does not fit in memory on 8 GPUs: needs",
        ),
        ("workload: {steps: 10000000}", r"GB .*fewer steps"),
        ("workload: {trace: absent.parquet}", "workload.trace: .*readable trace"),
    ],
)
def test_check_refuses_what_other_parts_cannot_do(tmp_path: Path, text: str, message: str) -> None:
    """Names, parameters, memory and run size, still with the place."""
    with pytest.raises(ScenarioError, match=message):
        check(Scenario.from_yaml(write(tmp_path, text)))


@pytest.mark.parametrize(
    "kernels, field", [({"table": "\0"}, r"\.table"), ({"table": "t", "family": "a\0/b"}, r"\.family"), ("a\0/b", "")]
)
def test_kernels_whose_path_is_none_are_refused(kernels: object, field: str) -> None:
    """A NUL is in no path."""
    with pytest.raises(ScenarioError, match=rf"cluster\.kernels{field}: found .*x00.*, wanted a path \(embedded null"):
        Scenario.from_dict(BASE, overrides={"cluster.kernels": kernels})


@pytest.mark.parametrize("n_heads, n_kv_heads", [(1, 8), (32, 12)])
def test_heads_share_key_value_heads_evenly(n_heads: int, n_kv_heads: int) -> None:
    """No more of them than heads, and as many heads for each."""
    with pytest.raises(ScenarioError, match=rf"model\.n_kv_heads: found {n_kv_heads}, .* divides the {n_heads} heads"):
        Scenario.from_dict(BASE, overrides={"model.n_heads": n_heads, "model.n_kv_heads": n_kv_heads})


def test_defaults_depend_on_phase_model_and_trace() -> None:
    """128 tokens in decode, 4096 otherwise, one step of a whole trace; the model's router and types."""
    decode = Scenario.from_dict({**BASE, "model": "deepseek-v3", "cluster": {"gpu": "h200-sxm", "nodes": 8}})
    assert decode.spec.workload.tokens_per_gpu == 128
    assert decode.spec.routing.strategy == "deepseek-v3"
    assert decode.spec.routing.parameters["topk_group"] == 4
    assert (decode.precision.weights, decode.precision.combine) == ("fp8", "bf16")
    assert Scenario.from_dict({**BASE, "workload": {"phase": "prefill"}}).spec.workload.tokens_per_gpu == 4096
    replay = Scenario.from_dict({**BASE, "workload": {"trace": "t.parquet"}}).spec
    assert (replay.workload.steps, replay.workload.tokens_per_gpu, replay.routing.strategy) == (1, None, None)


@pytest.mark.parametrize(
    "gpu, weights, asked, activations",
    [
        ("a100-sxm", "fp8", {}, "bf16"),
        ("h100-sxm", "fp8", {}, "fp8"),
        ("h100-sxm", "fp4", {}, "bf16"),
        ("b200-sxm", "fp4", {}, "fp4"),
        ("b200-sxm", "fp4", {"activations": "bf16"}, "bf16"),
        ("h100-sxm", "int4", {}, "bf16"),
        ("h100-sxm", "int4", {"activations": "fp8"}, "fp8"),
        ("a100-sxm", "int8", {}, "int8"),
    ],
)
def test_weights_stay_as_they_are_stored(gpu: str, weights: str, asked: dict[str, str], activations: str) -> None:
    """A GPU that does not compute in their type widens them; the provenance says which activations it takes instead."""
    cluster = {"gpu": gpu, "nodes": 8}
    for written in (
        {"model": {"preset": "deepseek-v3", "weights_dtype": weights}, "precision": asked},
        {"model": "deepseek-v3", "precision": {"weights": weights, **asked}},
    ):
        found = Scenario.from_dict({**BASE, **written, "cluster": cluster})
        assert (found.precision.weights, found.precision.activations) == (weights, activations)
        said = f"activations in bf16, as {gpu} does not compute in {weights}"
        widened = activations == "bf16" and weights not in found.cluster.gpu.peak_tflops
        assert (said in found.provenance.get("precision", "")) == widened
        assert Scenario.from_dict(found.resolved()).precision == found.precision


def test_names_that_look_like_numbers_survive_the_resolved_file(tmp_path: Path) -> None:
    """Quoted where the file would read them as something else."""
    for name in ("1e5", "true", "~", "none", "a: b", "#x", "012", "- y", "héllo\n"):
        scenario = Scenario.from_dict({**BASE, "name": name})
        (tmp_path / "again.yaml").write_text(scenario.resolved_yaml())
        assert Scenario.from_yaml(tmp_path / "again.yaml").spec.name == name


def test_a_scenario_without_a_name_has_its_files(tmp_path: Path) -> None:
    """So that results of two files do not overwrite each other."""
    assert Scenario.from_yaml(write(tmp_path, "", "fast.yaml")).spec.name == "fast"
    assert Scenario.from_yaml(write(tmp_path, "name: slow", "fast.yaml")).spec.name == "slow"


def test_shipped_names_and_absent_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without separator is a shipped scenario; the error lists them."""
    monkeypatch.chdir(tmp_path)
    assert Scenario.from_yaml("quickstart").variants()
    with pytest.raises(ScenarioError, match=r"wanted a file or one of .*quickstart"):
        Scenario.from_yaml("quickstar")
    for name in ("absent.yaml", "nul\0.yaml", "a" * 300 + ".yaml"):
        with pytest.raises(ScenarioError, match=r"\.yaml: cannot be read"):
            Scenario.from_yaml(name)
    with pytest.raises(ScenarioError, match=r"aaa: found no such scenario"):
        Scenario.from_yaml("a" * 300)


def test_the_schema_knows_every_field_of_the_shipped_scenarios() -> None:
    """Top-level fields at least, and it is JSON."""
    known = json.loads(json.dumps(json_schema()))["properties"]
    from moesim.scenario.source import parse_document

    for path in SHIPPED:
        assert set(parse_document(path.read_text(), path.name).data) <= set(known)


@given(st.data())
def test_no_text_makes_anything_but_our_error(data: st.DataObject) -> None:
    """A shipped file with pieces cut, doubled or replaced: an answer or one clear error, never a traceback."""
    text = data.draw(st.sampled_from([path.read_text() for path in SHIPPED]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 30))
        piece = data.draw(
            st.one_of(st.text(max_size=8), st.sampled_from(["{", "]", ": ", "\n  ", "!!", "&a", "*a", "-1"]))
        )
        text = text[:at] + piece + text[at + length :]
    from moesim.scenario.merge import Layered
    from moesim.scenario.source import parse_document

    try:
        document = parse_document(text, "fuzz.yaml")
        document.data.pop("extends", None)
        Scenario(Layered(document.data, document.positions, {})).variants()
    except MoesimError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


def test_data_of_python_code_is_as_that_of_a_file(tmp_path: Path) -> None:
    """Numbers and arrays of NumPy, tuples and paths; anything else is refused."""
    data = {**BASE, "seed": np.int64(3), "sweep": {"workload.popularity.exponent": np.linspace(0, 1, 3)}}
    scenario = Scenario.from_dict(data, overrides={"workload.steps": np.int32(2), "workload.trace": tmp_path / "t"})
    assert (scenario.spec.seed, scenario.spec.workload.steps) == (3, 2)
    assert scenario.spec.workload.trace == str(tmp_path / "t")
    assert [point["workload.popularity.exponent"] for point in scenario.points()] == [0, 0.5, 1]
    assert "seed: 5\n" in scenario.with_seed(cast("int", np.int64(5))).resolved_yaml()
    with pytest.raises(ScenarioError, match=r"scenario: found <object object .*, wanted numbers, text, lists"):
        Scenario.from_dict({**BASE, "name": object()})


def test_another_seed_is_that_of_variants_and_points() -> None:
    """A variant with a seed of its own keeps it."""
    data = {**BASE, "seed": 1, "compare": {"a": {}, "b": {"seed": 7}}, "sweep": {"workload.steps": [1, 2]}}
    scenario = Scenario.from_dict(data).with_seed(5)
    assert (scenario.spec.seed, scenario.resolved()["seed"]) == (5, 5)
    assert [variant.spec.seed for variant in scenario.variants().values()] == [5, 7]
    assert [scenario.with_point(point).variant("a").spec.seed for point in scenario.points()] == [5, 5]
    assert scenario.variant("b").with_seed(9).spec.seed == 9


def test_a_variant_that_does_not_exist_is_refused() -> None:
    """With the names there are."""
    with pytest.raises(ScenarioError, match="compare: found no variant c, wanted one of a, b"):
        Scenario.from_dict({**BASE, "compare": {"a": {}, "b": {}}}).variant("c")
    with pytest.raises(ScenarioError, match="compare: found no variant c, wanted one of none"):
        Scenario.from_dict(BASE).variant("c")
