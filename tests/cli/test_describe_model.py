"""`moesim describe` of models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moesim import Scenario
from moesim.cli.describe import is_model
from moesim.errors import ScenarioError
from moesim.simulation import check
from moesim.study import describe_model
from tests.cli.conftest import Call


def test_deepseek_v3_as_json_by_hand(moesim: Call) -> None:
    """The published 671 B and 37 B; 576 elements of the latent a token and layer; keys that stay."""
    found = json.loads(moesim("describe", "deepseek-v3", "--gpu", "H200", "--json").out)
    assert found["parameters"]["total"] == pytest.approx(671e9, rel=0.002)
    assert found["parameters"]["active"] == pytest.approx(37.55e9, rel=0.002)
    assert (found["moe_layers"], found["experts"], found["top_k"], found["shared_experts"]) == (58, 256, 8, 1)
    assert found["groups"] == {"n_group": 8, "topk_group": 4}
    assert found["router"] == "deepseek-v3"
    assert found["attention"] == [{"layers": 61, "kind": "mla"}]
    assert found["kv_cache"]["bytes_per_token"] == 61 * 576 * 2
    assert found["kv_cache"]["bytes"] == 8192 * 61 * 576 * 2
    # experts and attention in a byte, router and embeddings in two
    wide = found["parameters"]["router"] + found["parameters"]["embeddings"]
    assert found["weights"]["bytes"]["stored"] == found["parameters"]["total"] + wide
    assert found["weights"]["bytes"]["bf16"] == 2 * found["parameters"]["total"]
    (row,) = found["gpus"].values()
    assert list(found["gpus"]) == ["h200-sxm"]
    assert row["gpus"] == 8
    assert row["kv_tokens"] == pytest.approx(8 * row["free_bytes"] / (61 * 576 * 2), rel=0.01)


def test_windows_and_states_are_kept_once_a_sequence(moesim: Call) -> None:
    """18 of the 36 layers of gpt-oss-120b see 128 tokens; 12 of the 48 of Qwen3-Next have a cache."""
    found = json.loads(moesim("describe", "gpt-oss-120b", "--json", "--gpu", "h100-sxm", "--context", "1000").out)
    token = 2 * 8 * 64 * 2
    assert found["kv_cache"]["bytes_per_token"] == 18 * token
    assert found["kv_cache"]["bytes_per_sequence"] == 18 * 128 * token
    assert found["kv_cache"]["bytes"] == 18 * token * (1000 + 128)
    assert found["attention"] == [
        {"layers": 18, "kind": "gqa", "window": 128, "heads": 64, "kv_heads": 8},
        {"layers": 18, "kind": "gqa", "heads": 64, "kv_heads": 8},
    ]
    assert found["gpus"]["h100-sxm"]["gpus"] == 1  # 64 GB of 77
    found = json.loads(moesim("describe", "qwen3-next-80b-a3b", "--json", "--gpu", "h100-sxm").out)
    assert found["kv_cache"]["bytes_per_token"] == 12 * 2 * 2 * 256 * 2
    assert list(found["estimated"]) == ["linear attention"]


@pytest.mark.parametrize("model", ["deepseek-v3", "llama-4-maverick", "qwen3-next-80b-a3b"])
def test_the_text_fits_80_columns_and_tells_of_every_gpu(moesim: Call, model: str) -> None:
    """Also off a terminal."""
    lines = moesim("describe", model).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {"model", "parameters", "experts", "router", "attention", "weights", "KV"} <= {
        line.split(" ")[0] for line in lines
    }
    gpus = json.loads(moesim("list", "gpus", "--json").out)
    assert gpus.keys() <= {line.split(" ")[0] for line in lines}


@pytest.mark.parametrize(
    "model, gpu, layout",
    [
        ("deepseek-v3", "h100-sxm", (16, 1, 1)),
        ("deepseek-v3", "l4", (64, 1, 8)),  # 20 GB of 24, as the heads are shared
        ("grok-1", "h100-sxm", (8, 2, 1)),  # 8 experts on 16 GPUs
    ],
)
def test_the_fewest_gpus_are_those_on_which_a_run_fits(model: str, gpu: str, layout: tuple[int, int, int]) -> None:
    """By the memory check of a run with a request on each; half of them are too few."""
    row = describe_model(model, gpus=[gpu])["gpus"][gpu]
    assert (row["expert"], row["expert_tp"], row["attention_tp"]) == layout

    def scenario(nodes: int, expert: int) -> Scenario:
        parallelism = {"expert": expert, "expert_tp": row["expert_tp"]}
        if row["attention_tp"] > 1:
            parallelism |= {"attention": "tensor", "attention_tp": row["attention_tp"]}
        return Scenario.from_dict(
            {
                "model": model,
                "cluster": {"gpu": gpu, "nodes": nodes, "gpus_per_node": 8},
                "parallelism": parallelism,
                "workload": {"tokens_per_gpu": 1, "context_tokens": 8192 // row["attention_tp"]},
            }
        )

    nodes = row["gpus"] // 8
    check(scenario(nodes, row["expert"]))
    with pytest.raises(ScenarioError, match="does not fit in memory"):
        check(scenario(nodes // 2, row["expert"] // 2))


def test_a_gpu_that_is_too_small_has_no_number(moesim: Call) -> None:
    """Embeddings, router and shared experts alone are more than it has."""
    found = json.loads(moesim("describe", "nemotron-3-ultra-550b-a55b", "--gpu", "tpu-v5e", "--json").out)
    assert found["gpus"]["tpu-v5e"]["gpus"] is None


def test_what_is_no_model_is_exit_2_with_one_sentence(moesim: Call) -> None:
    """A name that is misspelt, a GPU that nobody has, a path that cannot be."""
    for arguments, wanted in (
        (("deepseek-v33",), "did you mean deepseek-v3?"),
        (("mixtral-8x7b", "--gpu", "h900"), "cluster.gpu: found 'h900'"),
        (("a\0b",), "model: found 'a\\x00b'"),
        (("",), "model: found ''"),
        (("~nobody-has-this-name/model",), "model: found '~nobody"),
    ):
        outcome = moesim("describe", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert wanted in outcome.err
        assert len(outcome.err.splitlines()) == 1


def test_what_means_a_model_and_what_a_recording(folder: Path) -> None:
    """By what the file holds; a name that is no file by how it ends."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "mine.json").write_text('{"model_type": "mixtral"}')
    (folder / "dump.json").write_text('{"counts": [1, 2]}')
    (folder / "dump.jsonl").write_text('{"model_type": "mixtral"}')
    for what in ("mixtral-8x7b", "Qwen/Qwen1.5-MoE-A2.7B", "model", "model/config.json", "mine.json", "gone.json"):
        assert is_model(what), what
    for what in (".", "dump.json", "dump.jsonl", "gone.parquet"):
        assert not is_model(what), what


def test_the_readme_shows_what_is_printed(moesim: Call) -> None:
    """Line by line."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    command = "describe Qwen/Qwen3-30B-A3B --gpu H100 --gpu L40S"
    shown = readme.partition(f"$ moesim {command}\n")[2].partition("```")[0]
    assert moesim(*command.split()).out.startswith(shown)
