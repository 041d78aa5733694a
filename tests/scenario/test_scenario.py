"""Scenario files: places in errors, presets, overrides, variants, and that the resolved file reproduces itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim import Scenario
from moesim.errors import MoesimError, ScenarioError
from moesim.hardware import parameters
from moesim.scenario import json_schema, presets
from moesim.simulation import check

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
BASE = {"model": "mixtral-8x7b", "cluster": {"gpu": "h100-sxm"}}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "vocab_size": 129280,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "quantization_config": {"quant_method": "fp8"},
}


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    """A scenario file with a model and a cluster."""
    path = folder / name
    path.write_text("model: mixtral-8x7b\ncluster: {gpu: h100-sxm}\n" + text)
    return path


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
    "model, billions",
    [
        ("switch-base-128", 7.4),
        ("mixtral-8x7b", 46.7),
        ("olmoe-1b-7b", 6.92),
        ("qwen3-30b-a3b", 30.5),
        ("deepseek-v2", 236),
        ("deepseek-v3", 671),
        ("gpt-oss-20b", 20.9),
        ("gpt-oss-120b", 116.8),
        ("llama-4-scout", 107.8),
        ("llama-4-maverick", 400.7),
        ("qwen3-next-80b-a3b", 79.7),
    ],
)
def test_presets_have_the_published_number_of_parameters(model: str, billions: float) -> None:
    """Within half a percent, norms and biases left out."""
    scenario = Scenario.from_dict({**BASE, "model": model})
    assert parameters(scenario.model)["total"] / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize("kind", ["models", "gpus", "networks"])
def test_every_preset_is_valid_and_names_its_source(kind: str) -> None:
    """Each can be used."""
    for name, fields in presets(kind).items():
        assert fields["source"]
        data = json.loads(json.dumps(BASE))
        if kind == "models":
            data["model"] = name
        else:
            data["cluster"]["gpu" if kind == "gpus" else "network"] = name
        Scenario.from_dict(data)


@pytest.mark.parametrize(
    "gpu, bus_bits, clock_mhz",
    [
        ("a100-sxm", 5120, 1593),
        ("h100-sxm", 5120, 2619),
        ("h200-sxm", 6144, 3201),
        ("b200-sxm", 7680, 3996),
        ("b300-sxm", 7680, 3996),
        ("gb200", 8192, 3996),
        ("gb300", 8192, 3996),
    ],
)
def test_memory_is_as_fast_as_its_bus(gpu: str, bus_bits: int, clock_mhz: int) -> None:
    """Two bits a wire and clock, as the driver reports width and clock; boards of 8 have fewer wires than racks."""
    gb_per_s = 2 * bus_bits / 8 * clock_mhz / 1e3
    assert presets("gpus")[gpu]["memory_bandwidth_gb_per_s"] == pytest.approx(gb_per_s, rel=0.03)


@pytest.mark.parametrize(
    "gpu, mib",
    [
        ("a100-sxm", 81920),
        ("h100-sxm", 81559),
        ("h200-sxm", 143771),
        ("h20-sxm", 97871),
        ("l40s", 46068),
        ("b200-sxm", 183359),
        ("gb200", 189471),
        ("b300-sxm", 275040),
        ("gb300", 284208),
    ],
)
def test_memory_is_what_the_driver_reports(gpu: str, mib: int) -> None:
    """The total of nvidia-smi: an H100 of 80 GB has 85.5e9 bytes."""
    assert presets("gpus")[gpu]["memory_gb"] == pytest.approx(mib * 2**20 / 1e9, abs=0.01)


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
        ("workload: {locality: 0.4}", "this version does not model locality"),
        ("routing: {capacity: {overflow: drop-by-position}}", "routing.capacity.factor: found nothing"),
        ("routing: {capacity: {factor: 2.0e+6}}", "less than or equal to 1000000"),
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
        ("extends: s.yaml", "extends this file in turn"),
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


def test_what_says_how_files_are_read_is_no_override(tmp_path: Path) -> None:
    """Nor part of a variant."""
    path = write(tmp_path, "compare:\n  a: {extends: x.yaml}\n  b: {compare: {}}\n")
    with pytest.raises(ScenarioError, match=r"override extends: extends: found .* wanted it in a scenario file"):
        Scenario.from_yaml(path, overrides={"extends": "x.yaml"})
    scenario = Scenario.from_yaml(path)
    with pytest.raises(ScenarioError, match=r"s\.yaml:4:7 \(variant a\): extends: .* wanted it in a scenario file"):
        scenario.variant("a")
    with pytest.raises(ScenarioError, match=r"s\.yaml:5:7 \(variant b\): compare: .* wanted it outside of variants"):
        scenario.variant("b")


def test_overrides_replace_and_are_named_in_errors(tmp_path: Path) -> None:
    """A dotted override begins mappings below none and changes presets below their names."""
    path = write(tmp_path, "routing: {capacity: none}\n")
    scenario = Scenario.from_yaml(
        path,
        overrides={"routing.capacity.factor": 1.5, "model.top_k": 4, "cluster.network.copies": "per-selection"},
    )
    assert scenario.spec.routing.capacity is not None
    assert scenario.spec.routing.capacity.factor == 1.5
    assert (scenario.model.top_k, scenario.model.hidden_size) == (4, 4096)
    assert scenario.cluster.network.copies == "per-selection"
    assert scenario.cluster.network.dispatch_bandwidth_gb_per_s == (360, 40)
    assert scenario.provenance["network"].startswith("synthetic")
    with pytest.raises(ScenarioError, match=r"override workload.steps: workload.steps: found 'x'"):
        Scenario.from_yaml(path, overrides={"workload.steps": "x"})
    with pytest.raises(ScenarioError, match=r"--set: seed\.x: found 1 at seed"):
        Scenario.from_yaml(write(tmp_path, "seed: 1"), overrides={"seed.x": 1})
    removed = Scenario.from_yaml(
        write(tmp_path, "routing: {capacity: {factor: 2}}"), overrides={"routing.capacity": None}
    )
    assert removed.spec.routing.capacity is None


def test_variants_change_the_base_and_are_named_in_errors(tmp_path: Path) -> None:
    """In order; each from the base with the overrides of the command line."""
    path = write(tmp_path, "compare:\n  base:\n  top-1: {routing.top_k: 1}\n")
    variants = Scenario.from_yaml(path, overrides={"seed": 7}).variants()
    assert list(variants) == ["base", "top-1"]
    assert [v.spec.routing.top_k for v in variants.values()] == [2, 1]
    assert {v.spec.seed for v in variants.values()} == {7}
    wrong = write(tmp_path, "compare:\n  a: {routing.topk: 1}\n")
    with pytest.raises(ScenarioError, match=r"s\.yaml:4:7 \(variant a\): routing\.topk: .*wanted top_k"):
        Scenario.from_yaml(wrong).variants()
    with pytest.raises(ScenarioError, match=r"override compare\.b \(variant b\): routing\.topk: .*wanted top_k"):
        Scenario.from_yaml(wrong, overrides={"compare.b": {"routing.topk": 1}}).variant("b")


def test_extends_merges_and_paths_are_relative_to_who_names_them(tmp_path: Path) -> None:
    """The trace is looked for beside the file that names it."""
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", "workload: {trace: t.parquet, steps: 3}\nseed: 4\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base/s.yaml\nworkload: {steps: 5}\n")
    spec = Scenario.from_yaml(child).spec
    assert (spec.seed, spec.workload.steps) == (4, 5)
    assert spec.workload.trace == str(tmp_path / "base" / "t.parquet")


def test_paths_of_variants_and_axes_are_relative_to_their_file_and_of_the_command_line_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever moesim is started."""
    (tmp_path / "files").mkdir()
    config = {"model_type": "mixtral", "hidden_size": 512, "num_hidden_layers": 4, "num_local_experts": 8}
    config |= {"num_experts_per_tok": 2, "vocab_size": 999, "num_attention_heads": 8, "intermediate_size": 256}
    (tmp_path / "files" / "config.json").write_text(json.dumps(config))
    path = write(
        tmp_path / "files",
        "compare: {a: {workload.trace: a.parquet}, b: {workload: {trace: b.parquet}}, c: {model: ./config.json}}\n"
        "sweep: {workload.trace: [s.parquet], cluster.kernels: [./k.yaml], model: [./config.json]}\n",
    )
    (tmp_path / "child.yaml").write_text("extends: files/s.yaml\n")
    monkeypatch.chdir(tmp_path)
    for scenario in (Scenario.from_yaml(path), Scenario.from_yaml("child.yaml")):
        a, b, c = scenario.variants().values()
        assert [v.spec.workload.trace for v in (a, b)] == [str(tmp_path / "files" / f"{v}.parquet") for v in "ab"]
        assert c.model.hidden_size == 512
        (place,) = scenario.points()
        point = scenario.with_point(place)
        assert point.spec.workload.trace == point.variant("c").spec.workload.trace == str(path.parent / "s.parquet")
        assert point.variant("a").spec.workload.trace == a.spec.workload.trace
        assert point.spec.cluster.kernels == str(path.parent / "k.yaml")
        assert point.model.hidden_size == point.with_overrides({"model.n_layers": 2}).model.hidden_size == 512
        set_here = scenario.with_overrides({"workload.trace": "s.parquet"})
        assert set_here.spec.workload.trace == str(tmp_path / "s.parquet")
        assert point.with_overrides({"workload.trace": "t.parquet"}).spec.workload.trace == str(tmp_path / "t.parquet")


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


