"""Presets of models against their published numbers and configurations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError
from moesim.hardware import parameter_count
from moesim.scenario import canonical, presets
from moesim.scenario.hugging_face import read_config
from moesim.scenario.model_shape import model_shape, preset_model
from moesim.scenario.presets import aliases, names
from moesim.scenario.schema import ModelSpec
from moesim.types import ModelShape

FOLDER = Path(os.environ.get("MOESIM_DATA", "/nowhere")) / "configs"
# what publishers say, in billions: total, active
PUBLISHED = {
    "switch-base-8": (0.62, None),
    "switch-base-128": (7.4, None),
    "nllb-moe-54b": (54.5, None),
    "mixtral-8x7b": (46.7, 12.9),
    "mixtral-8x22b": (141, 39),
    "grok-1": (314, 86),
    "dbrx": (132, 36),
    "snowflake-arctic": (480, 17),
    "phi-3.5-moe": (41.9, 6.6),
    "jamba-1.5-mini": (52, 12),
    "granite-3.0-1b-a400m": (1.33, 0.4),
    "olmoe-1b-7b": (6.92, 1.3),
    "qwen1.5-moe-a2.7b": (14.3, 2.7),
    "qwen2-57b-a14b": (57, 14),
    "qwen3-30b-a3b": (30.5, 3.3),
    "qwen3-235b-a22b": (235, 22),
    "qwen3-coder-480b-a35b": (480, 35),
    "qwen3-vl-235b-a22b": (235, 22),
    "qwen3-next-80b-a3b": (80, None),  # 3 B without embeddings
    "qwen3.5-122b-a10b": (122, 10),
    "qwen3.5-397b-a17b": (397, 17),
    "deepseek-v2": (236, 21),
    "deepseek-v2-lite": (15.7, None),  # 2.4 B without an embedding
    "deepseek-v3": (671, 37),
    "deepseek-v3.2": (671, 37),
    "deepseek-v4-flash": (284, 13),
    "kimi-k2": (1026, 32),
    "kimi-k2.5": (1026, 32),
    "glm-4.5-air": (106, None),  # 12 B without embeddings
    "glm-4.5": (355, 32),
    "glm-5": (744, 40),
    "glm-5.2": (744, 40),
    "gpt-oss-20b": (20.9, None),  # 3.6 B without the embedding
    "gpt-oss-120b": (116.8, None),  # 5.1 B without the embedding
    "llama-4-scout": (108, 17),
    "llama-4-maverick": (400, 17),
    "minimax-m1": (456, 46),
    "minimax-m2.5": (229, None),  # 10 B without embeddings
    "minimax-m3": (427, None),
    "dots.llm1": (142, 14),
    "longcat-flash": (560, 27),  # in the mean
    "ernie-4.5-21b-a3b": (21.8, None),  # 3 B without embeddings
    "hunyuan-a13b": (80, 13),
    "mimo-v2-flash": (309, 15),
    "step-3.7-flash": (196, 11),
    "gemma-4-26b-a4b": (25.2, 3.8),
    "lfm2.5-8b-a1b": (8.47, None),
    "nemotron-3-nano-30b-a3b": (31.6, 3.6),
    "nemotron-3-super-120b-a12b": (120.6, 12.7),
    "nemotron-3-ultra-550b-a55b": (550, 55),
}
CONFIGS = {
    "switch-base-8": "switch-base-8",
    "nllb-moe-54b": "nllb-moe-54b",
    "mixtral-8x7b": "aic__mistralai--Mixtral-8x7B-v0.1",
    "dbrx": "DBRX",
    "phi-3.5-moe": "Phi-3.5-MoE",
    "jamba-1.5-mini": "Jamba-1.5-Mini",
    "granite-3.0-1b-a400m": "granite-3.0-1b-a400m",
    "olmoe-1b-7b": "OLMoE-1B-7B-0125-Instruct",
    "qwen1.5-moe-a2.7b": "Qwen1.5-MoE-A2.7B-Chat",
    "qwen2-57b-a14b": "Qwen2-57B-A14B",
    "qwen3-30b-a3b": "aic__Qwen--Qwen3-30B-A3B",
    "qwen3-235b-a22b": "aic__Qwen--Qwen3-235B-A22B",
    "qwen3-coder-480b-a35b": "aic__Qwen--Qwen3-Coder-480B-A35B-Instruct",
    "qwen3-vl-235b-a22b": "aic__Qwen--Qwen3-VL-235B-A22B-Instruct",
    "qwen3-next-80b-a3b": "infersim__qwen3-next-80B-A3B",
    "qwen3.5-122b-a10b": "aic__Qwen--Qwen3.5-122B-A10B",
    "qwen3.5-397b-a17b": "aic__Qwen--Qwen3.5-397B-A17B",
    "deepseek-v2": "DeepSeek-V2",
    "deepseek-v3": "aic__deepseek-ai--DeepSeek-R1",
    "deepseek-v3.2": "aic__deepseek-ai--DeepSeek-V3.2",
    "deepseek-v4-flash": "aic__deepseek-ai--DeepSeek-V4-Flash",
    "kimi-k2": "aic__moonshotai--Kimi-K2-Instruct",
    "kimi-k2.5": "aic__moonshotai--Kimi-K2.5",
    "glm-4.5-air": "GLM-4.5-Air",
    "glm-5": "aic__zai-org--GLM-5",
    "glm-5.2": "aic__zai-org--GLM-5.2",
    "gpt-oss-120b": "aic__openai--gpt-oss-120b",
    "llama-4-maverick": "aic__meta-llama--Llama-4-Maverick-17B-128E-Instruct",
    "minimax-m1": "MiniMax-M1-80k",
    "minimax-m2.5": "aic__MiniMaxAI--MiniMax-M2.5",
    "minimax-m3": "aic__MiniMaxAI--MiniMax-M3",
    "dots.llm1": "dots.llm1",
    "ernie-4.5-21b-a3b": "ERNIE-4.5-21B-A3B",
    "mimo-v2-flash": "aic__XiaomiMiMo--MiMo-V2-Flash",
    "step-3.7-flash": "aic__stepfun-ai--Step-3.7-Flash",
    "gemma-4-26b-a4b": "aic__google--gemma-4-26B-A4B",
    "lfm2.5-8b-a1b": "LFM2.5-8B-A1B",
    "nemotron-3-nano-30b-a3b": "aic__nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "nemotron-3-super-120b-a12b": "aic__nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-FP8",
    "nemotron-3-ultra-550b-a55b": "aic__nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16",
}
OWN = {
    # the attention of both stays in the experts' type, as it did before parts had types
    "gpt-oss-120b": {"part_dtypes"},
    # the default of the router is stated
    "deepseek-v2": {"router_parameters"},
}
"""Fields in which a preset is not what its configuration says."""


def facts(shape: ModelShape, but: set[str]) -> dict[str, Any]:
    """A model without names, and its layers as they are."""
    layers = [(layer.indices, {k: v for k, v in vars(layer.shape).items() if k not in but}) for layer in shape.layers]
    fields = (
        "n_layers",
        "dense_layers",
        "vocab_size",
        "tied_embeddings",
        "weights_dtype",
        "part_dtypes",
        "dispatch_dtype",
    )
    return {"layers": layers, **{name: getattr(shape, name) for name in fields if name not in but}}


@pytest.mark.parametrize("name", presets("models"))
def test_parameters_are_the_published_ones(name: str) -> None:
    """Within what publishers round: 2 % of the total, 8 % of the active ones."""
    count = parameter_count(preset_model(name))
    total, active = PUBLISHED[name]
    assert count["total"] / 1e9 == pytest.approx(total, rel=0.02)
    if active is not None:
        assert count["active"] / 1e9 == pytest.approx(active, rel=0.08)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="MOESIM_DATA has no configs")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_preset_is_what_its_configuration_says(name: str) -> None:
    """Every layer, router and data type."""
    read = model_shape(ModelSpec.model_validate(read_config(FOLDER / f"{CONFIGS[name]}.json")))
    but = OWN.get(name, set())
    assert facts(preset_model(name), but) == facts(read, but)


def test_models_are_found_by_their_names_on_hugging_face() -> None:
    """With the organisation or without, in any case; every preset has such names, and none has two presets."""
    assert list(aliases("models")) == list(names("models"))
    for preset, others in aliases("models").items():
        for name in others:
            assert name.count("/") == 1
            for written in (name, name.lower(), name.partition("/")[2]):
                assert canonical("models", written) == preset


def test_a_scenario_takes_such_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a folder is called so; an unknown one is refused."""
    base = {"cluster": {"gpu": "h100-sxm"}}
    found = Scenario.from_dict({**base, "model": "mistralai/Mixtral-8x7B-Instruct-v0.1"})
    assert found.model.name == "mixtral-8x7b"
    changed = Scenario.from_dict({**base, "model": {"preset": "mistralai/Mixtral-8x7B-v0.1", "n_layers": 4}})
    assert (changed.model.name, changed.model.n_layers) == ("mixtral-8x7b (changed)", 4)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mistralai" / "Mixtral-8x7B-v0.1").mkdir(parents=True)
    for name in ("mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-9x7B"):
        with pytest.raises(ScenarioError, match=f"model: found '{name}', wanted"):
            Scenario.from_dict({**base, "model": name})


@pytest.mark.parametrize(
    "name", ["llama-4-maverick", "nemotron-3-nano-30b-a3b", "gemma-4-26b-a4b", "deepseek-v4-flash"]
)
def test_the_first_layers_of_a_published_model_are_as_they_are_in_it(name: str) -> None:
    """What a preset, or a configuration, says of later layers is left out; what the scenario says stays as it is."""
    whole = preset_model(name)
    base = {"cluster": {"gpu": "h100-sxm"}}
    few = Scenario.from_dict({**base, "model": {"preset": name, "n_layers": 7}}).model
    assert few.n_layers == 7
    for i in range(7):
        assert few.layers[few.class_of_layer[i]].shape == whole.layers[whole.class_of_layer[i]].shape
    own = {"preset": name, "n_layers": 7, "dense_layers": [9]}
    with pytest.raises(ScenarioError, match=r"model\.dense_layers: found"):
        Scenario.from_dict({**base, "model": own})