@pytest.mark.parametrize(
    "config, checks",
    [
        (
            {
                "model_type": "mixtral",
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_local_experts": 8,
                "num_experts_per_tok": 2,
                "vocab_size": 32000,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 14336,
            },
            {"n_experts": 8, "head_dim": 128, "router": "mixtral", "moe_intermediate_size": 14336},
        ),
        (
            {
                "model_type": "qwen3_moe",
                "hidden_size": 2048,
                "num_hidden_layers": 4,
                "num_experts": 128,
                "num_experts_per_tok": 8,
                "vocab_size": 1000,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "head_dim": 128,
                "moe_intermediate_size": 768,
                "intermediate_size": 6144,
                "norm_topk_prob": True,
                "decoder_sparse_step": 2,
            },
            {"dense_layers": (0, 2), "intermediate_size": 6144, "router_parameters": {"norm_topk_prob": True}},
        ),
        (
            DEEPSEEK_V3,
            {"dense_layers": (0, 1, 2), "shared_intermediate_size": 2048, "weights_dtype": "fp8"},
        ),
    ],
    ids=["mixtral", "qwen3", "deepseek-v3"],
)
def test_a_hugging_face_config_is_a_model(tmp_path: Path, config: dict[str, Any], checks: dict[str, Any]) -> None:
    """By its path, relative to the scenario."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "s.yaml"
    path.write_text("model: config.json\ncluster: {gpu: h200-sxm, nodes: 8}\n")
    model = Scenario.from_yaml(path).model
    for field, value in checks.items():
        assert getattr(model, field) == value
    lacking = {name: value for name, value in config.items() if name != "num_experts_per_tok"}
    (tmp_path / "config.json").write_text(json.dumps(lacking))
    with pytest.raises(ScenarioError, match="num_experts_per_tok"):
        Scenario.from_yaml(path)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model_type": "llama"}', '{"model_type": ["mixtral"]}'])
def test_a_config_of_another_model_is_refused(tmp_path: Path, text: str) -> None:
    """Naming the kinds that are known."""
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "s.yaml").write_text("model: config.json\ncluster: {gpu: h200-sxm}\n")
    with pytest.raises(ScenarioError, match=r"s\.yaml:1:1: model: found 'config\.json'"):
        Scenario.from_yaml(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"quantization_config": "fp8"}, "quantization_config is a mapping, not 'fp8'"),
        ({"routed_scaling_factor": "abc"}, "routed_scaling_factor is a number above 0 .*, not 'abc'"),
        ({"routed_scaling_factor": 10**400}, "routed_scaling_factor is a number above 0"),
        ({"num_hidden_layers": 10**9}, "at most 10000 num_hidden_layers, not 1000000000"),
        ({"num_hidden_layers": "61"}, "whole numbers for its sizes"),
    ],
)
def test_a_config_with_a_wrong_field_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Before anything is made of it."""
    (tmp_path / "config.json").write_text(json.dumps({**DEEPSEEK_V3, **change}))
    (tmp_path / "s.yaml").write_text("model: config.json\ncluster: {gpu: h200-sxm, nodes: 8}\n")
    with pytest.raises(ScenarioError, match=rf"s\.yaml:1:1: model: found 'config\.json', wanted .*{message}"):
        Scenario.from_yaml(tmp_path / "s.yaml")


def test_a_config_whose_name_is_no_text_can_be_written(tmp_path: Path) -> None:
    """JSON may hold half a surrogate pair."""
    (tmp_path / "config.json").write_text(json.dumps({**DEEPSEEK_V3, "_name_or_path": "a\ud800"}))
    (tmp_path / "s.yaml").write_text("model: config.json\ncluster: {gpu: h200-sxm, nodes: 8}\n")
    scenario = Scenario.from_yaml(tmp_path / "s.yaml")
    assert scenario.model.name == "a?"
    assert scenario.resolved_yaml().encode()


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
    """But for a variant with a seed of its own."""
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
